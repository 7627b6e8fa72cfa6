"""Removes what is old: ended sessions, idempotency keys, and search terms that no session has any more.

What is removed cannot come back, so its age is measured by the cautious clock.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING

from footlights.store.sessions import idempotency, session_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.control.clock import CautiousClock
    from footlights.control.replication.work_lease import LeaderLease
    from footlights.store import Store


class Retention:
    """Removes what is old, once a minute."""

    PERIOD_S = 60.0
    MOST_PRUNINGS = 100
    """Transactions in one pass, of ``session_rows.PRUNED_AT_ONCE`` sessions each."""

    def __init__(
        self, *, store: Store, work: LeaderLease, cautious: CautiousClock, monotonic: Callable[[], float], days: int
    ) -> None:
        """Create it; ``days`` is how long ended sessions are kept."""
        self._store, self._work = store, work
        self._cautious, self._monotonic = cautious, monotonic
        self._kept = timedelta(days=days)
        self._removed_at = -math.inf
        """The last search term that was looked at."""

    async def remove_old(self) -> None:
        """Make one pass, unless the last one was less than ``PERIOD_S`` ago."""
        if self._monotonic() - self._removed_at <= self.PERIOD_S:
            return
        self._removed_at = self._monotonic()
        now = self._cautious()
        before = now - self._kept
        for _ in range(self.MOST_PRUNINGS):
            if await self._work.write(lambda tx: session_rows.prune(tx, before=before)) < session_rows.PRUNED_AT_ONCE:
                break
        await self._work.write(lambda tx: idempotency.forget_old(tx, now=now))
        await asyncio.to_thread(self._cautious.keep, now)
