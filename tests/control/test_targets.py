"""Where a session's signalling is, as the front door asks for it."""

from __future__ import annotations

from pathlib import Path

from footlights.agent.v1.node_pb2 import NodeFacts
from footlights.v1 import session_pb2

from footlights.control.dispatch.node_addresses import NodeAddresses
from footlights.control.targets import resolver
from footlights.ids import new_id
from tests.control.harness import NODE_NETWORKS, Control, control, gpu, known, version


async def test_a_sessions_target_is_its_nodes_address_and_port(plane: Control) -> None:
    """While it runs; a session that was never created has none."""
    agent = await plane.agent()
    session = await plane.running(agent)
    resolve = resolver(plane.store, plane.key.box(), NodeAddresses(NODE_NETWORKS))

    target = await resolve(session.session_id)

    assert target is not None
    assert (target.state, target.signal_port > 0, bool(target.address)) == ("READY", True, True)
    assert await resolve(new_id()) is None
    assert await resolve("not an id") is None


async def test_a_launch_has_a_secret_that_its_agent_and_the_front_door_know(plane: Control) -> None:
    """Each launch its own, made with it whether it was placed at once or later; no answer of the API shows it."""
    waiting = await plane.create()
    agent = await plane.agent("node-a", gpu("GPU-0"), gpu("GPU-1"))
    for _ in range(2):  # the second one no longer takes it for one that waits
        await plane.place()
    await plane.plane.placing._work.claim()
    at_once = await plane.create()
    assert at_once.state == session_pb2.Session.STARTING
    resolve, secrets = resolver(plane.store, plane.key.box(), NodeAddresses(NODE_NETWORKS)), set()
    for session in (waiting, at_once):
        assignment = await agent.ready(session.session_id)
        target = await resolve(session.session_id)
        assert target is not None
        assert assignment.launch_secret.startswith("fls_")
        assert target.secret == assignment.launch_secret
        assert target.secret not in str(await plane.get(session.session_id))
        secrets.add(target.secret)
    assert len(secrets) == 2


async def test_a_running_launchs_secret_is_not_sent_again(plane: Control) -> None:
    """Whoever links with the node's token learns nothing of what runs: the agent that started it has kept it."""
    agent = await plane.agent()
    session = await plane.running(agent)
    begun = await agent.assignment(session.session_id)
    await agent.close()
    again = await plane.agent(launches=[known(begun)])

    assert (await again.assignment(session.session_id)).launch_secret == ""


async def test_viewers_that_dial_nodes_themselves_need_no_secret(tmp_path: Path, migrated: Path) -> None:
    """With direct routes no front door is in between that could present one."""
    async with control(tmp_path, migrated, direct_routes=True) as plane:
        await plane.apply(version())
        agent = await plane.agent()
        session = await plane.running(agent)
        target = await resolver(plane.store, plane.key.box(), NodeAddresses(NODE_NETWORKS))(session.session_id)

        assert (await agent.assignment(session.session_id)).launch_secret == ""
        assert target is not None
        assert target.secret == ""


async def test_what_an_agent_says_of_its_port_is_checked_for_each_viewer(plane: Control) -> None:
    """A port that is not in its node's range is not dialled; the viewer is told that, and not where it was."""
    agent = await plane.agent(facts={"ports": NodeFacts.PortRange(first=20000, last=20999)})
    session = await plane.running(agent, application="fake")
    resolve = resolver(plane.store, plane.key.box(), NodeAddresses(NODE_NETWORKS))
    before = await resolve(session.session_id)
    assignment = await agent.assignment(session.session_id)
    await agent.report(assignment, "READY", signal_port=22, media_port=20001, http_port=20002)
    after = await resolve(session.session_id)

    assert before is not None
    assert after is not None
    assert (before.dialled, before.problem) == (("10.0.0.7",), "")
    assert (after.dialled, after.problem) == ((), "its port is not one of the node's")
