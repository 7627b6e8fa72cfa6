"""A simulated launch goes the way that the agent's own table says."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport

from footlights.agent.clock import BootClock
from footlights.agent.launches.record import Record
from footlights.agent.launches.step import LaunchEnding
from footlights.launch.launcher import Ports
from footlights.lifecycle import LaunchState
from footlights.simulate.launch import REFUSED, SimulatedLaunch
from footlights.simulate.model import Fate
from tests.system.stack import until

QUICK = Fate(
    refused=False,
    start_error=False,
    process_s=0.01,
    ready_s=0.03,
    exit_s=math.inf,
    exit_code=0,
    exits_early=False,
    stop_s=0.02,
    visits=((0.02, 0.05), (0.08, 60.0)),
)


class Observed:
    """A launch, and every report of it that was worth telling at once."""

    def __init__(self, fate: Fate, *, holder: str = "", start_timeout_s: float = 30.0) -> None:
        assignment = Assignment(launch_id="l-1", session_id="s-1", epoch=4, device_uuid="FAKE-1", slots=[0])
        assignment.limits.start_timeout.FromMilliseconds(round(start_timeout_s * 1000))
        self.told: list[LaunchReport] = []
        self._changed = asyncio.Event()
        self.launch = SimulatedLaunch(
            Record(assignment, BootClock()),
            fate,
            ports=Ports(1, 2, 3),
            holder=lambda _record: holder,
            changed=self._take,
        )

    def _take(self, launch: SimulatedLaunch) -> None:
        self.told.append(launch.report())
        self._changed.set()

    async def until(self, state: str, viewers: int | None = None) -> LaunchReport:
        async with asyncio.timeout(10):
            while True:
                for report in self.told:
                    if LaunchReport.State.Name(report.state) == state and viewers in (None, report.viewers):
                        return report
                self._changed.clear()
                await self._changed.wait()

    @property
    def states(self) -> list[str]:
        names = [LaunchReport.State.Name(report.state) for report in self.told]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


async def test_a_launch_starts_is_watched_and_is_stopped() -> None:
    """
    It is told as starting, ready, watched, left, watched again, stopping and gone, with its steps and ports.
    """
    seen = Observed(QUICK)

    seen.launch.turn()
    await seen.until("READY", viewers=1)
    await seen.until("READY", viewers=0)
    seen.told.clear()
    again = await seen.until("READY", viewers=1)
    seen.launch.end(LaunchEnding(LaunchState.EXITED, "STOPPED"))
    final = await seen.until("EXITED")

    assert again.ever_connected
    assert (again.signal_port, again.media_port, again.http_port) == (1, 2, 3)
    assert [step.stage for step in final.steps] == ["PROCESS_UP", "APPLICATION_READY", "FIRST_VIEWER"]
    assert (final.reason, final.exit_code, final.epoch) == ("STOPPED", 0, 4)
    assert seen.states == ["READY", "STOPPING", "EXITED"]


@pytest.mark.parametrize(
    ("fate", "state", "reason", "exit_code"),
    [
        (replace(QUICK, refused=True), "REJECTED", REFUSED, None),
        (replace(QUICK, start_error=True, exits_early=True, ready_s=math.inf), "FAILED", "START_ERROR", None),
        (
            replace(QUICK, exits_early=True, exit_s=0.02, exit_code=1, ready_s=math.inf),
            "FAILED",
            "EXITED_EARLY",
            1,
        ),
        (replace(QUICK, ready_s=math.inf), "FAILED", "START_TIMEOUT", 0),
        (replace(QUICK, exit_s=0.03), "EXITED", "", 0),
        (replace(QUICK, exit_s=0.03, exit_code=-11), "EXITED", "", -11),
    ],
)
async def test_a_launch_ends_as_its_fate_says(fate: Fate, state: str, reason: str, exit_code: int | None) -> None:
    """
    Each way to fail is told with the state, the reason and the exit status that a real agent tells.
    """
    seen = Observed(fate, start_timeout_s=0.1)

    seen.launch.turn()
    final = await seen.until(state)

    assert final.reason == reason
    assert (final.exit_code if final.HasField("exit_code") else None) == exit_code
    assert seen.launch.over


async def test_a_slot_that_another_launch_holds_is_refused_and_remembered() -> None:
    """
    A slot that was given away twice is what a simulation must find.
    """
    seen = Observed(QUICK, holder="l-0")

    seen.launch.turn()

    assert (await seen.until("REJECTED")).reason == "SLOT_HELD"
    assert seen.launch.doubled == "l-0"


async def test_a_machine_that_died_took_its_launches_with_it() -> None:
    """
    What was ready has exited with an unknown status, as a real agent finds it after a restart of the machine.
    """
    seen = Observed(QUICK)
    seen.launch.turn()
    await seen.until("READY")

    seen.launch.machine_gone()

    final = await seen.until("EXITED")
    assert final.reason == "NODE_RESTARTED"
    assert not final.HasField("exit_code")


async def test_somebody_who_is_connected_is_not_idle() -> None:
    """
    A watched session's idle time does not grow between its reports; an unwatched one's does.
    """
    seen = Observed(replace(QUICK, visits=((0.0, 0.1),)))
    seen.launch.turn()
    await seen.until("READY", viewers=1)
    while seen.launch.record.viewers:
        assert seen.launch.report().idle_for.ToTimedelta().total_seconds() < 0.01
        await asyncio.sleep(0.01)

    async def idle() -> bool:
        return seen.launch.report().idle_for.ToTimedelta().total_seconds() > 0.05

    await until(idle, what="it is idle")
