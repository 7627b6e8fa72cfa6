"""Waiting, being placed, being refused, and giving up: with reasons and estimates (`pending`, `views`)."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2, session_pb2

from tests.control.harness import GIB, Control, State, gpu, seconds, version

Limits = application_pb2.Limits
Needs = application_pb2.Needs
EndReason = session_pb2.Session.EndReason


async def explain(plane: Control, **members: Any) -> session_pb2.ExplainPlacementResponse:
    request = session_pb2.ExplainPlacementRequest(**({"application": "fake"} | members))
    answer: session_pb2.ExplainPlacementResponse = await plane.call("StreamingService.ExplainPlacement", request)
    return answer


# Order, positions, estimates


async def test_waiting_sessions_know_their_place_why_and_for_how_long(plane: Control) -> None:
    """Position, reasons and ETA are written when they change, and only then."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent()
    await plane.running(agent)
    first, second = await plane.create(), await plane.create()

    await plane.place()
    waiting = [await plane.get(each.session_id) for each in (first, second)]
    plane.clock.pass_s(10)
    await plane.place()
    unchanged = await plane.get(first.session_id)
    plane.clock.pass_s(300)
    await plane.place()
    later = await plane.get(first.session_id)

    assert [session.queue.position for session in waiting] == [1, 2]
    assert [list(session.queue.reasons) for session in waiting] == [["NO_SLOT: 1 device"]] * 2
    assert waiting[0].status_message == "Waits for a device: NO_SLOT: 1 device."
    # One lease ends within its 600 s, of which the agent said that 1 s had gone; of a second one nothing is known.
    assert 598 <= waiting[0].queue.eta.seconds <= 601
    assert not waiting[1].queue.HasField("eta")
    assert unchanged.revision == waiting[0].revision
    assert later.revision > waiting[0].revision
    assert 288 <= later.queue.eta.seconds <= 301


async def test_the_queue_is_served_by_priority_then_time(plane: Control) -> None:
    """A slot that becomes free goes to who is first, at once."""
    agent = await plane.agent()
    running = await plane.running(agent)
    early = await plane.create()
    plane.clock.pass_s(1)
    vip = await plane.create(priority=5)
    await plane.place()
    assert [(await plane.get(each.session_id)).queue.position for each in (early, vip)] == [2, 1]

    await agent.report(await agent.assignment(running.session_id), "EXITED", exit_code=0)
    await plane.place()

    assert (await plane.get(vip.session_id)).state == State.STARTING
    still = await plane.get(early.session_id)
    assert (still.state, still.queue.position) == (State.PENDING, 1)


async def test_without_a_node_the_reason_says_so(plane: Control) -> None:
    """An empty installation explains itself."""
    made = await plane.create()

    await plane.place()

    queue = (await plane.get(made.session_id)).queue
    assert list(queue.reasons) == ["NO_NODE: no node has joined"]
    assert list(queue.wait_reasons) == [session_pb2.Session.WaitReason(reason="NO_NODE", message="no node has joined")]


async def test_a_slot_is_freed_by_proof_alone_and_serves_the_queue(plane: Control) -> None:
    """Terminating withholds it; the agent's last word frees it."""
    agent = await plane.agent()
    first = await plane.running(agent)
    second = await plane.create()
    await plane.terminate(first.session_id)

    assert await plane.place() == 0
    await agent.report(await agent.assignment(first.session_id, "STOPPED"), "STOPPING")
    assert await plane.place() == 0
    await agent.report(await agent.assignment(first.session_id, "STOPPED"), "EXITED", exit_code=0)
    assert await plane.place() == 1

    assert (await plane.get(second.session_id)).state == State.STARTING


# Refusals


async def test_a_refused_session_is_placed_elsewhere(plane: Control) -> None:
    """The device that refused is not offered again for a while; another is, at once."""
    agent = await plane.agent("node-a", gpu("GPU-0"), gpu("GPU-1"))
    made = await plane.create()
    await plane.place()
    first = await agent.assignment(made.session_id)

    await agent.report(first, "REJECTED", reason="FOREIGN_PROCESS", message="3.1 GiB by pid 4711")
    back = await plane.get(made.session_id)
    await plane.place()
    del agent.assigned[first.launch_id]
    second = await agent.assignment(made.session_id)

    assert (back.state, back.status_message) == (State.PENDING, "3.1 GiB by pid 4711")
    assert {first.device_uuid, second.device_uuid} == {"GPU-0", "GPU-1"}
    assert first.launch_id != second.launch_id
    assert (await plane.get(made.session_id)).launch_count == 2


async def test_a_refused_session_without_another_device_waits_with_the_reason(plane: Control) -> None:
    """And tries again when the refusal is old."""
    agent = await plane.agent()
    made = await plane.create()
    await plane.place()
    refusal = {"reason": "FOREIGN_PROCESS", "message": "3.1 GiB by pid 4711"}
    await agent.report(await agent.assignment(made.session_id), "REJECTED", **refusal)

    assert await plane.place() == 0
    waiting = await plane.get(made.session_id)
    plane.clock.pass_s(31)
    assert await plane.place() == 1

    assert waiting.status_message == "3.1 GiB by pid 4711"
    assert list(waiting.queue.reasons) == ["REFUSED: 1 device"]
    assert (
        'footlights_launches_refused_total{reason="FOREIGN_PROCESS"} 1.0' in (await plane.rest("GET", "/metrics")).text
    )


# Giving up


async def test_a_session_that_waits_too_long_ends_with_the_reason_why(plane: Control) -> None:
    """QUEUE_TIMEOUT, with what was missing."""
    await plane.apply(version("2.0.0", limits=Limits(queue_timeout=seconds(60))))
    agent = await plane.agent()
    await plane.running(agent)
    made = await plane.create()
    await plane.place()
    await plane.reap()
    plane.clock.pass_s(59)
    await plane.reap()
    assert (await plane.get(made.session_id)).state == State.PENDING

    plane.clock.pass_s(1)
    await plane.reap()

    ended = await plane.get(made.session_id)
    assert (ended.state, ended.end_reason) == (State.FAILED, EndReason.Value("QUEUE_TIMEOUT"))
    assert ended.status_message == "No device within 60 seconds. NO_SLOT: 1 device."
    await plane.reap()
    assert 'footlights_session_ends_total{reason="QUEUE_TIMEOUT"} 1.0' in (await plane.rest("GET", "/metrics")).text


@pytest.mark.parametrize("jump", [30 * 86400, -30 * 86400])
async def test_a_wall_clock_that_jumps_ends_no_wait(plane: Control, jump: int) -> None:
    """A month forward ends nothing, a month back prolongs nothing: the span counts, once it is being counted."""
    await plane.apply(version("2.0.0", limits=Limits(queue_timeout=seconds(60))))
    made = await plane.create()
    await plane.reap()

    plane.clock.jump_s(jump)
    await plane.reap()
    assert (await plane.get(made.session_id)).state == State.PENDING
    plane.clock.pass_s(59)
    await plane.reap()
    assert (await plane.get(made.session_id)).state == State.PENDING
    plane.clock.pass_s(1)
    await plane.reap()

    assert (await plane.get(made.session_id)).state == State.FAILED


async def test_terminating_a_waiting_session_takes_it_out_of_the_queue(plane: Control) -> None:
    """At once, and those behind it move up."""
    first, second = await plane.create(), await plane.create()
    await plane.place()

    await plane.terminate(first.session_id)
    await plane.place()

    assert (await plane.get(first.session_id)).state == State.TERMINATED
    assert (await plane.get(second.session_id)).queue.position == 1


# Explaining


async def test_an_explanation_says_where_it_would_go_and_changes_nothing(plane: Control) -> None:
    """Every node and device with its verdict and figures."""
    await plane.apply(version("2.0.0", needs=Needs(gpu=True, min_memory_bytes=16 * GIB)))
    foreign = [node_pb2.Device.ForeignProcess(pid=7, name="python", used_memory_bytes=3 * GIB)]
    sick = [node_pb2.Device.HealthReason(reason="XID_79", message="fell off the bus")]
    await plane.agent(
        "node-a",
        gpu("A", memory_free_bytes=11 * GIB),
        gpu("B", foreign_processes=foreign),
        gpu("C", health=node_pb2.Device.UNHEALTHY, health_reasons=sick),
        gpu("D", kind=node_pb2.Device.SOFTWARE),
        gpu("E"),
    )
    await plane.agent("node-b", facts={"launchers": ["process"]})

    told = await explain(plane)

    assert (told.fits, told.node, told.device) == (True, "node-a", "E")
    assert {device.device: device.reason for device in told.nodes[0].devices} == {
        "A": "MEMORY",
        "B": "FOREIGN_PROCESS",
        "C": "XID_79",
        "D": "NO_GPU",
        "E": "FITS",
    }
    messages = {device.device: device.message for device in told.nodes[0].devices}
    assert messages["A"] == "11.0<16.0 GiB free"
    assert messages["B"] == "3.0 GiB pid 7 python"
    assert (told.nodes[1].node, told.nodes[1].reason) == ("node-b", "NO_LAUNCHER")
    assert (await plane.rest("GET", "/stream")).json()["count"] == 0


async def test_an_explanation_agrees_with_what_then_happens(plane: Control) -> None:
    """Same place while it fits; same position while it waits."""
    await plane.agent("node-a", gpu("A", memory_total_bytes=48 * GIB), gpu("B"))

    for _ in range(2):
        told = await explain(plane)
        made = await plane.create()
        await plane.place()
        session = await plane.get(made.session_id)
        assert (told.fits, told.node, told.device) == (True, session.node, session.device)
    for position in (1, 2):
        told = await explain(plane)
        made = await plane.create()
        await plane.place()
        session = await plane.get(made.session_id)
        assert (told.fits, told.queue_position) == (False, session.queue.position) == (False, position)


async def test_an_explanation_knows_the_priority(plane: Control) -> None:
    """It stands behind those of its own priority and before those of a lower one."""
    for priority in (5, 0, 0):
        await plane.create(priority=priority)

    assert [(await explain(plane, priority=p)).queue_position for p in (10, 5, 0, -5)] == [1, 2, 4, 4]
    await plane.agent()
    assert (await explain(plane, priority=10)).fits
    assert not (await explain(plane, priority=5)).fits


# What no node could ever serve


async def test_what_no_node_could_serve_is_set_aside_with_the_need(plane: Control) -> None:
    """It has no place and no estimate, the next one is first in line; explain says the same."""
    await plane.apply(version(needs=Needs(device_names=["NVIDIA B300"])), application="rare")
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent()
    await plane.running(agent)
    await plane.plane.placing._work.claim()
    asked = await plane.create(application="rare")
    other = await plane.create()

    await plane.place()
    aside, waiting = [await plane.get(each.session_id) for each in (asked, other)]
    told = await explain(plane, application="rare")

    why = "no node could serve it: no device is named NVIDIA B300"
    assert asked.queue.set_aside, "the answer to its creation says so"
    assert (aside.state, aside.queue.position, aside.queue.set_aside) == (State.PENDING, 0, True)
    assert [each.reason for each in aside.queue.wait_reasons] == ["UNSATISFIABLE", "DEVICE_NAME"]
    assert aside.status_message == f"Set aside: {why}. It is placed when a node that could serve it joins."
    assert not aside.queue.HasField("estimated_wait_duration")
    assert (waiting.queue.position, waiting.queue.set_aside) == (1, False)
    assert (told.fits, told.queue_position, told.HasField("eta")) == (False, 0, False)
    assert (told.wait_reasons[0].reason, told.wait_reasons[0].message) == ("UNSATISFIABLE", why)


async def test_what_was_set_aside_is_placed_when_a_node_joins_that_could(plane: Control) -> None:
    """At once; and while its device is busy it waits in line, with a place by its age."""
    await plane.apply(version(needs=Needs(device_names=["NVIDIA B300"])), application="rare")
    await plane.agent()
    await plane.plane.placing._work.claim()
    await plane.place()
    first, second = await plane.create(application="rare"), await plane.create(application="rare")
    revisions = [each.revision for each in (first, second)]
    await plane.place()
    assert [(await plane.get(each.session_id)).revision for each in (first, second)] == revisions

    await plane.agent("node-b", gpu("B", name="NVIDIA B300"))
    assert await plane.place() == 1

    waiting = await plane.get(second.session_id)
    assert (await plane.get(first.session_id)).node == "node-b"
    assert (waiting.queue.position, waiting.queue.set_aside) == (1, False)
    assert {each.reason for each in waiting.queue.wait_reasons} == {"DEVICE_NAME", "NO_SLOT"}


@pytest.mark.parametrize("how", ["cordoned", "gone", "sick"])
async def test_what_may_come_back_is_waited_for(plane: Control, how: str) -> None:
    """A node that is cordoned or silent, and a device that is not well, could serve it another day."""
    sick = gpu("A", health=node_pb2.Device.UNHEALTHY) if how == "sick" else gpu("A")
    agent = await plane.agent("node-a", sick)
    if how == "cordoned":
        await plane.rest("POST", "/nodes/node-a:cordon")
    if how == "gone":
        await agent.close()
        await plane.unlinked()
    await plane.place()

    made = await plane.create()
    await plane.place()

    assert (await plane.get(made.session_id)).queue.position == 1


async def test_a_session_that_is_set_aside_ends_with_the_need_that_was_not_met(plane: Control) -> None:
    """After its queue timeout, as any that waits."""
    limits = Limits(queue_timeout=seconds(60))
    await plane.apply(version(needs=Needs(slots=9), limits=limits), application="rare")
    await plane.agent()
    made = await plane.create(application="rare")
    await plane.place()
    await plane.reap()

    plane.clock.pass_s(60)
    await plane.reap()

    assert (await plane.get(made.session_id)).status_message == (
        "No device within 60 seconds. UNSATISFIABLE: no node could serve it: no node has 9 slots on one device, "
        "SLOTS: 1 device."
    )


async def test_a_session_that_will_wait_is_told_so_at_its_creation(plane: Control) -> None:
    """Its place behind those of its priority and why, without a pass; the next pass says the same and how long."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent()
    await plane.running(agent)
    await plane.plane.placing._work.claim()
    await plane.place()

    made = [await plane.create(priority=priority) for priority in (0, 0, 5)]
    told = [(each.queue.position, [why.reason for why in each.queue.wait_reasons]) for each in made]
    await plane.place()
    later = [(await plane.get(each.session_id)).queue for each in made]

    assert told == [(1, ["NO_SLOT"]), (2, ["NO_SLOT"]), (1, ["NO_SLOT"])]
    assert [queue.position for queue in later] == [2, 3, 1]
    assert later[2].HasField("estimated_wait_duration")
