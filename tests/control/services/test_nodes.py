"""Sessions that end because time has passed, and what operators do with nodes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, node_pb2, session_pb2
from sqlalchemy import select, update

from footlights.store import Transaction
from footlights.store.nodes import node_rows
from footlights.store.schema import NODE, REMEMBERED_CALL, SESSION_LABEL
from tests.control.harness import Control, State, gpu, inventory, known, problem, seconds, version

Node = node_pb2.Node
Session = session_pb2.Session
Limits = application_pb2.Limits

# Timers


@pytest.mark.parametrize(
    ("limits", "report", "reason", "says"),
    [
        (Limits(max_duration=seconds(60)), {"ready_for": 60}, "MAX_DURATION", "maximum duration of 60 seconds"),
        (Limits(max_duration=seconds(60)), {"ready_for": 59}, "", ""),
        (
            Limits(never_connected_timeout=seconds(30)),
            {"ready_for": 30, "idle_for": 30},
            "NEVER_CONNECTED",
            "No viewer connected within 30 seconds",
        ),
        (Limits(never_connected_timeout=seconds(30)), {"ready_for": 300}, "", ""),
        (Limits(never_connected_timeout=seconds(30)), {"ready_for": 30, "idle_for": 0, "ever_connected": True}, "", ""),
        (
            Limits(idle_timeout=seconds(120)),
            {"ready_for": 300, "idle_for": 120, "ever_connected": True},
            "IDLE_TIMEOUT",
            "There was no viewer or no input for 2 minutes",
        ),
        (Limits(idle_timeout=seconds(120)), {"ready_for": 300, "idle_for": 119, "ever_connected": True}, "", ""),
        (Limits(idle_timeout=seconds(120)), {"ready_for": 300, "idle_for": 300}, "", ""),
    ],
)
async def test_a_session_ends_when_the_agent_has_measured_that_its_time_is_over(
    plane: Control, limits: Limits, report: dict[str, Any], reason: str, says: str
) -> None:
    """By what a heartbeat says, whatever any wall clock reads; then with its own reason."""
    await plane.apply(version("2.0.0", limits=limits))
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    plane.clock.jump_s(86400)
    spans: dict[str, Any] = {name: seconds(value) if name.endswith("_for") else value for name, value in report.items()}

    await agent.say(heartbeat=agent_pb2.Heartbeat(reports=[known(assignment, **spans)]))
    await agent.settled()

    if not reason:
        assert (await plane.get(made.session_id)).state == State.READY
        return
    assert (await plane.get(made.session_id)).state == State.TERMINATING
    stopping = await agent.assignment(made.session_id, "STOPPED")
    await agent.report(stopping, "EXITED", exit_code=-15)
    ended = await plane.get(made.session_id)
    assert (ended.state, ended.end_reason) == (State.TERMINATED, Session.EndReason.Value(reason))
    assert says in ended.status_message


async def test_an_extension_counts_for_the_next_report(plane: Control) -> None:
    """What would have been over is not, once its owner has asked for more."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent()
    made = await plane.running(agent, max_duration=seconds(60))
    assignment = await agent.assignment(made.session_id)
    request = session_pb2.ExtendSessionRequest(session_id=made.session_id, extend_by=seconds(60))
    await plane.call("StreamingService.ExtendSession", request)
    await agent.until("assignment")

    await agent.report(assignment, "READY", ready_for=seconds(119))
    still = (await plane.get(made.session_id)).state
    await agent.report(assignment, "READY", ready_for=seconds(120))

    assert (still, (await plane.get(made.session_id)).state) == (State.READY, State.TERMINATING)


# Operators


async def test_a_cordoned_node_gets_nothing_new_and_keeps_what_it_has(plane: Control) -> None:
    """Until it is uncordoned; the queue is served at once then."""
    agent = await plane.agent("node-a", gpu("GPU-0"), gpu("GPU-1"))
    running = await plane.running(agent)
    cordoned = await plane.rest("POST", "/nodes/node-a:cordon", json={})
    waiting = await plane.create()

    assert await plane.place() == 0
    assert cordoned.json()["state"] == "CORDONED"
    assert list((await plane.get(waiting.session_id)).queue.reasons) == ["CORDONED: 1 node"]
    assert (await plane.get(running.session_id)).state == State.READY
    assert (await plane.rest("POST", "/nodes/node-a:uncordon", json={})).json()["state"] == "READY"
    assert await plane.place() == 1


async def test_the_viewers_of_a_drained_node_are_told(plane: Control) -> None:
    """The agent is given the reason and how long is left; told once, and taken back when the drain is."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "300s"})
    noticed = await agent.until("assignment")
    plane.clock.pass_s(10)
    plane.plane.signals.assignments.publish("node-a")
    await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "60s"})
    sooner = await agent.until("assignment")
    await plane.rest("POST", "/nodes/node-a:uncordon", json={})
    after = await agent.until("assignment")

    assert not assignment.HasField("notice")
    assert (noticed.notice.reason, noticed.notice.ends_in.seconds) == ("DRAIN", 300)
    assert noticed.notice.message == "The machine is taken out of use; the session ends at 12:05:00 UTC."
    assert (sooner.notice.ends_in.seconds, after.HasField("notice")) == (60, False)
    assert noticed.desired == after.desired == agent_pb2.Assignment.RUNNING


async def test_a_drained_nodes_sessions_end_at_the_deadline(plane: Control) -> None:
    """DRAINING until the last is gone, then DRAINED; the wall clock has no say."""
    agent = await plane.agent()
    made = await plane.running(agent)
    draining = await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "60s"})
    await plane.reap()
    plane.clock.jump_s(86400)
    plane.clock.pass_s(59)
    await agent.say(heartbeat=agent_pb2.Heartbeat())
    await agent.settled()
    await plane.reap()
    assert (await plane.get(made.session_id)).state == State.READY

    plane.clock.pass_s(1)
    await plane.reap()
    stopping = await agent.assignment(made.session_id, "STOPPED")
    during = await plane.state()
    await agent.report(stopping, "EXITED", exit_code=0)

    assert draining.json()["state"] == "DRAINING"
    assert draining.json()["drain_time"] == "2026-03-01T12:01:00Z"
    assert (during, await plane.state()) == ("DRAINING", "DRAINED")
    ended = await plane.get(made.session_id)
    assert (ended.end_reason, ended.status_message) == (Session.DRAINED, "Node node-a was drained.")
    assert await plane.place() == 0


@pytest.mark.parametrize(("body", "ends"), [({"deadline": "0s"}, True), ({}, False)])
async def test_a_drain_ends_sessions_at_once_or_waits_for_them(
    plane: Control, body: dict[str, str], ends: bool
) -> None:
    """0 seconds is now; no deadline is their own end."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await plane.rest("POST", "/nodes/node-a:drain", json=body)

    await plane.reap()

    assert ((await plane.get(made.session_id)).state == State.TERMINATING) == ends
    assert (await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "-1s"})).status_code == 400


async def test_a_watcher_is_told_when_a_drain_ends_the_session(plane: Control) -> None:
    """A new revision says it; a drain without a deadline, or called off, says nothing."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    said = []
    for path, body in (
        ("drain", {"deadline": "600s"}),
        ("drain", {}),
        ("drain", {"deadline": "90s"}),
        ("uncordon", {}),
    ):
        before = (await plane.get(made.session_id)).revision
        await plane.rest("POST", f"/nodes/node-a:{path}", json=body)
        told = await plane.get(made.session_id)
        said.append((told.status_message, told.revision > before))
        await agent.report(assignment, "READY", viewers=len(said), ever_connected=True)
        assert (await plane.get(made.session_id)).status_message == told.status_message

    text = "The node is being drained; the session ends at {} UTC."
    assert said == [(text.format("12:10:00"), True), ("", True), (text.format("12:01:30"), True), ("", True)]


async def test_a_drain_that_is_called_off_ends_no_session(plane: Control) -> None:
    """Uncordoning takes the deadline back."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await plane.rest("POST", "/nodes/node-a:drain", json={"deadline": "10s"})
    await plane.reap()
    await plane.rest("POST", "/nodes/node-a:uncordon", json={})

    plane.clock.pass_s(12)
    await plane.reap()

    assert (await plane.get(made.session_id)).state == State.READY


async def test_only_a_node_that_is_gone_can_be_forgotten(plane: Control) -> None:
    """Then its sessions are lost, by an operator's word."""
    agent = await plane.agent()
    made = await plane.running(agent)
    refused = await plane.rest("DELETE", "/nodes/node-a")
    await agent.close()
    await plane.unlinked()

    forgotten = await plane.rest("DELETE", "/nodes/node-a")

    assert (refused.status_code, refused.json()["message"]) == (
        400,
        "Node node-a is connected. Drain it and stop its agent first.",
    )
    assert forgotten.json() == {"ended_session_count": 1}
    assert (await plane.get(made.session_id)).end_reason == Session.NODE_LOST
    assert (await plane.rest("GET", "/nodes")).json()["items"] == []


async def test_an_inventory_that_changes_serves_the_queue(plane: Control) -> None:
    """A device that appears, or recovers, is used."""
    agent = await plane.agent("node-a", gpu(health=node_pb2.Device.LOST))
    await plane.create()
    assert await plane.place() == 0

    await agent.say(inventory=inventory(gpu(), gpu("GPU-1")))
    await agent.settled()

    assert await plane.place() == 1
    assert len((await plane.rest("GET", "/nodes/node-a")).json()["devices"]) == 2


async def test_what_only_old_sessions_had_is_removed_after_them(plane: Control) -> None:
    """A label that is new with every session would fill the disk, and so would answers; what is still in use stays."""
    old = await plane.create(labels={"ticket": "old"})
    await plane.rest(
        "POST", "/v1/tokens", json={"role": "DEVELOPER", "subject": "x"}, headers={"Idempotency-Key": "old"}
    )
    assert await plane.store.read(lambda tx: list(tx.execute(select(REMEMBERED_CALL))))
    await plane.terminate(old.session_id)
    plane.clock.pass_s(31 * 86400)
    await plane.create(labels={"ticket": "new"})

    await plane.reap()

    def tickets(tx: Transaction) -> list[str]:
        return list(tx.execute(select(SESSION_LABEL.c.text).where(SESSION_LABEL.c.key == "ticket")).scalars())

    assert await plane.store.read(tickets) == ["new"]
    assert await plane.store.read(lambda tx: list(tx.execute(select(REMEMBERED_CALL)))) == []


# What is wanted of a node, apart from what is observed of it


async def _node(plane: Control) -> node_pb2.Node:
    node: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    return node


async def test_a_node_shows_who_cordoned_it_since_when_and_why(plane: Control) -> None:
    """The reason stays when it is drained without another one; who is who acted last, since when is the first time."""
    await plane.agent()
    other = await plane.token("OPERATOR", "bo")
    begun = plane.clock()

    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a", message="new memory"))
    cordoned = await _node(plane)
    plane.clock.pass_s(60)
    request = node_pb2.DrainNodeRequest(node="node-a", drain_timeout=seconds(30))
    drained = await plane.call("NodeService.DrainNode", request, other)
    uncordoned = await plane.call("NodeService.UncordonNode", node_pb2.UncordonNodeRequest(node="node-a"))

    wanted = cordoned.scheduling
    assert (wanted.cordoned, wanted.draining, wanted.reason) == (True, False, "OPERATOR")
    assert (wanted.message, wanted.subject, wanted.since_time.ToDatetime(UTC)) == ("new memory", "admin", begun)
    wanted = drained.scheduling
    assert (wanted.cordoned, wanted.draining, wanted.message, wanted.subject) == (True, True, "new memory", "bo")
    assert wanted.since_time.ToDatetime(UTC) == begun
    assert wanted.drain_time == drained.drain_time
    assert wanted.drain_time.ToDatetime(UTC) == plane.clock() + timedelta(seconds=30)
    assert uncordoned.scheduling == node_pb2.Node.Scheduling()
    assert uncordoned.HasField("scheduling")


async def test_a_cordoned_node_that_falls_silent_still_shows_its_cordon(plane: Control) -> None:
    """``condition`` is what is observed, ``scheduling`` what is wanted; ``state`` goes on to say the worse of both."""
    await plane.agent()
    before = await _node(plane)
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a", message="broken fan"))
    connected = await _node(plane)
    epoch = connected.epoch
    await plane.store.write(lambda tx: node_rows.set_silent(tx, "node-a", epoch, now=plane.clock()))
    silent = await _node(plane)

    assert (before.condition, before.state, before.scheduling.cordoned) == (Node.CONNECTED, Node.READY, False)
    assert (connected.condition, connected.state) == (Node.CONNECTED, Node.CORDONED)
    assert (silent.condition, silent.state) == (Node.DISCONNECTED, Node.UNREACHABLE)
    assert silent.scheduling == connected.scheduling
    assert silent.etag == connected.etag != before.etag


async def test_a_node_that_needs_a_reboot_shows_that_as_the_reason(plane: Control) -> None:
    """Unless an operator has cordoned it for another one; neither changes the other."""
    sick = gpu(health=node_pb2.Device.UNHEALTHY)
    sick.health_reasons.add(reason="NODE_REBOOT_NEEDED", message="the driver asks for it")
    await plane.agent("node-a", sick)

    needs = await _node(plane)
    unsaid = await plane.rest("PATCH", "/v1/nodes/node-a", json={"scheduling": {"message": "mine"}})
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a", message="mine"))
    mine = await _node(plane)
    await plane.call("NodeService.UncordonNode", node_pb2.UncordonNodeRequest(node="node-a"))
    again = await _node(plane)

    assert (needs.state, needs.scheduling.cordoned, needs.scheduling.reason) == (
        Node.CORDONED,
        True,
        "NODE_REBOOT_NEEDED",
    )
    assert "the driver asks for it" in needs.scheduling.message
    assert "this one is for NODE_REBOOT_NEEDED only. Set cordoned as well." in unsaid.text
    assert (mine.scheduling.reason, mine.scheduling.message) == ("OPERATOR", "mine")
    assert again.scheduling == needs.scheduling


async def test_a_node_is_cordoned_by_an_update_too(plane: Control) -> None:
    """Its two members can be changed, and no other; no reason without a cordon."""
    await plane.agent()

    cordoned = await plane.rest("PATCH", "/v1/nodes/node-a", json={"scheduling": {"cordoned": True, "message": "why"}})
    renamed = await plane.rest("PATCH", "/v1/nodes/node-a", json={"scheduling": {"message": "because"}})
    drained = await plane.rest("POST", "/v1/nodes/node-a:drain", json={})
    still = await plane.rest("PATCH", "/v1/nodes/node-a", json={"scheduling": {"cordoned": True}})
    freed = await plane.rest("PATCH", "/v1/nodes/node-a", json={"scheduling": {"cordoned": False}})

    assert (cordoned.status_code, cordoned.json()["state"]) == (200, "CORDONED")
    assert renamed.json()["scheduling"]["message"] == "because"
    assert drained.json()["scheduling"]["message"] == "because"
    assert (still.json()["state"], still.json()["scheduling"]["draining"]) == ("DRAINED", True)
    assert freed.json()["state"] == "READY"
    for body, mask, field in (
        ({"scheduling": {"draining": True}}, "scheduling.draining", "update_mask"),
        ({"scheduling": {}}, "", "update_mask"),
        ({"facts": {"hostname": "x"}}, "facts", "update_mask"),
        ({"scheduling": {"message": "not cordoned"}}, "", "node.scheduling.message"),
    ):
        query = {"update_mask": mask} if mask else {}
        refused = await plane.rest("PATCH", "/v1/nodes/node-a", json=body, params=query)
        assert (refused.status_code, problem(refused)["field"]) == (400, field), body


async def test_what_changes_nothing_leaves_the_operator_and_the_etag(plane: Control) -> None:
    """Whichever call repeats what is wanted already, and every caller of it."""
    await plane.agent()
    other = await plane.token("OPERATOR", "bo")
    await plane.call("NodeService.DrainNode", node_pb2.DrainNodeRequest(node="node-a", message="new memory"))
    before = await _node(plane)

    wanted = Node.Scheduling(cordoned=True, message="new memory")
    same = node_pb2.UpdateNodeRequest(node=Node(node="node-a", scheduling=wanted))
    await plane.call("NodeService.UpdateNode", same, other)
    await plane.call("NodeService.DrainNode", node_pb2.DrainNodeRequest(node="node-a"), other)
    after = await _node(plane)
    wanted.message = "newer memory"
    changed = await plane.call(
        "NodeService.UpdateNode", node_pb2.UpdateNodeRequest(node=Node(node="node-a", scheduling=wanted)), other
    )

    assert before.scheduling.subject == "admin"
    assert (after.scheduling, after.etag) == (before.scheduling, before.etag)
    assert (changed.scheduling.subject, changed.scheduling.message) == ("bo", "newer memory")


async def test_a_drain_takes_one_timeout(plane: Control) -> None:
    """``drain_timeout``, or ``deadline`` as before; not both."""
    await plane.agent()

    for name in ("drain_timeout", "deadline"):
        drained = await plane.rest("POST", "/v1/nodes/node-a:drain", json={name: "60s", "message": "moving"})
        assert drained.json()["drain_time"] == "2026-03-01T12:01:00Z"
        assert drained.json()["scheduling"]["message"] == "moving"
    both = await plane.rest("POST", "/v1/nodes/node-a:drain", json={"drain_timeout": "60s", "deadline": "60s"})
    negative = await plane.rest("POST", "/v1/nodes/node-a:drain", json={"drain_timeout": "-1s"})

    assert (both.status_code, problem(both)["field"]) == (400, "drain_timeout")
    assert (negative.status_code, problem(negative)["field"]) == (400, "drain_timeout")


async def test_what_an_older_server_cordons_has_no_reason_and_what_it_uncordons_is_free(plane: Control) -> None:
    """It writes what it knows of, and leaves the rest as it was."""
    await plane.agent()

    def older(cordoned: bool) -> Callable[[Transaction], Any]:
        return lambda tx: tx.changed(update(NODE).values(cordoned=cordoned))

    await plane.store.write(older(True))
    cordoned = await _node(plane)
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a", message="new memory"))
    await plane.store.write(older(False))
    freed = await _node(plane)
    await plane.store.write(older(True))
    again = await _node(plane)

    assert again.scheduling == cordoned.scheduling == Node.Scheduling(cordoned=True, reason="OPERATOR")
    assert freed.scheduling == Node.Scheduling()
    assert freed.state == Node.READY
