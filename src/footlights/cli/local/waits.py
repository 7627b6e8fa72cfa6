"""Waiting for several things at once: work or a signal, work or the end of a process, a condition or a deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from footlights.cli.exits import TIMEOUT, Failed
from footlights.cli.local.children import Child

_Result = TypeVar("_Result")

POLL_S: Final = 0.1
_START_TIMEOUT_S: Final = 60.0


async def unless_stopped(work: Coroutine[Any, Any, _Result], stop: asyncio.Event) -> _Result | None:
    """Run ``work``; cancel it and return None when ``stop`` is set first."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await _cancel(working, stopping)


async def while_alive(child: Child, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work``.

    Raises:
        Failed: ``child`` ended first.
    """
    working, ended = asyncio.create_task(work), asyncio.create_task(child.ended())
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ended.result()
        return working.result()
    finally:
        await _cancel(working, ended)


async def first_to_end(children: list[Child]) -> Failed:
    """Wait until one of ``children`` ends by itself, and return that as a failure."""
    ends = [asyncio.create_task(child.ended()) for child in children]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        await _cancel(*ends)


async def poll(what: str, check: Callable[[], Awaitable[_Result | None]]) -> _Result:
    """Call ``check`` until it returns a value.

    Raises:
        Failed: it returned none within a minute; the message names ``what``.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                if (found := await check()) is not None:
                    return found
                await asyncio.sleep(POLL_S)
    raise Failed(f"{what} was not ready after {_START_TIMEOUT_S:g} s. See the logs in the data directory.", TIMEOUT)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
