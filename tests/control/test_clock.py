"""The clocks, and what a wall clock that jumps does to a whole control plane."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, session_pb2

from footlights.control.clock import CautiousClock, DatabaseClock
from tests.control.harness import Agent, Clock, Control, State, control, known, seconds, version

DAY_S = 86_400
MONTH_S = 31 * DAY_S
JUMPS = [MONTH_S, -MONTH_S, 3600, -3600]


def begun(wall: Clock, newest: datetime | None = None, file: Path | None = None) -> CautiousClock:
    return CautiousClock(wall, wall.monotonic, newest=newest, file=file)


def test_replicas_go_by_their_databases_clock() -> None:
    """One whose machine is a month ahead stores the same moments as the others; a jump between readings is not seen."""
    wall = Clock()
    theirs = wall()
    wall.jump_s(MONTH_S)
    shared = DatabaseClock(wall, wall.monotonic)
    before = shared()
    shared.read(theirs)
    wall.pass_s(10)
    wall.jump_s(MONTH_S)
    shared.read(None)

    assert before == theirs + timedelta(seconds=MONTH_S)
    assert shared() == theirs + timedelta(seconds=10)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_makes_nothing_older(jump: int) -> None:
    """Neither while it lasts nor after the wall clock has come back."""
    wall = Clock()
    cautious = begun(wall)
    stored = wall()
    wall.jump_s(jump)
    wall.pass_s(60)
    during = cautious.age_s(stored)
    wall.jump_s(-jump)
    wall.pass_s(60)

    assert during == (60 if jump > 0 else 0)
    assert cautious.age_s(stored) == (120 if jump > 0 else 0)


def test_a_jump_that_lasts_is_counted_after_a_day() -> None:
    """Until then, what was stored before it is as old as the monotonic clock says; nothing is held back for good."""
    wall = Clock()
    cautious = begun(wall)
    stored = wall()
    wall.jump_s(MONTH_S)
    ages = []
    for _ in range(26):
        wall.pass_s(3600)
        ages.append(cautious.age_s(stored))

    assert ages[22] == 23 * 3600
    assert ages[-1] == MONTH_S + 26 * 3600


@pytest.mark.parametrize(("away", "counted"), [(1800, 1800), (MONTH_S, 0), (-MONTH_S, 0)])
def test_a_start_believes_a_gap_of_up_to_an_hour(tmp_path: Path, away: int, counted: int) -> None:
    """By what the last process has kept, or else by the newest moment in the store."""
    wall = Clock()
    last = wall()
    begun(wall).keep(last)  # without a file it is kept nowhere
    begun(wall, file=tmp_path / "clock").keep(last)
    wall.reboot()
    wall.jump_s(away)
    polluted = wall()

    assert begun(wall, newest=last).age_s(last) == counted
    assert begun(wall, newest=polluted, file=tmp_path / "clock").age_s(last) == counted
    assert begun(wall).age_s(last) == max(0, away)


@pytest.mark.parametrize("text", ["", "2026-03", "2026-03-01T12:00:00"])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, text: str) -> None:
    """A half-written or strange file costs what it knew, and no start."""
    (tmp_path / "clock").write_text(text)
    wall = Clock()

    assert begun(wall, file=tmp_path / "clock")() == wall.wall


def test_a_disk_that_is_full_costs_no_pass(tmp_path: Path) -> None:
    """What cannot be kept is said."""
    begun(Clock(), file=tmp_path / "missing" / "clock").keep(Clock()())


# The whole control plane


async def ended(plane: Control, agent: Agent) -> session_pb2.Session:
    made = await plane.running(agent, request_id="yesterday")
    await plane.terminate(made.session_id)
    await agent.report(await agent.assignment(made.session_id, "STOPPED"), "EXITED", exit_code=0)
    return await plane.get(made.session_id)


@pytest.mark.parametrize("reboot", [False, True])
async def test_a_month_forward_prunes_nothing_and_forgets_no_request(tmp_path: Path, reboot: bool) -> None:
    """While it runs, and when it starts again under the wrong clock, also on another boot."""
    clock = Clock()
    async with control(tmp_path, clock=clock) as plane:
        await plane.apply()
        made = await ended(plane, await plane.agent())
        clock.jump_s(MONTH_S)
        await plane.reap()
        again = await plane.create(request_id="yesterday")
    if reboot:
        clock.reboot()
    async with control(tmp_path, clock=clock) as plane:
        await plane.reap()
        kept = await plane.get(made.session_id)
        and_again = await plane.create(request_id="yesterday")

    assert kept.state == State.TERMINATED
    assert again.session_id == and_again.session_id == made.session_id


async def test_true_time_prunes_and_forgets(tmp_path: Path) -> None:
    """After as many days of running as history is kept for."""
    clock = Clock()
    async with control(tmp_path, clock=clock) as plane:
        await plane.apply()
        made = await ended(plane, await plane.agent())
        clock.pass_s(MONTH_S)
        await plane.reap()

        fresh = await plane.create(request_id="yesterday")
        gone = await plane.rest("GET", f"/stream/{made.session_id}")

    assert fresh.session_id != made.session_id
    assert gone.status_code == 404


@pytest.mark.parametrize("reboot", [False, True])
async def test_deadlines_first_seen_after_a_jump_keep_their_time(tmp_path: Path, reboot: bool) -> None:
    """At a start under a clock that is a month ahead, a wait in the queue and a drain last as long as they were to."""
    clock = Clock()
    async with control(tmp_path, clock=clock) as plane:
        await plane.apply(version("2.0.0", limits=application_pb2.Limits(queue_timeout=seconds(60))))
        agent = await plane.agent()
        running = await plane.running(agent)
        assignment = await agent.assignment(running.session_id)
        waiting = await plane.create()
        await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "60s"})
        token = agent.token
    clock.jump_s(MONTH_S)
    if reboot:
        clock.reboot()
    async with control(tmp_path, clock=clock) as plane:
        agent = await plane.new_agent("node-a", token).open(launches=[known(assignment)])

        async def states(passed_s: float) -> tuple[int, int]:
            clock.pass_s(passed_s)
            await agent.say(heartbeat=agent_pb2.Heartbeat())
            await agent.settled()
            await plane.reap()
            return (await plane.get(waiting.session_id)).state, (await plane.get(running.session_id)).state

        early = [await states(passed) for passed in (0, 10, 10, 10, 10, 10, 9)]
        late = await states(1)

    assert early == [(State.PENDING, State.READY)] * 7
    assert late == (State.FAILED, State.TERMINATING)


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_session_that_is_first_seen_after_a_jump_waits_its_whole_time(plane: Control, jump: int) -> None:
    """The wall clock jumps between its creation and the first look at it; it ends after the time that it may wait."""
    await plane.apply(version("2.0.0", limits=application_pb2.Limits(queue_timeout=seconds(60))))
    made = await plane.create()
    plane.clock.jump_s(jump)
    await plane.reap()
    plane.clock.pass_s(59)
    await plane.reap()
    assert (await plane.get(made.session_id)).state == State.PENDING
    plane.clock.pass_s(1)
    await plane.reap()

    assert (await plane.get(made.session_id)).state == State.FAILED
