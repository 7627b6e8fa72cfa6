"""The ledger of slot-seconds: what the slots of a launch were held for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from footlights.lifecycle import phases

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.lifecycle import Phases
    from footlights.store.schema import LaunchRow


def spent(launch: LaunchRow, *, now: datetime) -> Phases:
    """Return what a launch's slots were held for, in slot-seconds."""
    ready = None if launch.start_s is None else launch.created_time + timedelta(seconds=launch.start_s)
    return phases(launch.created_time, ready, launch.ending_time, launch.ended_time or now) * len(launch.slots)
