"""What waits to be said."""

from __future__ import annotations

import asyncio

from footlights.agent.v1.agent_pb2 import Inventory, LaunchReport, LogPart
from footlights.agent.v1.node_pb2 import NodeFacts

from footlights.agent.link.outbox import Outbox
from footlights.supervision import Supervisor

REPORTS: dict[str, LaunchReport] = {}


def outbox() -> Outbox:
    REPORTS.clear()
    return Outbox(lambda launch_id: REPORTS.get(launch_id), Supervisor())


async def test_the_newest_report_is_sent_once() -> None:
    """However often a launch changes, what is sent is how it is when it is sent."""
    box = outbox()
    for state in (LaunchReport.STARTING, LaunchReport.READY, LaunchReport.EXITED):
        REPORTS["a"] = LaunchReport(launch_id="a", state=state)
        box.changed("a")
    message = await box.next(1)
    assert message is not None
    assert message.report.state == LaunchReport.EXITED
    assert box.empty


async def test_changes_go_before_devices_and_output() -> None:
    """A flood of output never holds up an end."""
    box = outbox()
    await box.log(LogPart(request_id="r"))
    box.inventory(Inventory(facts=NodeFacts(hostname="old")))
    box.inventory(Inventory(facts=NodeFacts(hostname="new")))
    REPORTS["a"] = LaunchReport(launch_id="a", state=LaunchReport.EXITED)
    box.changed("a")
    box.lost(LaunchReport(launch_id="b", state=LaunchReport.LOST))
    order = []
    while not box.empty:
        message = await box.next(1)
        assert message is not None
        order.append(message.WhichOneof("message"))
        if order[-1] == "inventory":
            assert message.inventory.facts.hostname == "new"
    assert order == ["report", "report", "inventory", "log_part"]


async def test_output_waits_for_room() -> None:
    """Who reads faster than the link sends is held up, not stored; and goes on when there is room."""
    box = outbox()

    async def flood() -> None:
        for _ in range(1000):
            await box.log(LogPart(request_id="r"))

    flooding = asyncio.create_task(flood())
    received = 0
    while received < 1000:
        assert await box.next(5) is not None
        received += 1
    await flooding
    assert box.empty


async def test_silence_is_none() -> None:
    """Nothing to say for a while: the sender may beat."""
    assert await outbox().next(0.01) is None
