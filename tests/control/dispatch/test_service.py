"""Agents' links: opened, fenced, silent, replaced."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import session_pb2

from footlights import errors
from footlights.store.schema import SESSION
from footlights.store.sessions import session_rows
from tests.control.harness import Control, Report, State, gpu, known, seconds

Session = session_pb2.Session


async def condition(plane: Control, session_id: str) -> str:
    return Session.Condition.Name((await plane.get(session_id)).condition)


# Opening


async def test_a_link_opens_with_a_welcome_and_the_full_set(plane: Control) -> None:
    """Epoch, heartbeat, cluster, abandon time; then what is to run there, and nothing else."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await agent.close()

    assignment = await agent.assignment(made.session_id)
    again = await plane.new_agent("node-a", agent.token).open(launches=[known(assignment)])

    assert (agent.welcome.epoch, again.welcome.epoch) == (1, 2)
    assert again.welcome.heartbeat_interval == seconds(5)
    assert again.welcome.abandon_after == seconds(1800)
    assert again.welcome.cluster_id == agent.welcome.cluster_id
    assert [each.session_id for each in again.assigned.values()] == [made.session_id]
    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING


@pytest.mark.parametrize(
    ("hello", "reason", "says"),
    [
        ({"node": "node-b"}, "WRONG_NODE", "of 'node-a', not of node 'node-b'. Give it one"),
        ({"node": "No Node"}, "INVALID_ID", "hello.node: invalid node name 'No Node'"),
        ({"incarnation": ""}, "INVALID_ARGUMENT", "hello.incarnation: is missing"),
        ({"protocol_version": 2}, "PROTOCOL_VERSION", "speaks versions 2 to 2 of the link"),
    ],
)
async def test_a_wrong_hello_is_refused(plane: Control, hello: dict[str, Any], reason: str, says: str) -> None:
    """A token speaks for its own node only, and nothing is recorded of who may not."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))

    with pytest.raises(errors.Error) as caught:
        await agent.open(hello=hello)

    assert caught.value.reason == reason
    assert says in caught.value.message
    assert (await plane.rest("GET", "/nodes")).json()["items"] == []


async def test_a_link_must_begin_with_a_hello(plane: Control) -> None:
    """Anything else is not an agent."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    agent.begin()
    await agent.say(heartbeat=agent_pb2.Heartbeat())

    assert (await agent.ended()).reason == "HELLO_MISSING"


async def test_an_operator_cannot_speak_for_a_node(plane: Control) -> None:
    """A link belongs to a node's own token."""
    with pytest.raises(errors.PermissionDenied) as caught:
        await plane.new_agent("node-a", plane.admin).open()

    assert caught.value.reason == "ROLE_LACKS_PERMISSION"


async def test_a_newer_link_replaces_one_that_is_silent_and_both_are_told(plane: Control) -> None:
    """An agent that was restarted behind a cut: the older link hears why, and what it says is void."""
    older = await plane.agent()
    made = await plane.running(older)
    assignment = await older.assignment(made.session_id)
    plane.clock.pass_s(8)
    newer = await plane.new_agent("node-a", older.token).open(
        launches=[known(assignment)], hello={"incarnation": "two"}
    )

    told = await older.ended()

    assert (told.reason, told.metadata["incarnation"]) == ("LINK_REPLACED", "two")
    assert "rename one of them" in told.message
    assert newer.welcome.epoch == 2
    assert await plane.state() == "READY"
    assert await condition(plane, made.session_id) == "OK"
    await newer.settled()


# Agreement after an interruption


async def test_what_an_agent_does_not_know_is_not_begun_a_second_time(plane: Control) -> None:
    """It was begun over an earlier link: the agent is asked to end it, and says that it is lost."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await agent.close()
    again = await plane.new_agent("node-a", agent.token).open()
    [assignment] = again.assigned.values()

    await again.report(assignment, "LOST")

    assert assignment.desired == agent_pb2.Assignment.STOPPED
    ended = await plane.get(made.session_id)
    assert (ended.state, ended.end_reason) == (State.FAILED, Session.NODE_LOST)


async def test_what_was_assigned_while_the_agent_was_away_is_begun(plane: Control) -> None:
    """It has not begun yet."""
    agent = await plane.agent()
    made = await plane.create()
    await plane.place()
    await agent.close()

    again = await plane.new_agent("node-a", agent.token).open()

    assert [(each.session_id, each.desired) for each in again.assigned.values()] == [
        (made.session_id, agent_pb2.Assignment.RUNNING)
    ]


async def test_an_end_that_was_reported_late_is_recorded_and_forgotten(plane: Control) -> None:
    """The hello brings it; the agent may forget it, also one that was never ours."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await agent.close()
    late = [known(assignment, "EXITED", exit_code=7), Report(launch_id="strange", epoch=1, state=Report.EXITED)]

    again = await plane.new_agent("node-a", agent.token).open(launches=late)

    assert again.assigned == {}
    assert {(await again.until("forget")).launch_id for _ in late} == {assignment.launch_id, "strange"}
    ended = await plane.get(made.session_id)
    assert (ended.state, ended.exit_code) == (State.FAILED, 7)


async def test_a_nul_in_an_applications_words_is_shown_as_what_it_is(plane: Control) -> None:
    """Postgres takes none in a text, and a report that cannot be recorded would end the link again and again."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)

    await agent.report(assignment, "FAILED", reason="STAGE_BROKEN", message="bad\0stage")

    ended = await plane.get(made.session_id)
    assert ended.state == State.FAILED
    assert "bad\ufffdstage" in ended.status_message


async def test_another_nodes_agent_cannot_speak_of_a_launch(plane: Control) -> None:
    """Its report is forgotten and changes nothing."""
    agent = await plane.agent()
    made = await plane.running(agent)
    other = await plane.agent("node-b", gpu("GPU-9"))

    await other.report(await agent.assignment(made.session_id), "EXITED", exit_code=0)

    assert (await plane.get(made.session_id)).state == State.READY


@pytest.mark.parametrize("state", [0, 99])
async def test_a_state_that_only_a_newer_agent_knows_is_passed_over(plane: Control, state: int) -> None:
    """The link goes on, and what is known is recorded."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    odd = Report(launch_id=assignment.launch_id, epoch=assignment.epoch, state=state)  # type: ignore[arg-type]

    await agent.say(heartbeat=agent_pb2.Heartbeat(reports=[odd, known(assignment, viewers=1)]))
    await agent.settled()

    assert (await plane.get(made.session_id)).state == State.ACTIVE


async def test_a_report_that_cannot_be_recorded_hides_no_other(plane: Control) -> None:
    """The link goes on, what else was reported with it is recorded, and the report is taken when it can be."""
    agent = await plane.agent("node-a", gpu("GPU-0", slots=2))
    one, two = await plane.running(agent), await plane.running(agent)
    first, second = [await agent.assignment(each.session_id) for each in (one, two)]
    session = await plane.store.read(lambda tx: session_rows.get(tx, one.session_id))
    assert session is not None
    row = SESSION.update().where(SESSION.c.session_id == one.session_id)
    # Of what a report changes, the timeline is what no assignment is made from: a damaged one would end the session.
    await plane.store.write(lambda tx: tx.changed(row.values(timeline=["damaged"])))

    await agent.say(heartbeat=agent_pb2.Heartbeat(reports=[known(first, viewers=1), known(second, viewers=1)]))
    await agent.settled()
    await plane.store.write(lambda tx: tx.changed(row.values(timeline=session.timeline)))
    states = [(await plane.get(each.session_id)).state for each in (one, two)]
    await agent.say(heartbeat=agent_pb2.Heartbeat(reports=[known(first, viewers=1)]))
    await agent.settled()

    assert states == [State.READY, State.ACTIVE]
    assert (await plane.get(one.session_id)).state == State.ACTIVE


# Silence


async def test_three_missed_heartbeats_make_a_node_unreachable_and_it_comes_back(plane: Control) -> None:
    """Its sessions show it, run on, and are started nowhere else; the next link makes all well."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await agent.close()
    await plane.unlinked()

    plane.clock.pass_s(15)
    await plane.reap()
    early = (await plane.state(), await condition(plane, made.session_id))
    plane.clock.pass_s(1)
    await plane.reap()
    silent = (await plane.state(), await condition(plane, made.session_id))
    other = await plane.agent("node-b", gpu("GPU-9"))
    assert await plane.place() == 0
    await plane.new_agent("node-a", agent.token).open(launches=[known(assignment)])

    assert early == ("READY", "OK")
    assert silent == ("UNREACHABLE", "UNREACHABLE")
    assert other.assigned == {}
    assert (await plane.state(), await condition(plane, made.session_id)) == ("READY", "OK")
    after = await plane.get(made.session_id)
    assert (after.state, after.launch_count) == (State.READY, 1)


async def test_an_open_link_that_says_nothing_is_ended(plane: Control) -> None:
    """A half-open connection is not presence; heartbeats are."""
    agent = await plane.agent()
    for _ in range(4):
        plane.clock.pass_s(10)
        await agent.say(heartbeat=agent_pb2.Heartbeat())
        await agent.settled()
        await plane.reap()
    assert await plane.state() == "READY"

    plane.clock.pass_s(16)
    await plane.reap()

    assert (await agent.ended()).reason == "LINK_SILENT"
    assert await plane.state() == "UNREACHABLE"


async def test_a_wall_clock_that_jumps_makes_no_node_silent(plane: Control) -> None:
    """Only spans are compared."""
    await plane.agent()

    plane.clock.jump_s(30 * 86400)
    await plane.reap()

    assert await plane.state() == "READY"


async def test_nothing_is_placed_on_a_node_without_a_link(plane: Control) -> None:
    """From the moment at which it ended, not only after three heartbeats."""
    agent = await plane.agent()
    await agent.close()
    await plane.unlinked()
    made = await plane.create()

    assert await plane.place() == 0

    assert list((await plane.get(made.session_id)).queue.reasons) == ["UNREACHABLE: 1 node"]
