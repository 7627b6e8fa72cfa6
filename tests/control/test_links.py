"""Agents' links: opened, fenced, silent, replaced, drained; timers and logs over them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from footlights.v1 import agent_pb2, application_pb2, node_pb2, session_pb2

from footlights import errors
from tests.control.harness import Agent, Control, Report, State, gpu, seconds, version

Session = session_pb2.Session
Limits = application_pb2.Limits


async def condition(plane: Control, session_id: str) -> str:
    return Session.Condition.Name((await plane.get(session_id)).condition)


async def node_state(plane: Control, node: str = "node-a") -> str:
    return str((await plane.rest("GET", f"/nodes/{node}")).json()["state"])


# Opening


async def test_a_link_opens_with_a_welcome_and_the_full_set(plane: Control) -> None:
    """Epoch, heartbeat, cluster, abandon time; then what is to run there, and nothing else."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await agent.close()

    assignment = await agent.assignment(made.session_id)
    again = await plane.new_agent("node-a", agent.token).open(launches=[_known(assignment)])

    assert (agent.welcome.epoch, again.welcome.epoch) == (1, 2)
    assert again.welcome.heartbeat_interval == seconds(5)
    assert again.welcome.abandon_after == seconds(1800)
    assert again.welcome.cluster_id == agent.welcome.cluster_id
    assert [each.session_id for each in again.assigned.values()] == [made.session_id]
    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING


def _known(assignment: agent_pb2.Assignment, state: str = "READY", **members: Any) -> Report:
    return Report(launch_id=assignment.launch_id, epoch=assignment.epoch, state=Report.State.Value(state), **members)


@pytest.mark.parametrize(
    ("hello", "reason", "says"),
    [
        ({"node": "node-b"}, "WRONG_NODE", "for 'node-a', not for node 'node-b'. Create one with"),
        ({"node": "No Node"}, "INVALID_ARGUMENT", "hello.node: 'No Node' is not a node name"),
        ({"incarnation": ""}, "INVALID_ARGUMENT", "hello.incarnation: is missing"),
        ({"protocol_version": 2}, "PROTOCOL_VERSION", "speaks version 2 of the link"),
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


async def test_a_newer_link_replaces_the_older_one_and_both_are_told(plane: Control) -> None:
    """Two machines with one name: the older hears why, and what it says is void."""
    older = await plane.agent()
    made = await plane.running(older)
    assignment = await older.assignment(made.session_id)
    newer = await plane.new_agent("node-a", older.token).open(
        launches=[_known(assignment)], hello={"incarnation": "two"}
    )

    told = await older.ended()

    assert (told.reason, told.metadata["incarnation"]) == ("LINK_REPLACED", "two")
    assert "rename one of them" in told.message
    assert newer.welcome.epoch == 2
    assert await node_state(plane) == "READY"
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
    """Nobody has begun it yet."""
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
    late = [_known(assignment, "EXITED", exit_code=7), Report(launch_id="strange", epoch=1, state=Report.EXITED)]

    again = await plane.new_agent("node-a", agent.token).open(launches=late)

    assert again.assigned == {}
    assert {(await again.until("forget")).launch_id for _ in late} == {assignment.launch_id, "strange"}
    ended = await plane.get(made.session_id)
    assert (ended.state, ended.exit_code) == (State.FAILED, 7)


async def test_another_nodes_agent_cannot_speak_of_a_launch(plane: Control) -> None:
    """Its report is forgotten and changes nothing."""
    agent = await plane.agent()
    made = await plane.running(agent)
    stranger = await plane.agent("node-b", gpu("GPU-9"))

    await stranger.report(await agent.assignment(made.session_id), "EXITED", exit_code=0)

    assert (await plane.get(made.session_id)).state == State.READY


@pytest.mark.parametrize("state", [0, 99])
async def test_a_state_that_only_a_newer_agent_knows_is_passed_over(plane: Control, state: int) -> None:
    """The link goes on, and what is known is recorded."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    odd = Report(launch_id=assignment.launch_id, epoch=assignment.epoch, state=state)  # type: ignore[arg-type]

    await agent.say(heartbeat=agent_pb2.Heartbeat(reports=[odd, _known(assignment, viewers=1)]))
    await agent.settled()

    assert (await plane.get(made.session_id)).state == State.ACTIVE


# Silence


async def test_three_missed_heartbeats_make_a_node_unreachable_and_it_comes_back(plane: Control) -> None:
    """Its sessions show it, run on, and are started nowhere else; the next link makes all well."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await agent.close()
    await _unlinked(plane)

    plane.clock.pass_s(15)
    await plane.reap()
    early = (await node_state(plane), await condition(plane, made.session_id))
    plane.clock.pass_s(1)
    await plane.reap()
    silent = (await node_state(plane), await condition(plane, made.session_id))
    other = await plane.agent("node-b", gpu("GPU-9"))
    assert await plane.place() == 0
    await plane.new_agent("node-a", agent.token).open(launches=[_known(assignment)])

    assert early == ("READY", "OK")
    assert silent == ("UNREACHABLE", "UNREACHABLE")
    assert other.assigned == {}
    assert (await node_state(plane), await condition(plane, made.session_id)) == ("READY", "OK")
    after = await plane.get(made.session_id)
    assert (after.state, after.launch_count) == (State.READY, 1)


async def _unlinked(plane: Control, node: str = "node-a") -> None:
    """Wait until the end of a node's link is recorded."""
    from footlights.store import nodes

    async with asyncio.timeout(10):
        while True:
            row = await plane.store.read(lambda tx: nodes.get(tx, node))
            if row is not None and not row.connected:
                return
            await asyncio.sleep(0)


async def test_an_open_link_that_says_nothing_is_ended(plane: Control) -> None:
    """A half-open connection is not presence; heartbeats are."""
    agent = await plane.agent()
    for _ in range(4):
        plane.clock.pass_s(10)
        await agent.say(heartbeat=agent_pb2.Heartbeat())
        await agent.settled()
        await plane.reap()
    assert await node_state(plane) == "READY"

    plane.clock.pass_s(16)
    await plane.reap()

    assert (await agent.ended()).reason == "LINK_SILENT"
    assert await node_state(plane) == "UNREACHABLE"


async def test_a_wall_clock_that_jumps_makes_nobody_silent(plane: Control) -> None:
    """Only spans are compared."""
    await plane.agent()

    plane.clock.jump_s(30 * 86400)
    await plane.reap()

    assert await node_state(plane) == "READY"


async def test_nothing_is_placed_on_a_node_without_a_link(plane: Control) -> None:
    """From the moment at which it ended, not only after three heartbeats."""
    agent = await plane.agent()
    await agent.close()
    await _unlinked(plane)
    made = await plane.create()

    assert await plane.place() == 0

    assert list((await plane.get(made.session_id)).queue.reasons) == ["UNREACHABLE: 1 node"]


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
            "Nobody connected within 30 seconds",
        ),
        (Limits(never_connected_timeout=seconds(30)), {"ready_for": 300}, "", ""),
        (Limits(never_connected_timeout=seconds(30)), {"ready_for": 30, "idle_for": 0, "ever_connected": True}, "", ""),
        (
            Limits(idle_timeout=seconds(120)),
            {"ready_for": 300, "idle_for": 120, "ever_connected": True},
            "IDLE_TIMEOUT",
            "Nobody was there for 2 minutes",
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

    await agent.say(heartbeat=agent_pb2.Heartbeat(reports=[_known(assignment, **spans)]))
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
    during = await node_state(plane)
    await agent.report(stopping, "EXITED", exit_code=0)

    assert draining.json()["state"] == "DRAINING"
    assert draining.json()["drain_time"] == "2026-03-01T12:01:00Z"
    assert (during, await node_state(plane)) == ("DRAINING", "DRAINED")
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


async def test_a_drain_that_is_called_off_ends_nobody(plane: Control) -> None:
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
    await _unlinked(plane)

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

    await agent.say(inventory=agent_pb2.Inventory(devices=[gpu(), gpu("GPU-1")]))
    await agent.settled()

    assert await plane.place() == 1
    assert len((await plane.rest("GET", "/nodes/node-a")).json()["devices"]) == 2


# Logs


async def _serve(agent: Agent, *parts: dict[str, Any]) -> agent_pb2.LogRequest:
    request: agent_pb2.LogRequest = await agent.until("log_request")
    for part in parts:
        await agent.say(log_part=agent_pb2.LogPart(request_id=request.request_id, **part))
    return request


async def test_a_log_is_fetched_from_the_agent(plane: Control) -> None:
    """As many lines as were asked for, in parts."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)

    asking = asyncio.create_task(plane.rest("GET", f"/stream/{made.session_id}/log", params={"tail_lines": 7}))
    request = await _serve(agent, {"lines": ["a"], "truncated": True}, {"lines": ["b"], "last": True})

    assert (request.launch_id, request.tail_lines, request.follow) == (assignment.launch_id, 7, False)
    assert (await asking).json() == {"lines": ["a", "b"], "truncated": True}


async def test_a_log_that_the_agent_has_not_is_404(plane: Control) -> None:
    """With the agent's own words."""
    agent = await plane.agent()
    made = await plane.running(agent)

    asking = asyncio.create_task(plane.rest("GET", f"/stream/{made.session_id}/log"))
    await _serve(agent, {"error": "it was rotated away", "last": True})

    answer = await asking
    assert answer.status_code == 404
    assert "it was rotated away" in answer.text


def tail(plane: Control, session_id: str) -> Any:
    return plane.stream("StreamingService.TailSessionLog", session_pb2.TailSessionLogRequest(session_id=session_id))


async def test_a_log_is_followed_until_its_last_part(plane: Control) -> None:
    """Parts as they come; who leaves tells the agent to stop."""
    agent = await plane.agent()
    made = await plane.running(agent)
    async with aclosing(tail(plane, made.session_id)) as stream, asyncio.timeout(10):
        first = asyncio.create_task(anext(stream))
        request = await _serve(agent, {"lines": ["a"]})
        assert list((await first).lines) == ["a"]
        await agent.say(log_part=agent_pb2.LogPart(request_id=request.request_id, lines=["b"]))
        assert list((await anext(stream)).lines) == ["b"]
    cancel = await agent.until("log_request")

    assert (request.follow, request.tail_lines) == (True, 50)
    assert (cancel.request_id, cancel.cancel) == (request.request_id, True)


async def test_a_follower_is_told_when_the_link_ends(plane: Control) -> None:
    """It does not wait for ever for an agent that is gone."""
    agent = await plane.agent()
    made = await plane.running(agent)
    async with aclosing(tail(plane, made.session_id)) as stream, asyncio.timeout(10):
        first = asyncio.create_task(anext(stream))
        await _serve(agent, {"lines": ["a"]})
        await first
        await agent.close()
        with pytest.raises(errors.Unavailable) as caught:
            await anext(stream)

    assert caught.value.reason == "NODE_UNREACHABLE"


async def test_an_agent_cannot_answer_for_another(plane: Control) -> None:
    """Parts of a log are taken from the agent that was asked."""
    agent = await plane.agent()
    stranger = await plane.agent("node-b", gpu("GPU-9"))
    made = await plane.running(agent)

    asking = asyncio.create_task(plane.rest("GET", f"/stream/{made.session_id}/log"))
    request = await agent.until("log_request")
    await stranger.say(log_part=agent_pb2.LogPart(request_id=request.request_id, lines=["forged"], last=True))
    await stranger.settled()
    await agent.say(log_part=agent_pb2.LogPart(request_id=request.request_id, lines=["true"], last=True))

    assert (await asking).json()["lines"] == ["true"]


async def test_a_slow_reader_of_a_log_loses_the_oldest_and_is_told(plane: Control) -> None:
    """Memory is bounded, the gap is marked, the end arrives."""
    from footlights.control.hub import Hub, OpenLink

    hub, link = Hub(), OpenLink("n", "one", 1, set())
    hub.add(link)
    reading = hub.log("n", "launch", tail_lines=1, follow=False)

    async def read() -> list[agent_pb2.LogPart]:
        return [part async for part in reading]

    asking = asyncio.create_task(read())
    message = await link.outbox.get()
    assert message is not None
    request_id = message.log_request.request_id
    count = Hub.MAX_LOG_PARTS + 10
    for number in range(count):
        part = agent_pb2.LogPart(request_id=request_id, lines=[str(number)], last=number == count - 1)
        hub.log_part(link, part)

    parts = await asking

    assert len(parts) == Hub.MAX_LOG_PARTS
    assert (list(parts[0].lines), parts[0].truncated) == (["10"], True)
    assert not any(part.truncated for part in parts[1:])
    assert parts[-1].last


async def test_the_last_lines_of_what_ended_are_kept(plane: Control) -> None:
    """Where the agent is gone, they are the log; in a failure they are in the session, too."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await agent.report(await agent.assignment(made.session_id), "EXITED", exit_code=3, log_tail=["one", "two"])
    await agent.close()
    await _unlinked(plane)

    read = (await plane.rest("GET", f"/stream/{made.session_id}/log", params={"tail_lines": 1})).json()
    followed = [list(part.lines) async for part in tail(plane, made.session_id)]
    ended = await plane.get(made.session_id)

    assert read == {"lines": ["two"], "truncated": True}
    assert followed == [["one", "two"]]
    assert (list(ended.log_tail), ended.exit_code) == (["one", "two"], 3)


async def test_there_is_no_log_before_the_first_launch_and_none_from_a_silent_node(plane: Control) -> None:
    """404 for what never ran; 503 for what runs where nobody can be asked."""
    waiting = await plane.create()
    never = await plane.rest("GET", f"/stream/{waiting.session_id}/log")
    agent = await plane.agent()
    await plane.place()
    await agent.ready(waiting.session_id)
    await agent.close()
    await _unlinked(plane)

    silent = await plane.rest("GET", f"/stream/{waiting.session_id}/log")

    assert never.status_code == 404
    assert (silent.status_code, silent.headers["retry-after"]) == (503, "5")
