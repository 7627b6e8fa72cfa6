"""How late the loop is."""

from __future__ import annotations

import asyncio

from footlights.control.observability import loop_lag
from footlights.supervision import Supervisor


async def test_a_loop_that_stands_still_is_late() -> None:
    """Each sleep's excess is told, by the clock that is given: none where it came in time, and never less."""
    told: asyncio.Queue[float] = asyncio.Queue()
    moments = iter([10.0, 10.25, 20.0, 23.25, 30.0, 30.0])
    watching = asyncio.create_task(
        loop_lag.watch(told.put_nowait, supervisor=Supervisor(), period_s=0.25, monotonic=lambda: next(moments, 40.0))
    )
    try:
        async with asyncio.timeout(10):
            lags = [await told.get() for _ in range(3)]
    finally:
        watching.cancel()

    assert lags == [0.0, 3.0, 0.0]
