"""The sender and its `assignments`: one that cannot be made hides none of the others, and its owner is told."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, session_pb2

from footlights.store import Transaction
from footlights.store.schema import SESSION, VERSION
from footlights.store.sessions import session_rows
from tests.control.harness import Agent, Control, State, gpu, known, seconds, version
from tests.store.rows import begin

Argument = application_pb2.Argument


def _damage(plane: Control, statement: Any) -> Any:
    return plane.store.write(lambda tx: tx.changed(statement))


def _damage_secret(plane: Control, session_id: str) -> Any:
    return _damage(plane, SESSION.update().where(SESSION.c.session_id == session_id).values(secrets=b"damaged"))


def _damage_recipe(plane: Control, _session_id: str) -> Any:
    return _damage(plane, VERSION.update().where(VERSION.c.version == "2.0.0").values(recipe=b"\xff\xff"))


async def _with_secret(plane: Control) -> session_pb2.Session:
    """Create a session that has a secret, and waits."""
    secret = version("2.0.0", arguments=[Argument(name="password", type=Argument.STRING, secret=True)])
    await plane.apply(secret, releases={})
    return await plane.create(application_version="2.0.0", application_arguments={"password": "hush"})


def _place(tx: Transaction, session_id: str, slot: int) -> None:
    """Place a session and signal nothing."""
    row = session_rows.get(tx, session_id)
    assert row is not None
    begin(tx, row, slot)


async def _lost(agent: Agent, session_id: str) -> None:
    """Answer the end of a launch that the agent never began, as an agent does."""
    assignment = await agent.assignment(session_id, "STOPPED")
    await agent.report(assignment, "LOST")


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_damage_secret, "A stored secret cannot be decrypted"), (_damage_recipe, "its recipe is damaged")],
)
async def test_what_cannot_be_assigned_ends_and_all_other_nodes_hear_theirs(
    plane: Control, damage: Any, says: str
) -> None:
    """A secret that cannot be opened, a recipe that does not parse: the session fails, its owner sees why."""
    one = await plane.agent("node-a", gpu("GPU-0"))
    running = await plane.running(one)
    two = await plane.agent("node-b", gpu("GPU-9"))
    bad = await _with_secret(plane)
    await damage(plane, bad.session_id)
    await plane.place()
    await plane.terminate(running.session_id)

    stopped = await one.assignment(running.session_id, "STOPPED")
    await _lost(two, bad.session_id)

    assert stopped.desired == agent_pb2.Assignment.STOPPED
    ended = await plane.get(bad.session_id)
    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.LAUNCH_FAILED)
    assert says in ended.status_message
    metrics = (await plane.rest("GET", "/metrics")).text
    assert 'footlights_loop_failures_total{loop="assignments"}' in metrics
    assert 'footlights_loop_failures_total{loop="assignments"} 0.0' not in metrics


async def test_what_fails_for_an_unknown_reason_is_tried_again(plane: Control) -> None:
    """It may be a bug of ours, so nothing is ended for it; all others hear theirs, and it does when it can be made."""
    agent = await plane.agent("node-a", gpu("GPU-0", slots=2))
    bad = await plane.create()
    arguments = SESSION.update().where(SESSION.c.session_id == bad.session_id)
    await _damage(plane, arguments.values(arguments=["no mapping"]))
    await plane.place()
    good = await plane.running(agent)
    state = (await plane.get(good.session_id)).state
    early = {each.session_id for each in agent.assigned.values()}
    await _damage(plane, arguments.values(arguments={}))
    await plane.plane.sender.compare_once()

    assert (state, early) == (State.READY, {good.session_id})
    assert (await agent.assignment(bad.session_id)).desired == agent_pb2.Assignment.RUNNING


async def test_a_link_opens_although_something_cannot_be_assigned(plane: Control) -> None:
    """The full set has everything else, and the end of what cannot be begun."""
    agent = await plane.agent("node-a", gpu("GPU-0", slots=2))
    good = await plane.running(agent)
    assignment = await agent.assignment(good.session_id)
    bad = await _with_secret(plane)
    await _damage_secret(plane, bad.session_id)
    await plane.store.write(lambda tx: _place(tx, bad.session_id, slot=1))
    await agent.close()

    again = await plane.new_agent("node-a", agent.token).open([gpu("GPU-0", slots=2)], launches=[known(assignment)])
    await _lost(again, bad.session_id)

    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING
    assert (await plane.get(good.session_id)).state == State.READY
    assert (await plane.get(bad.session_id)).state == State.FAILED


async def test_an_application_that_runs_needs_its_secret_no_more(plane: Control) -> None:
    """A secret that is damaged later ends nothing, also when the link opens again."""
    agent = await plane.agent()
    made = await _with_secret(plane)
    await plane.place()
    assignment = await agent.ready(made.session_id)
    await _damage_secret(plane, made.session_id)
    await agent.close()

    again = await plane.new_agent("node-a", agent.token).open(launches=[known(assignment)])

    assert assignment.secrets
    assert not again.assigned[assignment.launch_id].secrets
    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING
    assert (await plane.get(made.session_id)).state == State.READY


async def test_secrets_are_sent_once(plane: Control) -> None:
    """
    Another agent with the node's token gets none, nor the arguments of what runs; a session whose secrets are with an
    agent that is gone ends, and its owner reads why.
    """
    agent = await plane.agent("node-a", gpu("GPU-0", slots=2))
    starting = await _with_secret(plane)
    await plane.place()
    begun = await agent.assignment(starting.session_id)
    await agent.report(begun, "STARTING")
    waiting = await plane.create(application_version="2.0.0", application_arguments={"password": "hush"})
    await plane.place()
    assert (await agent.assignment(waiting.session_id)).secrets
    await agent.close()
    await plane.unlinked()

    other = await plane.new_agent("node-a", agent.token).open([gpu("GPU-0", slots=2)])
    await _lost(other, waiting.session_id)
    stopped = await other.assignment(starting.session_id, "STOPPED")

    assert begun.secrets
    assert not any(each.secrets for each in other.assigned.values())
    assert not stopped.HasField("arguments")
    ended = await plane.get(waiting.session_id)
    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.LAUNCH_FAILED)
    assert "its secrets were sent over a link that is gone, and are not sent twice" in ended.status_message


@pytest.mark.parametrize("former", [False, True], ids=["of this release", "of the release before"])
async def test_an_agent_that_has_not_started_a_launch_keeps_its_secrets(plane: Control, former: bool) -> None:
    """Only the release before forgets them with each new assignment, and is sent them again: of what it names."""
    agent = await plane.agent(former=former)
    made = await _with_secret(plane)
    await plane.place()
    assignment = await agent.assignment(made.session_id)
    await agent.close()
    await plane.unlinked()

    again = plane.new_agent("node-a", agent.token)
    await again.open(launches=[known(assignment, "ASSIGNED")], former=former)

    assert assignment.secrets
    assert bool(again.assigned[assignment.launch_id].secrets) == former
    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING


async def test_a_lost_signal_costs_one_comparison(plane: Control) -> None:
    """What was told is compared with the store: no signal is needed to say that something has changed."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await _damage(
        plane,
        SESSION.update()
        .where(SESSION.c.session_id == made.session_id)
        .values(limits=application_pb2.Limits(idle_timeout=seconds(77)).SerializeToString()),
    )

    await plane.plane.sender.compare_once()

    told = await agent.until("assignment")
    assert told.limits.idle_timeout.seconds == 77


@pytest.mark.parametrize("given", [{}, {"password": "hush"}], ids=["without", "with"])
@pytest.mark.parametrize("former", [False, True], ids=["of this release", "of the release before"])
async def test_an_agent_that_cannot_carry_a_version_out_is_not_sent_it(
    plane: Control, former: bool, given: dict[str, str]
) -> None:
    """One of the release before puts no secret into an environment: the session ends, and says what to upgrade."""
    agent = await plane.agent(former=former)
    secret = [Argument(name="password", type=Argument.STRING, secret=True)]
    await plane.apply(version("2.0.0", arguments=secret, environment={"OMNI_PASS": "{password}"}), releases={})

    made = await plane.create(application_version="2.0.0", application_arguments=given)
    await plane.place()

    if not former:
        assert (await agent.assignment(made.session_id)).version.environment == {"OMNI_PASS": "{password}"}
        return
    await _lost(agent, made.session_id)
    ended = await plane.get(made.session_id)
    assert ended.state == State.FAILED
    assert "its node's agent is of an earlier release, and does not know secret_variables" in ended.status_message
