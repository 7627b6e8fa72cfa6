"""Values that a later release wrote into the database (`store.sessions.unknown_values`).

The columns come from ``unknown_values`` and the enums of stored messages from the descriptors, so that new ones are
covered by themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from footlights.v1 import agent_pb2, application_pb2, node_pb2, profile_pb2, session_pb2, token_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.message import Message
from sqlalchemy import select, update

from footlights import errors
from footlights.store.launches import launch_rows
from footlights.store.schema import DEVICE, LAUNCH, SESSION, TOKEN, VERSION
from footlights.store.sessions import session_rows, unknown_values
from tests.control.harness import Control, State, gpu, known, problem, seconds

INVENTED, NUMBER = "INVENTED", 99
COLUMNS = [
    *(("session", name) for name in unknown_values.OF_SESSION if name != "end_reason"),
    *(("launch", name) for name in unknown_values.OF_LAUNCH),
]
"""An end reason belongs to a session that has ended: it has a test of its own."""

STORED = (application_pb2.Version, node_pb2.Device, profile_pb2.Profile, node_pb2.NodeFacts)
"""The messages that are stored as they are."""


async def invent(plane: Control, session_id: str, table: str, column: str, value: Any = INVENTED) -> None:
    """Write a value into a session's row, or into its launch's."""
    rows = SESSION if table == "session" else LAUNCH
    statement = update(rows).where(rows.c.session_id == session_id).values({column: value})
    await plane.store.write(lambda tx: tx.changed(statement))


async def rows(plane: Control, session_id: str) -> tuple[Any, Any]:
    """Return a session and its launch as they are stored."""
    return await plane.store.read(lambda tx: (session_rows.get(tx, session_id), launch_rows.last(tx, session_id)))


def enum_fields(message: Descriptor, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], EnumDescriptor]]:
    """Yield the path of every enum in a message, however deep."""
    for field in message.fields:
        path = (*above, field.name)
        if field.enum_type is not None:
            yield path, field.enum_type
        child = field.message_type
        if child is not None and not child.full_name.startswith("google.") and child is not message:
            yield from enum_fields(child, path)


def put(message: Message, path: tuple[str, ...], number: int) -> None:
    """Set the enum at a path; of a repeated message, in an item that is added."""
    *above, last = path
    for name in above:
        field = message.DESCRIPTOR.fields_by_name[name]
        inner = getattr(message, name)
        message = inner.add() if field.is_repeated else inner
        if not field.is_repeated:
            message.SetInParent()
    setattr(message, last, number)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
async def test_a_value_of_a_later_release_is_shown_and_its_session_left_alone(
    plane: Control, table: str, column: str
) -> None:
    """Lists, watches, placement, expiry, reports and drains go on for all others; nobody changes this session."""
    agent = await plane.agent("node-a", gpu(slots=2))
    theirs, ours = await plane.running(agent), await plane.running(agent)
    assignment = await agent.assignment(theirs.session_id)
    before = await rows(plane, theirs.session_id)
    await invent(plane, theirs.session_id, table, column)
    written = await rows(plane, theirs.session_id)

    listed = await plane.call("StreamingService.ListSessions", session_pb2.ListSessionsRequest())
    shown = await plane.get(theirs.session_id)

    assert {item.session_id for item in listed.items} == {theirs.session_id, ours.session_id}
    if table == "session" and column in shown.DESCRIPTOR.fields_by_name:
        assert dict(shown.unknown_values) == {column: INVENTED}
        assert getattr(shown, column) == 0
    else:
        assert not shown.unknown_values
    rest = await plane.rest("GET", f"/v1/sessions/{theirs.session_id}")
    assert rest.status_code == 200
    request = session_pb2.WatchSessionRequest(session_id=theirs.session_id)
    watched: Any = plane.stream("StreamingService.WatchSession", request)
    async with aclosing(watched):
        assert (await anext(watched)).session_id == theirs.session_id

    # What the agent says of it is taken in of the other one, and of this one neither recorded nor forgotten.
    await agent.report(assignment, "EXITED", exit_code=0)
    await agent.report(await agent.assignment(ours.session_id), "READY", viewers=1)
    assert (await plane.get(ours.session_id)).state == State.ACTIVE
    assert assignment.launch_id not in agent.forgotten

    await plane.call("NodeService.DrainNode", node_pb2.DrainNodeRequest(node="node-a", deadline=seconds(1)))
    await plane.place()
    plane.clock.pass_s(5)
    await plane.reap()
    await plane.place()
    assert (await plane.get(ours.session_id)).state in (State.TERMINATING, State.TERMINATED)
    for call in (plane.terminate(theirs.session_id), _forget(plane)):
        with pytest.raises(errors.FailedPrecondition) as refused:
            await call
        assert refused.value.reason in ("SESSION_OF_LATER_RELEASE", "NODE_CONNECTED")
    assert await rows(plane, theirs.session_id) == written

    # The value is one that is known again: the agent's word, which it repeats, ends the session.
    await invent(plane, theirs.session_id, table, column, getattr(before[0 if table == "session" else 1], column))
    await agent.report(assignment, "EXITED", exit_code=0)
    assert (await plane.get(theirs.session_id)).state == State.TERMINATED


async def _forget(plane: Control) -> None:
    await plane.call("NodeService.ForgetNode", node_pb2.ForgetNodeRequest(node="node-a"))


@pytest.mark.parametrize("column", ["state", "condition", "intent"])
async def test_a_waiting_session_of_a_later_release_is_not_placed(plane: Control, column: str) -> None:
    """A device that becomes free goes to the next one that waits, and no queue timeout ends it."""
    theirs, ours = await plane.create(), await plane.create()
    await plane.place()
    await invent(plane, theirs.session_id, "session", column)
    written = await rows(plane, theirs.session_id)

    agent = await plane.agent()
    await plane.place()
    await agent.ready(ours.session_id)
    plane.clock.pass_s(40_000)
    await plane.reap()
    await plane.reap()

    assert await rows(plane, theirs.session_id) == written
    assert (await plane.get(ours.session_id)).node == "node-a"


async def test_an_end_and_a_stage_of_a_later_release_are_shown_with_their_text(plane: Control) -> None:
    """Both are history: the session is shown, and one that lives is handled as any other."""
    agent = await plane.agent("node-a", gpu(slots=2))
    over, alive = await plane.running(agent), await plane.running(agent)
    await plane.terminate(over.session_id)
    await agent.report(await agent.assignment(over.session_id, "STOPPED"), "EXITED", exit_code=0)
    await invent(plane, over.session_id, "session", "end_reason")
    row, _ = await rows(plane, alive.session_id)
    await invent(plane, alive.session_id, "session", "timeline", [*row.timeline, [INVENTED, row.timeline[0][1]]])

    shown = await plane.get(over.session_id)
    assert (shown.state, shown.end_reason) == (State.TERMINATED, 0)
    assert dict(shown.unknown_values) == {"end_reason": INVENTED}
    await plane.terminate(over.session_id)  # again, as of any session that has ended
    shown = await plane.get(alive.session_id)
    assert dict(shown.unknown_values) == {f"timeline[{len(row.timeline)}].stage": INVENTED}
    assert shown.timeline[len(row.timeline)].HasField("time")
    await plane.terminate(alive.session_id)
    await agent.report(await agent.assignment(alive.session_id, "STOPPED"), "EXITED", exit_code=0)
    assert (await plane.get(alive.session_id)).state == State.TERMINATED
    assert INVENTED in [stage for stage, _ in (await rows(plane, alive.session_id))[0].timeline]


async def test_connecting_to_a_session_in_a_state_of_a_later_release_is_no_defect(plane: Control) -> None:
    """It is not known whether it has a picture: the caller watches it."""
    session = await plane.running(await plane.agent())
    await invent(plane, session.session_id, "session", "state")

    answer = await plane.rest("POST", f"/v1/sessions/{session.session_id}:connect", json={})

    assert answer.status_code == 400
    assert problem(answer)["reason"] == "SESSION_NOT_READY"
    assert problem(answer)["metadata"]["state"] == INVENTED


async def test_a_role_of_a_later_release_is_listed_and_refused(plane: Control) -> None:
    """A token with it may do nothing here, and the list of tokens shows it."""
    token = await plane.token("DEVELOPER", "ann")
    await plane.store.write(lambda tx: tx.changed(update(TOKEN).where(TOKEN.c.subject == "ann").values(role=INVENTED)))

    with pytest.raises(errors.PermissionDenied) as refused:
        await plane.call("TokenService.GetCaller", token_pb2.GetCallerRequest(), token)
    listed = await plane.call("TokenService.ListTokens", token_pb2.ListTokensRequest())

    assert refused.value.reason == "ROLE_UNKNOWN"
    assert [item.role for item in listed.items if item.subject == "ann"] == [0]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, id=f"{kind.DESCRIPTOR.name}.{'.'.join(path)}")
        for kind in STORED
        for path, _ in enum_fields(kind.DESCRIPTOR)
    ],
)
async def test_a_number_of_a_later_release_in_a_stored_message_fails_nothing(
    plane: Control, kind: type[Message], path: tuple[str, ...]
) -> None:
    """Devices and recipes with it are shown; sessions of others are placed, explained and ended as always."""
    agent = await plane.agent("node-a", gpu(slots=2))
    session = await plane.running(agent)
    table, column = (DEVICE, "reading") if kind is node_pb2.Device else (VERSION, "recipe")

    def change(tx: Any) -> None:
        [raw] = tx.execute(select(table.c[column])).scalars()
        message = kind.FromString(raw)
        put(message, path, NUMBER)
        tx.execute(update(table).values({column: message.SerializeToString()}))

    await plane.store.write(change)
    await plane.reap()
    for where in ("/v1/nodes", "/v1/nodes/node-a", "/v1/applications/fake/versions", "/v1/sessions"):
        answer = await plane.rest("GET", where)
        assert answer.status_code == 200, answer.text
    asked = session_pb2.ExplainPlacementRequest(application="fake")
    await plane.call("StreamingService.ExplainPlacement", asked)
    with contextlib.suppress(errors.InvalidArgument):  # of a recipe that this release cannot read
        await plane.create()
    await plane.place()
    await plane.terminate(session.session_id)
    await agent.report(await agent.assignment(session.session_id, "STOPPED"), "EXITED", exit_code=0)
    assert (await plane.get(session.session_id)).state == State.TERMINATED


async def test_a_device_at_a_health_of_a_later_release_is_not_placed_on(plane: Control) -> None:
    """What it means is not known, and a session costs more than a free device."""
    await plane.agent("node-a", gpu(health=NUMBER))
    session = await plane.create()
    await plane.place()

    shown = await plane.get(session.session_id)

    assert shown.state == State.PENDING
    assert "99" in " ".join(shown.queue.reasons)


async def test_a_report_in_a_state_of_a_later_release_is_skipped(plane: Control) -> None:
    """In a hello and later: the link holds, and what is known is recorded."""
    agent = await plane.agent()
    session = await plane.running(agent)
    assignment = await agent.assignment(session.session_id)
    odd = agent_pb2.LaunchReport(launch_id=assignment.launch_id, epoch=assignment.epoch, state=NUMBER)  # type: ignore[arg-type]
    await agent.say(report=odd)
    await agent.report(assignment, "READY", viewers=1)
    assert (await plane.get(session.session_id)).state == State.ACTIVE
    await agent.close()
    await plane.unlinked()

    again = await plane.agent(launches=[odd])
    assert [each.desired for each in again.assigned.values()] == [agent_pb2.Assignment.RUNNING]
    await again.report(assignment, "READY", viewers=0)
    assert (await plane.get(session.session_id)).state == State.READY
    assert known(assignment).launch_id == assignment.launch_id
