"""Quarantine, through the API: a device that hurt sessions or comes and goes returns by itself after a growing time.

And a node whose driver asks for a reboot.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from footlights.v1 import agent_pb2, node_pb2, session_pb2

from footlights.control.scheduling import quarantine
from footlights.store.schema import DeviceEventRow
from tests.control.harness import Agent, Control, State, gpu

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOST = [node_pb2.Device.HealthReason(reason="GPU_IS_LOST", message="fell off the bus")]


async def device(plane: Control, uuid: str = "GPU-0") -> node_pb2.Device:
    node: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    return next(each for each in node.devices if each.uuid == uuid)


async def lose(plane: Control, agent: Agent) -> session_pb2.Session:
    """Run a session and have its GPU lost."""
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await agent.report(assignment, "EXITED", reason="GPU_LOST", message="The device GPU-0 is lost.")
    return await plane.get(made.session_id)


async def read(agent: Agent, *devices: node_pb2.Device) -> None:
    await agent.say(inventory=agent_pb2.Inventory(devices=devices))
    await agent.settled()


async def verdict(plane: Control) -> tuple[str, str]:
    request = session_pb2.ExplainPlacementRequest(application="fake")
    told = await plane.call("StreamingService.ExplainPlacement", request)
    return told.nodes[0].devices[0].reason, told.nodes[0].devices[0].message


async def test_a_device_that_was_lost_under_a_session_returns_by_itself(plane: Control) -> None:
    """Its owner is told GPU_LOST; the device waits a minute, says so everywhere, and is placed again."""
    agent = await plane.agent()
    ended = await lose(plane, agent)
    plane.clock.pass_s(20)
    made = await plane.create()
    placed = await plane.place()
    waiting = await plane.get(made.session_id)
    said, shown = await verdict(plane), await device(plane)
    rest = (await plane.rest("GET", "/nodes/node-a")).json()["devices"][0]
    plane.clock.pass_s(40)

    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.GPU_LOST)
    assert placed == 0
    assert list(waiting.queue.reasons) == ["QUARANTINED: 1 device"]
    assert said == ("QUARANTINED", "GPU_LOST: ended sessions, 1 times; returns in 40 s if it stays well")
    assert shown.quarantine == said[1]
    status = shown.quarantine_status
    assert (status.reason, status.message) == ("GPU_LOST", "ended sessions, 1 times; it returns if it stays well.")
    assert status.until_time.ToDatetime(plane.clock().tzinfo) == plane.clock()
    assert [(each.reason, each.message) for each in shown.events] == [("GPU_LOST", "The device GPU-0 is lost.")]
    assert rest["events"][0]["reason"] == "GPU_LOST"
    assert await plane.place() == 1
    assert (await device(plane)).quarantine == ""
    assert not (await device(plane)).HasField("quarantine_status")


async def test_the_time_counts_from_when_the_device_reads_well_again(plane: Control) -> None:
    """A probe is every reading in between; the next loss doubles the time."""
    agent = await plane.agent()
    await lose(plane, agent)
    await read(agent, gpu(health=node_pb2.Device.LOST, health_reasons=LOST))
    plane.clock.pass_s(300)
    sick = await verdict(plane)
    await read(agent, gpu())
    plane.clock.pass_s(59)
    early = await verdict(plane)
    plane.clock.pass_s(1)
    well = await verdict(plane)
    await lose(plane, agent)
    again = await verdict(plane)

    assert sick[0] == "GPU_IS_LOST"
    assert early == ("QUARANTINED", "GPU_IS_LOST: ended sessions, 1 times; returns in 1 s if it stays well")
    assert well[0] == "FITS"
    assert again == ("QUARANTINED", "GPU_LOST: ended sessions, 2 times; returns in 120 s if it stays well")
    assert [each.reason for each in (await device(plane)).events] == [
        "GPU_LOST",
        "GPU_IS_LOST",
        "RECOVERED",
        "GPU_LOST",
    ]


async def test_one_sick_device_never_blocks_its_node(plane: Control) -> None:
    """The next session goes to the device beside it."""
    agent = await plane.agent("node-a", gpu("GPU-0"), gpu("GPU-1"))
    await lose(plane, agent)

    made = await plane.running(agent)

    assert made.device == "GPU-1"


async def test_a_device_that_comes_and_goes_is_left_alone(plane: Control) -> None:
    """The third time within ten minutes, although no session was hurt."""
    agent = await plane.agent()
    found = []
    for _ in range(3):
        await read(agent, gpu(health=node_pb2.Device.LOST, health_reasons=LOST))
        plane.clock.pass_s(5)
        await read(agent, gpu())
        found.append(await verdict(plane))
        plane.clock.pass_s(60)

    assert [each[0] for each in found] == ["FITS", "FITS", "QUARANTINED"]
    assert found[2][1] == "GPU_IS_LOST: came and went, 3 times; returns in 120 s if it stays well"
    plane.clock.pass_s(60)
    assert (await verdict(plane))[0] == "FITS"


async def test_the_api_shows_the_last_events_only(plane: Control) -> None:
    """Twenty, oldest first."""
    agent = await plane.agent()
    for _ in range(15):
        await read(agent, gpu(health=node_pb2.Device.LOST, health_reasons=LOST))
        await read(agent, gpu())

    assert [each.reason for each in (await device(plane)).events] == ["GPU_IS_LOST", "RECOVERED"] * 10


@pytest.mark.parametrize(
    ("history", "left_s"),
    [
        ([], None),
        ([(10, "RECOVERED")], None),
        ([(10, "GPU_LOST")], 50),
        # One incident ends every session on the device.
        ([(10, "GPU_LOST"), (9, "GPU_LOST"), (8, "WRONG_DEVICE")], 50),
        ([(300, "GPU_LOST"), (10, "GPU_LOST")], 110),
        ([(300, "XID_79"), (10, "GPU_LOST")], 60),
        ([(300, "GPU_LOST"), (100, "XID_79"), (10, "RECOVERED")], None),
        ([(110, "GPU_LOST"), (100, "XID_79"), (10, "RECOVERED")], 50),
        ([(30, "XID_79")], None),
    ],
)
def test_how_long_a_history_means(history: list[tuple[float, str]], left_s: float | None) -> None:
    """Pairs of (seconds ago, reason)."""
    events = [
        DeviceEventRow(node="n", uuid="u", number=number, time=NOW - timedelta(seconds=ago), reason=reason, message="")
        for number, (ago, reason) in enumerate(history)
    ]

    said = quarantine.explain(events, NOW)

    assert (said is None) if left_s is None else (said is not None and round(said.left_s) == left_s)


async def test_a_device_that_needs_its_machine_rebooted_cordons_the_node(plane: Control) -> None:
    """Nothing new on any device of it, with the reason; what runs goes on; it returns by itself."""
    agent = await plane.agent("node-a", gpu("GPU-0"), gpu("GPU-1"), gpu("GPU-2"))
    running = await plane.running(agent)
    reboot = [node_pb2.Device.HealthReason(reason="NODE_REBOOT_NEEDED", message="the driver asks for a reboot")]
    sick = gpu("GPU-2", health=node_pb2.Device.UNHEALTHY, health_reasons=reboot)
    await read(agent, gpu("GPU-0"), gpu("GPU-1"), sick)
    made = await plane.create()
    placed = await plane.place()
    waiting = await plane.get(made.session_id)
    node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    await read(agent, gpu("GPU-0"), gpu("GPU-1"), gpu("GPU-2"))
    again = await plane.place()

    assert (placed, again) == (0, 1)
    assert "NODE_REBOOT_NEEDED: 3 devices" in list(waiting.queue.reasons)
    assert (await plane.get(running.session_id)).state == State.READY
    assert node.state == node_pb2.Node.CORDONED
    assert [notice.reason for notice in node.notices] == ["NODE_REBOOT_NEEDED"]
    assert await plane.state() == "READY"
