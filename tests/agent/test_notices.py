"""What viewers are to be told reaches the application: once, again where it changes, and not where it is not wanted.

Also the tests of ``notice``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport, ViewerNotice

from footlights.agent.launches.notices import Notices
from footlights.agent.launches.record import Record
from footlights.launch.probes.notice import NoticeOutcome, SessionNotice
from footlights.lifecycle import LaunchState
from tests.agent.conftest import Applications, Node
from tests.agent.hub import Hub


def drains(assigned: Assignment, ends_in_s: float | None, message: str = "The machine goes.") -> Assignment:
    made = Assignment()
    made.CopyFrom(assigned)
    made.notice.CopyFrom(ViewerNotice(reason="DRAIN", message=message))
    if ends_in_s is not None:
        made.notice.ends_in.FromMilliseconds(round(ends_in_s * 1000))
    return made


async def told(hub: Hub, request_id: str) -> list[dict[str, Any]]:
    """All notices that the application was ever told."""
    await hub.tail("launch-1", request_id)
    await hub.until(lambda: hub.done(request_id))
    return [json.loads(line.removeprefix("notice ")) for line in hub.lines(request_id) if line.startswith("notice ")]


async def beat(hub: Hub) -> None:
    """Wait for the agent's next heartbeat."""
    beats = hub.link.heartbeats
    await hub.until(lambda: hub.link.heartbeats > beats)


async def until_told(hub: Hub, count: int) -> list[dict[str, Any]]:
    for attempt in range(200):
        found = await told(hub, f"until-{count}-{attempt}")
        if len(found) >= count:
            return found
        await beat(hub)
    raise AssertionError(f"told {len(found)} times, not {count}")


async def looks(hub: Hub, application: Applications, times: int) -> None:
    """Wait until the application was asked who is there, so many times more."""
    for viewers in range(1, times + 1):
        application.tell("launch-1", notice=204, status={"viewers": viewers})
        while hub.reports["launch-1"].viewers != viewers:
            await beat(hub)


async def test_a_notice_is_told_once_and_taken_back(hub: Hub, node: Node, application: Applications) -> None:
    """With the time that is left when it is told; another message is told anew; none takes it back."""
    await hub.until(lambda: hub.connections)
    wanted = application(wishes={"notice": 204})
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(drains(wanted, 300))
    await until_told(hub, 1)
    await looks(hub, application, 2)
    await hub.want(drains(wanted, 60, "Sooner."))
    await until_told(hub, 2)
    await hub.want(wanted)
    first, second, third = await until_told(hub, 3)

    assert (first["reason"], first["message"]) == ("DRAIN", "The machine goes.")
    assert 290 < first["ends_in_seconds"] <= 300
    assert (second["message"], 50 < second["ends_in_seconds"] <= 60) == ("Sooner.", True)
    assert third == {"reason": "", "message": "", "ends_in_seconds": None}


async def test_an_application_that_does_not_offer_it_is_left_alone(
    hub: Hub, node: Node, application: Applications
) -> None:
    """After one 404 it is never asked again."""
    await hub.until(lambda: hub.connections)
    wanted = application()
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(drains(wanted, 300))
    await until_told(hub, 1)
    await hub.want(drains(wanted, 60, "Sooner."))
    await looks(hub, application, 2)

    assert len(await told(hub, "all")) == 1


async def test_an_application_that_cannot_now_is_told_again(hub: Hub, node: Node, application: Applications) -> None:
    """503 is no answer; an agent that was started meanwhile tells it too."""
    await hub.until(lambda: hub.connections)
    wanted = application(wishes={"notice": 503})
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(drains(wanted, 300))
    await until_told(hub, 2)
    await node.crash()
    links = len(hub.connections)
    application.tell("launch-1", notice=204)
    await node.start()
    await hub.until(lambda: len(hub.connections) > links)

    found = await until_told(hub, 3)

    assert {each["reason"] for each in found} == {"DRAIN"}


@dataclass
class Hand:
    """A clock that is moved by hand."""

    boot_id: str = "boot"
    at: float = 1000.0

    def now(self) -> float:
        return self.at


@dataclass
class Told:
    """A launch that is ready, and what its application hears."""

    clock: Hand = field(default_factory=Hand)
    outcome: NoticeOutcome = NoticeOutcome.DELIVERED

    def __post_init__(self) -> None:
        self.record = Record(Assignment(launch_id="launch-1"), self.clock)
        self.record.move(LaunchState.READY)
        self.notices = Notices(self.record, self.clock)

    def look(self, after_s: float = 0.0) -> SessionNotice | None:
        self.clock.at += after_s
        notice = self.notices.due()
        if notice is not None:
            self.notices.sent(notice, self.outcome)
        return notice


@pytest.mark.parametrize(("longest", "ahead"), [(3600, 300), (60, 12)])
def test_a_maximum_that_comes_near_is_told(longest: int, ahead: int) -> None:
    """Five minutes ahead, less for a short session; once; an extension takes it back."""
    launch = Told()
    launch.record.assignment.limits.max_duration.FromSeconds(longest)

    assert launch.look(longest - ahead - 1) is None
    notice = launch.look(1)
    assert notice is not None
    assert (notice.reason, notice.ends_in_s) == ("MAX_DURATION", ahead)
    assert launch.look(1) is None
    launch.record.assignment.limits.max_duration.FromSeconds(2 * longest)
    assert launch.look() == SessionNotice()


def test_what_ends_the_session_first_is_told() -> None:
    """A drain in a minute says more than a maximum in two."""
    launch = Told()
    launch.record.assignment.limits.max_duration.FromSeconds(3600)
    launch.look(3480)
    launch.record.assignment.CopyFrom(drains(launch.record.assignment, 60))

    notice = launch.look()

    assert notice is not None
    assert (notice.reason, notice.ends_in_s) == ("DRAIN", 60)


def test_the_time_is_counted_from_when_it_was_told() -> None:
    """What the control plane sent is how long it was then; the same notice again changes nothing."""
    launch = Told(outcome=NoticeOutcome.NOT_NOW)
    launch.record.assignment.CopyFrom(drains(launch.record.assignment, 60))

    left = [notice.ends_in_s for notice in (launch.look(), launch.look(20), launch.look(50)) if notice]

    assert left == [60, 40, 0]


def test_a_notice_without_an_end_has_none() -> None:
    """Not every notice knows when."""
    launch = Told()
    launch.record.assignment.CopyFrom(drains(launch.record.assignment, None))

    assert launch.look() == SessionNotice("DRAIN", "The machine goes.", None)
    assert launch.look(100) is None
