"""The ledger of slot-seconds: what a session leased, from its leases, and what that went to, from its launches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from footlights.lifecycle import Phases, phases
from footlights.store.schema import LAUNCH, LEASE, LaunchRow, LeaseRow

if TYPE_CHECKING:
    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class SlotAccount:
    """One session's account, in slot-seconds."""

    leased: float
    spent: Phases

    @property
    def balanced(self) -> bool:
        """Whether leased = starting + used + ending, to the microsecond."""
        return abs(self.leased - self.spent.total) < 1e-6


def account(tx: Transaction, session_id: str, *, now: datetime) -> SlotAccount:
    """Return a session's account; what is still held counts until ``now``."""
    leases = tx.all(select(LEASE).where(LEASE.c.session_id == session_id), LeaseRow)
    launches = tx.all(select(LAUNCH).where(LAUNCH.c.session_id == session_id), LaunchRow)
    leased = sum(
        (max(timedelta(0), (lease.released_time or now) - lease.acquired_time) for lease in leases), timedelta(0)
    )
    return SlotAccount(leased.total_seconds(), sum((spent(launch, now=now) for launch in launches), Phases()))


def spent(launch: LaunchRow, *, now: datetime) -> Phases:
    """Return what a launch's slots were held for, in slot-seconds."""
    ready = None if launch.start_s is None else launch.created_time + timedelta(seconds=launch.start_s)
    return phases(launch.created_time, ready, launch.ending_time, launch.ended_time or now) * len(launch.slots)
