"""A session's life through the control plane, with agents that follow a script."""

from __future__ import annotations

from footlights.v1 import application_pb2, session_pb2

from tests.control.harness import Control, State, seconds

Stage = session_pb2.Session.Milestone.Stage


async def test_a_session_goes_through_its_life(plane: Control) -> None:
    """Created, placed, started, watched, terminated, proved gone: every step as callers see it."""
    agent = await plane.agent()

    created = await plane.create()
    assert created.state == State.PENDING
    assert await plane.place() == 1
    placed = await plane.get(created.session_id)
    assignment = await agent.ready(created.session_id)
    ready = await plane.get(created.session_id)
    await agent.report(assignment, "READY", viewers=1, ever_connected=True)
    active = await plane.get(created.session_id)
    await plane.terminate(created.session_id)
    ending = await plane.get(created.session_id)
    await agent.assignment(created.session_id, "STOPPED")
    await agent.report(assignment, "EXITED", exit_code=0)
    ended = await plane.get(created.session_id)

    assert (placed.state, placed.node, placed.device, placed.device_name) == (
        State.STARTING,
        "node-a",
        "GPU-0",
        "NVIDIA L40S",
    )
    assert ready.state == State.READY
    assert (active.state, active.viewers) == (State.ACTIVE, 1)
    assert ending.state == State.TERMINATING
    assert (ended.state, ended.end_reason) == (State.TERMINATED, session_pb2.Session.USER_TERMINATED)
    assert [Stage.Name(step.stage) for step in ended.timeline] == [
        "QUEUED",
        "PLACED",
        "PROCESS_UP",
        "APPLICATION_READY",
        "ENDING",
        "ENDED",
    ]
    revisions = [each.revision for each in (created, placed, ready, active, ending, ended)]
    assert sorted(set(revisions)) == revisions
    await agent.until("forget") if not agent.forgotten else None
    assert agent.forgotten == [assignment.launch_id]


async def test_why_an_application_failed_reaches_its_caller(plane: Control) -> None:
    """By its own reason, and not where its end was asked for."""
    agent = await plane.agent()
    failed = await plane.create()
    await plane.place()
    assignment = await agent.assignment(failed.session_id)
    await agent.report(assignment, "FAILED", reason="STAGE_NOT_FOUND", message="no such stage", exit_code=3)
    crashed = await plane.running(agent)
    assignment = await agent.assignment(crashed.session_id)
    await agent.report(assignment, "EXITED", reason="OUT_OF_MEMORY", message="no memory", exit_code=3)

    shown = [await plane.get(each.session_id) for each in (failed, crashed)]
    assert [(each.end_reason, each.failure_reason, each.status_message) for each in shown] == [
        (session_pb2.Session.LAUNCH_FAILED, "STAGE_NOT_FOUND", "no such stage"),
        (session_pb2.Session.CRASHED, "OUT_OF_MEMORY", "no memory"),
    ]


async def test_that_a_session_had_to_be_killed_is_said(plane: Control) -> None:
    """Beside who ended it."""
    agent = await plane.agent()
    session = await plane.running(agent)
    await plane.terminate(session.session_id)
    assignment = await agent.assignment(session.session_id, "STOPPED")
    await agent.report(assignment, "EXITED", reason="STOPPED", message="It was killed.", exit_code=-9)

    ended = await plane.get(session.session_id)
    assert ended.status_message.startswith("Terminated by ")
    assert ended.status_message.endswith(". It was killed.")
    assert ended.failure_reason == ""


async def test_limits_on_silence_and_on_coming_back_end_sessions(plane: Control) -> None:
    """A hung application is a failure; a viewer who does not come back is not."""
    limits = application_pb2.Limits()
    limits.unresponsive_timeout.FromSeconds(30)
    limits.reconnect_timeout.FromSeconds(60)
    limits.idle_timeout.FromSeconds(3600)
    agent = await plane.agent()
    ends = []
    for reported in ({"unanswered_for": 30}, {"unwatched_for": 60, "idle_for": 60}):
        session = await plane.running(agent, limits=limits)
        assignment = await agent.assignment(session.session_id)
        spans = {name: seconds(span) for name, span in reported.items()}
        await agent.report(assignment, "READY", ever_connected=True, ready_for=seconds(300), **spans)
        await agent.assignment(session.session_id, "STOPPED")
        await agent.report(assignment, "EXITED", reason="STOPPED", exit_code=0)
        ends.append(await plane.get(session.session_id))

    assert [(end.state, end.end_reason) for end in ends] == [
        (State.FAILED, session_pb2.Session.UNRESPONSIVE),
        (State.TERMINATED, session_pb2.Session.IDLE_TIMEOUT),
    ]
    assert [end.status_message for end in ends] == [
        "The application did not answer for 30 seconds.",
        "No viewer came back within 60 seconds.",
    ]
