"""How late the event loop is: what every heartbeat and every call waits for, whatever the reason."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S = 0.25


async def watch(
    told: Callable[[float], None], *, period_s: float = PERIOD_S, monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Sleep for ``period_s`` again and again, and tell by how many seconds each sleep was too long, until cancelled."""
    while True:
        started = monotonic()
        await asyncio.sleep(period_s)
        told(max(0.0, monotonic() - started - period_s))
