"""What will not end is raised, and its slot is withheld until it is proved gone."""

from __future__ import annotations

from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2
from structlog.testing import capture_logs

from tests.control.harness import Agent, Control, State, gpu, seconds, version
from tests.control.scheduling.test_loop import GARBAGE, change, skipped

OVERDUE = "The end is overdue, and its slots are withheld until the application is proved gone: "


async def pass_s(plane: Control, agent: Agent, span: float) -> None:
    """Let time pass while the agent is heard, and reap."""
    while span > 0:
        step = min(span, 10)
        plane.clock.pass_s(step)
        await agent.say(heartbeat=agent_pb2.Heartbeat())
        await agent.settled()
        await plane.reap()
        span -= step


async def metrics(plane: Control) -> str:
    return (await plane.rest("GET", "/metrics")).text


async def test_a_session_that_does_not_end_is_raised_with_the_agents_reason(plane: Control) -> None:
    """30 s beyond its grace period; it stays TERMINATING, its slot is not given away, and the proof ends it all."""
    await plane.apply(version("2.0.0", limits=application_pb2.Limits(stop_grace_period=seconds(20))))
    agent = await plane.agent()
    made = await plane.running(agent)
    await plane.terminate(made.session_id)
    assignment = await agent.assignment(made.session_id, "STOPPED")
    await agent.report(assignment, "STOPPING", message="pid 4711 is in uninterruptible sleep.")
    await plane.reap()
    await pass_s(plane, agent, 49)
    early = (await plane.get(made.session_id)).status_message, await metrics(plane)
    await pass_s(plane, agent, 1)
    stuck = await plane.get(made.session_id)
    raised = await metrics(plane)
    waiting = await plane.create()
    placed = await plane.place()
    await agent.report(assignment, "EXITED", exit_code=-9)
    await plane.reap()
    ended = await plane.get(made.session_id)

    assert early[0] == "pid 4711 is in uninterruptible sleep."
    assert "footlights_stuck_sessions 0.0" in early[1]
    assert (stuck.state, stuck.status_message) == (State.TERMINATING, OVERDUE + "pid 4711 is in uninterruptible sleep.")
    assert "footlights_stuck_sessions 1.0" in raised
    assert placed == 0
    assert (ended.state, ended.status_message) == (State.TERMINATED, "Terminated by admin.")
    assert "footlights_stuck_sessions 0.0" in await metrics(plane)
    assert await plane.place() == 1
    assert (await plane.get(waiting.session_id)).state == State.STARTING


async def test_a_launch_whose_limits_cannot_be_read_keeps_no_other_from_being_raised(plane: Control) -> None:
    """It is reported once; one that does not end is stuck, whatever ends beside it."""
    await plane.apply(version("2.0.0", limits=application_pb2.Limits(stop_grace_period=seconds(20))))
    agent = await plane.agent("node-a", gpu("A"), gpu("B"))
    made, bad = await plane.running(agent), await plane.running(agent)
    for each in (made, bad):
        await plane.terminate(each.session_id)
    await change(plane, bad.session_id, limits=GARBAGE)
    with capture_logs() as logs:
        await pass_s(plane, agent, 60)

    text = await metrics(plane)
    assert "footlights_stuck_sessions 1.0" in text
    assert [entry["session_id"] for entry in skipped(logs)] == [bad.session_id]


async def test_a_clock_that_jumps_raises_no_alarm(plane: Control) -> None:
    """The time is measured, once it runs."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await plane.terminate(made.session_id)
    await plane.reap()

    plane.clock.jump_s(86400)
    await plane.reap()

    assert (await plane.get(made.session_id)).status_message == "Terminated by admin."
    assert "footlights_stuck_sessions 0.0" in await metrics(plane)


async def test_slot_seconds_are_counted_by_phase_when_a_launch_has_ended(plane: Control) -> None:
    """Starting, used, ending: nothing twice and nothing left out."""
    agent = await plane.agent()
    made = await plane.create()
    await plane.place()
    plane.clock.pass_s(4)
    assignment = await agent.ready(made.session_id)
    plane.clock.pass_s(10)
    await plane.terminate(made.session_id)
    plane.clock.pass_s(2)
    for _ in range(2):
        await agent.report(assignment, "EXITED", exit_code=0)
        plane.clock.pass_s(1)

    text = await metrics(plane)
    for phase, spent in (("starting", 3.0), ("used", 11.0), ("ending", 2.0)):
        assert f'footlights_slot_seconds_total{{phase="{phase}"}} {spent}' in text
