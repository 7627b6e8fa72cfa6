"""Who waits for a device, and what is known of for how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from footlights import scheduler
from footlights.control import limits
from footlights.control.scheduling import views
from footlights.store.launches import launch_rows
from footlights.store.sessions import session_rows
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from footlights.control.scheduling.crash_loops import Crashes
    from footlights.store import Transaction
    from footlights.store.schema import LaunchRow, SessionRow

REFUSAL_TTL = timedelta(seconds=30)
"""How long a session is not offered again to a device that refused it."""

MAX_QUEUE = 2000
"""How many waiting sessions one pass looks at."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The sessions that wait, in the order in which they are to be placed."""

    waiting: tuple[SessionRow, ...]
    avoid: Mapping[str, Mapping[tuple[str, str], str]]
    """Session id -> the devices that refused it of late, and why."""

    def wishes(self, crashes: Crashes) -> list[scheduler.Wish]:
        """Return what they want, in their order."""
        return [
            views.wish(row, self.avoid.get(row.session_id, {}), crashes.of(row.application, row.application_version))
            for row in self.waiting
        ]


def queue(tx: Transaction, *, now: datetime) -> Queue:
    """Read who waits."""
    waiting = session_rows.pending(tx, MAX_QUEUE)
    refused = launch_rows.refusals(tx, [row.session_id for row in waiting], since=now - REFUSAL_TTL)
    return Queue(tuple(waiting), _avoid(refused))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of when slots become free."""

    remaining_s: tuple[float | None, ...] = ()
    """For every session that holds slots, how long it has left at most; None for one without an end."""
    start_s: float | None = None
    """The median of the last measured times from placed to ready."""

    def eta_s(self, position: int) -> float | None:
        """Estimate the seconds until the session at ``position`` in the queue is ready."""
        return scheduler.eta_s(position, self.remaining_s, self.start_s)


def outlook(tx: Transaction, *, now: datetime) -> Outlook:
    """Read when slots become free."""
    starts = launch_rows.recent_start_times(tx)
    most: dict[bytes, float | None] = {}
    left: list[float | None] = []
    for packed, ready_time in session_rows.holding(tx):
        if packed not in most:
            most[packed] = limits.time_limits(application_pb2.Limits.FromString(packed)).max_s
        limit = most[packed]
        running = (now - ready_time).total_seconds() if ready_time else 0.0
        left.append(None if limit is None else max(0.0, limit - running))
    return Outlook(tuple(left), median(starts) if starts else None)


def _avoid(refused: Sequence[LaunchRow]) -> dict[str, dict[tuple[str, str], str]]:
    avoid: dict[str, dict[tuple[str, str], str]] = {}
    for launch in refused:
        why = f"{launch.reason}: {launch.message}" if launch.message else launch.reason
        avoid.setdefault(launch.session_id, {})[(launch.node, launch.device)] = why
    return avoid
