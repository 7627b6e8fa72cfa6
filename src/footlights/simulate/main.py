"""A simulation from its first token to its report."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from footlights.errors import Error, FailedPrecondition, LocalReason
from footlights.simulate.demand import Demand
from footlights.simulate.fleet import SimulatedFleet
from footlights.simulate.model import Model
from footlights.simulate.report import Report
from footlights.simulate.tally import Tally

if TYPE_CHECKING:
    from footlights.client import Client
    from footlights.simulate.settings import Simulation

Show = Callable[[str, Report], None]
"""Shows how it goes: what is being done, and the figures so far. Called about once a second."""

_LOOK_S: Final = 0.1
_SHOW_S: Final = 1.0
_LINK_S: Final = 120.0
_DRAIN_S: Final = 20.0


async def simulate(simulation: Simulation, clients: Sequence[Client], stop: asyncio.Event, show: Show) -> Report:
    """Run a simulation until its duration is over or ``stop`` is set; leave nothing behind unless asked to."""
    run = secrets.token_hex(3)
    fleet = SimulatedFleet(simulation, clients, run)
    demand = Demand(Model(simulation.profile, simulation.seed), clients, run)
    course = _Course(simulation, fleet, demand, show)
    showing = asyncio.create_task(course.show())
    try:
        await course.run(stop)
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        await demand.close()
        await fleet.stop()
        if not simulation.keep:
            course.doing = "removing nodes and tokens"
            with suppress(Error):
                await fleet.remove()
    return course.report()


class _Course:
    """The phases of one simulation, and its figures at any moment."""

    def __init__(self, simulation: Simulation, fleet: SimulatedFleet, demand: Demand, show: Show) -> None:
        self._simulation, self._fleet, self._demand, self._show = simulation, fleet, demand, show
        self._began: float | None = None
        self._elapsed_s: float | None = None
        self._linked = 0
        self._audited = False
        self.doing = "creating tokens"

    async def run(self, stop: asyncio.Event) -> None:
        simulation, loop = self._simulation, asyncio.get_running_loop()
        if simulation.sessions_per_s:
            await self._demand.register()
        await self._fleet.start()
        self.doing = "linking nodes"
        if not await self._linking(stop):
            return
        self.doing = "asking for sessions" if simulation.sessions_per_s else "holding the nodes"
        self._demand.follow()
        self._began = loop.time()
        asking = asyncio.create_task(self._demand.run(simulation.sessions_per_s, simulation.duration_s))
        await self._until(lambda: asking.done() or stop.is_set())
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        self._elapsed_s = loop.time() - self._began
        self._linked = self._fleet.linked
        self.doing = "waiting for answers" if simulation.keep else "ending sessions"
        await self._demand.settle(end=not simulation.keep)
        self.doing = "comparing what was acknowledged with what is known"
        await self._demand.audit()
        self._audited = True
        if not simulation.keep:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._until(lambda: not self._fleet.alive)

    async def show(self) -> None:
        while True:
            self._show(self.doing, self.report())
            await asyncio.sleep(_SHOW_S)

    def report(self) -> Report:
        tally = Tally()
        tally.merge(self._fleet.tally())
        tally.merge(self._demand.tally)
        elapsed_s = self._elapsed_s
        if elapsed_s is None:
            elapsed_s = asyncio.get_running_loop().time() - self._began if self._began is not None else 0.0
        return Report(
            simulation=self._simulation,
            elapsed_s=elapsed_s,
            linked=self._linked or self._fleet.linked,
            alive=self._fleet.alive,
            acknowledged=self._demand.acknowledged,
            states=dict(Counter(self._demand.states)),
            tally=tally,
            lost=tuple(self._demand.lost),
            audited=self._audited,
        )

    async def _linking(self, stop: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(_LINK_S + self._simulation.nodes / 50):
                await self._until(lambda: self._fleet.met == self._simulation.nodes or stop.is_set())
        except TimeoutError:
            text = f"Only {self._fleet.met} of {self._simulation.nodes} nodes got a link. See the control plane's log."
            raise FailedPrecondition(text, reason=LocalReason.NOT_LINKED) from None
        return not stop.is_set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if problem := self._fleet.failed():
                raise FailedPrecondition(problem, reason=LocalReason.WORKER)
            await asyncio.sleep(_LOOK_S)
