"""Removes what is old: ended sessions, what was kept of those, request ids, and the answers to calls that had one.

What is removed cannot come back, so its age is measured by the cautious clock.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from footlights.store import remembered_calls
from footlights.store.sessions import idempotency, removals, session_rows

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.control.expiry.context import ExpiryContext


class Retention:
    """Removes what is old, once a minute."""

    PERIOD_S = 60.0
    MOST_PRUNINGS = 100
    """Transactions in one pass, of ``session_rows.PRUNED_AT_ONCE`` sessions each."""

    def __init__(self, context: ExpiryContext, days: int) -> None:
        """Create it; ``days`` is how long ended sessions are kept."""
        self._context = context
        self._kept = timedelta(days=days)
        self._removed_at = -math.inf

    async def remove_old(self) -> None:
        """Make one pass, unless the last one was less than ``PERIOD_S`` ago."""
        if self._context.monotonic() - self._removed_at <= self.PERIOD_S:
            return
        self._removed_at = self._context.monotonic()
        now = self._context.cautious()
        before = now - self._kept
        for _ in range(self.MOST_PRUNINGS):
            if (
                await self._context.work.write(lambda tx: session_rows.prune(tx, before=before, now=now))
                < session_rows.PRUNED_AT_ONCE
            ):
                break
        await self._context.work.write(lambda tx: idempotency.forget_old(tx, now=now))
        await self._forget_calls(now)
        await self._context.work.write(lambda tx: removals.forget_old(tx, now=now))
        await asyncio.to_thread(self._context.cautious.keep, now)

    async def _forget_calls(self, now: datetime) -> None:
        """What is over is found beside the writer, and removed a little at a time."""
        found = await self._context.store.read(lambda tx: remembered_calls.out_of_date(tx, now=now))
        step = remembered_calls.FORGOTTEN_AT_ONCE
        for start in range(0, len(found), step):
            await self._context.work.write(partial(remembered_calls.forget, calls=found[start : start + step]))
