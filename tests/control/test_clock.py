"""The steady clock, and what a wall clock that jumps does to a control plane: nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from footlights.v1 import agent_pb2, application_pb2, node_pb2, session_pb2, token_pb2

from footlights.control.clock import BELIEVE_AFTER_S, DOUBT_S, SLEW, Machine, SharedWall, SteadyClock, steady
from tests.control.harness import Agent, Clock, Control, State, control, gpu, known, seconds, version

DAY_S = 86_400
MONTH_S = 31 * DAY_S
JUMPS = [MONTH_S, -MONTH_S, 3600, -3600]


def begun(wall: Clock, newest: datetime | None = None, file: Path | None = None) -> SteadyClock:
    return SteadyClock(wall, Machine(wall.boot_id, wall.monotonic), file, newest)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_step_of_the_wall_changes_no_moment(jump: int) -> None:
    """Time goes on at its own pace, and when the wall comes back nothing has happened."""
    wall = Clock()
    clock = begun(wall)
    start = clock()

    wall.jump_s(jump)
    wall.pass_s(60)
    during = clock()
    wall.jump_s(-jump)
    wall.pass_s(60)

    assert start == wall.wall - timedelta(seconds=120)
    assert during == start + timedelta(seconds=60)
    assert clock() == start + timedelta(seconds=120)
    assert clock.gap == timedelta(0)


def test_a_small_difference_is_made_good_slowly() -> None:
    """At a hundredth of the time that passes, and never by going back."""
    wall = Clock()
    clock = begun(wall)
    wall.jump_s(-2)
    moments = []
    for _ in range(30):
        wall.pass_s(10)
        moments.append(clock())

    assert moments == sorted(set(moments))
    assert (moments[1] - moments[0]).total_seconds() == pytest.approx(10 * (1 - SLEW), abs=1e-5)
    assert abs((clock() - wall.wall).total_seconds()) < 1e-3


def test_a_step_is_believed_after_an_hour_of_agreement() -> None:
    """Not earlier; and what was stored before it does not become a month older for a day."""
    wall = Clock()
    clock = begun(wall)
    stored = clock()
    wall.jump_s(MONTH_S)
    clock()
    wall.pass_s(BELIEVE_AFTER_S - 1)
    before = clock()
    wall.pass_s(1)

    assert before == stored + timedelta(seconds=BELIEVE_AFTER_S - 1)
    assert clock() == wall.wall
    assert clock.gap == timedelta(seconds=MONTH_S)
    assert clock.age_s(stored) == BELIEVE_AFTER_S
    assert clock.age_s(clock()) == 0
    wall.pass_s(DOUBT_S)
    assert clock.gap == timedelta(0)


def test_a_wall_that_keeps_jumping_is_not_believed() -> None:
    """The hour begins anew with each step."""
    wall = Clock()
    clock = begun(wall)
    start = clock()
    for _ in range(3):
        wall.jump_s(MONTH_S)
        clock()
        wall.pass_s(BELIEVE_AFTER_S / 2)

    assert clock() == start + timedelta(seconds=1.5 * BELIEVE_AFTER_S)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_start_on_the_same_boot_goes_on_where_the_clock_was(tmp_path: Path, jump: int) -> None:
    """Whatever the wall says by then."""
    wall = Clock()
    start = steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, None)()
    wall.pass_s(10)
    wall.jump_s(jump)

    clock = steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, start)

    assert clock() == start + timedelta(seconds=10)
    assert clock.gap == timedelta(0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot_id": "the first boot"}', '{"boot_id": 1, "booted": "x"}'])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, text: str) -> None:
    """A half-written or strange file costs what the wall knows, and no start."""
    (tmp_path / "clock.json").write_text(text)
    wall = Clock()

    assert steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, None)() == wall.wall


def test_after_a_reboot_time_does_not_begin_before_what_the_store_has_seen(tmp_path: Path) -> None:
    """A machine whose wall clock begins in 1970 goes on from the store's last moment."""
    wall = Clock()
    last = steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, None)()
    wall.reboot()
    wall.wall = datetime(1970, 1, 1, tzinfo=wall.wall.tzinfo)

    assert steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, last)() == last


def test_a_gap_after_a_reboot_is_not_counted_for_a_day(tmp_path: Path) -> None:
    """It may be true, so the moment is the wall's; ages of what was there before leave it out."""
    wall = Clock()
    last = steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, None)()
    wall.reboot()
    wall.jump_s(MONTH_S)
    clock = steady(wall, Machine(wall.boot_id, wall.monotonic), tmp_path, last)

    assert clock() == wall.wall
    assert clock.gap == timedelta(seconds=MONTH_S)
    assert clock.age_s(last) == 0
    wall.pass_s(DOUBT_S)
    assert clock.age_s(last) == MONTH_S + DAY_S


# The whole control plane


async def ended(plane: Control, agent: Agent) -> session_pb2.Session:
    made = await plane.running(agent, request_id="yesterday")
    await plane.terminate(made.session_id)
    await agent.report(await agent.assignment(made.session_id, "STOPPED"), "EXITED", exit_code=0)
    return await plane.get(made.session_id)


@pytest.mark.parametrize("reboot", [False, True])
async def test_a_month_forward_prunes_nothing_and_forgets_no_request(tmp_path: Path, reboot: bool) -> None:
    """While it runs, and when it starts again with the wrong clock, also on another boot."""
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
@pytest.mark.parametrize("jump", [MONTH_S, -MONTH_S])
async def test_deadlines_first_seen_after_a_jump_keep_their_time(tmp_path: Path, jump: int, reboot: bool) -> None:
    """A wait in the queue and a drain last as long as they were to last: nobody has seen any of it pass."""
    clock = Clock()
    async with control(tmp_path, clock=clock) as plane:
        await plane.apply(version("2.0.0", limits=application_pb2.Limits(queue_timeout=seconds(60))))
        agent = await plane.agent()
        running = await plane.running(agent)
        assignment = await agent.assignment(running.session_id)
        waiting = await plane.create()
        await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "60s"})
        token = agent.token
    clock.jump_s(jump)
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
async def test_a_crash_loop_and_a_quarantine_are_measured(plane: Control, jump: int) -> None:
    """A jump ends no block and prolongs none."""
    agent = await plane.agent("node-a", gpu("GPU-0"), gpu("GPU-1"))
    hurt = await plane.running(agent)
    assignment = await agent.assignment(hurt.session_id)
    await agent.report(assignment, "EXITED", reason="GPU_LOST", message="The device is lost.")
    for _ in range(3):
        made = await plane.create()
        await plane.place()
        plane.clock.pass_s(1)
        await agent.report(await agent.assignment(made.session_id), "FAILED", reason="EXITED_EARLY")

    async def told() -> list[str]:
        request = session_pb2.ExplainPlacementRequest(application="fake")
        answer = await plane.call("StreamingService.ExplainPlacement", request)
        node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
        return [node.message for node in answer.nodes] + [device.quarantine for device in node.devices]

    before = await told()
    plane.clock.jump_s(jump)
    after = await told()
    plane.clock.pass_s(20)
    later = await told()
    plane.clock.pass_s(40)

    def blocked(crash_s: int, quarantine_s: int) -> list[str]:
        return [
            f"failed 3 times in 2 s; next try in {crash_s} s",
            f"GPU_LOST: ended sessions, 1 times; returns in {quarantine_s} s if it stays well",
            "",
        ]

    assert before == after == blocked(40, 57)
    assert later == blocked(20, 37)
    assert await told() == ["would be taken", "", ""]


@pytest.mark.parametrize("jump", [MONTH_S, -MONTH_S])
async def test_tokens_and_grants_last_as_long_as_they_were_to_last(plane: Control, jump: int) -> None:
    """A token of a minute is good for a minute."""
    request = token_pb2.CreateTokenRequest(role=token_pb2.Token.DEVELOPER, subject="ann", ttl=seconds(60))
    token = (await plane.call("TokenService.CreateToken", request)).secret

    plane.clock.jump_s(jump)
    plane.clock.pass_s(59)
    good = await plane.rest("GET", "/stream", token)
    plane.clock.pass_s(2)
    bad = await plane.rest("GET", "/stream", token)

    assert (good.status_code, bad.status_code) == (200, 401)


def test_replicas_go_by_their_databases_clock() -> None:
    """One whose machine is a month ahead stores the same moments as the others, also between two readings."""
    wall = Clock()
    theirs = wall()
    wall.jump_s(30 * 86_400)
    shared = SharedWall(wall)
    shared.read(theirs)
    wall.pass_s(10)
    later = shared()
    shared.read(None)

    assert later == shared() == theirs + timedelta(seconds=10)
