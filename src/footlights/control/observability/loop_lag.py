"""How late the event loop is: what every heartbeat and every call waits for, whatever the reason."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.supervision import Supervisor

LOOP = "loop_lag"
PERIOD_S = 0.25


async def watch(
    observe: Callable[[float], None],
    *,
    supervisor: Supervisor,
    period_s: float = PERIOD_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Measure until cancelled."""

    async def once() -> None:
        started = monotonic()
        await asyncio.sleep(period_s)
        observe(max(0.0, monotonic() - started - period_s))

    await supervisor.supervise(LOOP, once, every_s=0)
