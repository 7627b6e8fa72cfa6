"""A session's life through the control plane, with agents that follow a script."""

from __future__ import annotations

from footlights.v1 import session_pb2

from tests.control.harness import Control, State

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
