"""REST calls wait while the process has used its share of a window and agents are linked."""

from __future__ import annotations

import asyncio

from footlights.control.call.pacing import Pacing

MOST_WAITING = 50


class Machine:
    """Links, and two clocks that are moved by hand."""

    def __init__(self) -> None:
        self.links, self.now, self.worked = 1, 100.0, 0.0
        self.pacing = Pacing(
            lambda: self.links,
            lambda: 0,
            most_waiting=MOST_WAITING,
            monotonic=lambda: self.now,
            worked=lambda: self.worked,
        )

    def work(self, seconds: float) -> None:
        """Use the processor for as long as it takes."""
        self.now += seconds
        self.worked += seconds


async def test_without_links_nothing_waits() -> None:
    """Whatever the process does."""
    machine = Machine()
    machine.links = 0
    machine.work(10)

    assert await machine.pacing()


async def test_a_call_waits_for_the_next_window_once_the_share_is_used() -> None:
    """Calls start in their order; the first ones of a window at once."""
    machine, started = Machine(), []
    assert await machine.pacing()
    machine.work(Pacing.WINDOW_S * 0.9)

    async def call(number: int) -> None:
        assert await machine.pacing()
        started.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert started == []
    machine.now += Pacing.WINDOW_S
    await asyncio.gather(*calls)

    assert started == [0, 1, 2]


async def test_beyond_a_bound_calls_are_refused() -> None:
    """Those that wait are served in time, and one that gives up makes room."""
    machine = Machine()
    assert await machine.pacing()
    machine.work(Pacing.WINDOW_S * 0.9)
    waiting = [asyncio.create_task(machine.pacing()) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)

    assert not await machine.pacing()
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    last = asyncio.create_task(machine.pacing())
    await asyncio.sleep(0)
    machine.now += Pacing.WINDOW_S
    assert await last
    assert all(await asyncio.gather(*waiting[1:]))
