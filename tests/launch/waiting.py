"""Waits for conditions, never for time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from footlights.launch.launcher import Launcher, LaunchPlan, Phase, Status

T = TypeVar("T")
DEADLINE_S = 20.0


async def until(read: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, deadline_s: float = DEADLINE_S) -> T:
    """Read again and again until what was read holds; fail with the last reading."""
    end = time.monotonic() + deadline_s
    while True:
        value = await read()
        if holds(value):
            return value
        assert time.monotonic() < end, f"never came true; last seen: {value!r}"
        await asyncio.sleep(0.01)


async def ended(launcher: Launcher, plan: LaunchPlan) -> Status:
    """Wait until the launch has ended."""
    return await until(lambda: launcher.status(plan), lambda status: status.phase is Phase.EXITED)


async def logged(launcher: Launcher, plan: LaunchPlan, text: str) -> tuple[str, ...]:
    """Wait until a line of the output holds ``text``."""
    part = await until(lambda: launcher.log(plan), lambda part: any(text in line for line in part.lines))
    return part.lines
