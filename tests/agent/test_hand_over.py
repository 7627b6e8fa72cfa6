"""An application that was started ahead is handed over: real processes, a real agent, and a hub of the tests' own.

Covers `step`, `record` and `runner` as far as that goes, and `ApplicationProbes.hand_over`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport
from footlights.v1.application_pb2 import StageDelivery

from footlights.agent.launches.notices import Notices
from footlights.agent.launches.record import Record
from footlights.lifecycle import LaunchState
from tests.agent.conftest import Applications, Node
from tests.agent.hub import Hub
from tests.agent.test_notices import Hand

READY, FAILED = LaunchReport.READY, LaunchReport.FAILED
BY_HTTP = StageDelivery(method=StageDelivery.HTTP, path="/open")


def ahead(application: Applications, **members: Any) -> Assignment:
    """Return the assignment of an instance that is started ahead."""
    found = application(**members)
    found.ahead = True
    return found


def handed(assignment: Assignment, stage: str = "") -> Assignment:
    """Return the assignment that follows when a session has taken it."""
    taken = Assignment()
    taken.CopyFrom(assignment)
    taken.ahead, taken.handed_over, taken.usd_stage_uri = False, True, stage
    return taken


async def taken_up(hub: Hub, launch_id: str = "launch-1") -> LaunchReport:
    """Wait until the agent says that the session is taken up."""

    def said() -> bool:
        report = hub.reports.get(launch_id)
        return report is not None and report.taken_up

    await hub.until(said)
    return hub.reports[launch_id]


async def test_it_takes_up_its_session_with_new_timers(hub: Hub, node: Node, application: Applications) -> None:
    """What was before counts no more: it has been ready for a moment, and nobody ever came."""
    assignment = ahead(application)
    assignment.limits.never_connected_timeout.FromMilliseconds(50)
    await hub.want(assignment)
    ready = await hub.until_state("launch-1", READY)
    assert not ready.taken_up

    assignment.limits.never_connected_timeout.FromSeconds(600)
    await hub.want(handed(assignment))

    report = await taken_up(hub)
    assert report.state == READY
    assert not report.ever_connected
    assert "NEVER_CONNECTED" not in report.message


@pytest.mark.parametrize(("stage", "sent"), [("/srv/b.usd", True), ("", False)])
async def test_a_stage_is_sent_to_the_application_that_runs(
    hub: Hub, node: Node, application: Applications, stage: str, sent: bool
) -> None:
    """By HTTP, where its version says so: once, before the session is ready."""
    assignment = ahead(application, stage_delivery=BY_HTTP)
    await hub.want(assignment)
    await hub.until_state("launch-1", READY)

    await hub.want(handed(assignment, stage))
    await taken_up(hub)

    await hub.tail("launch-1", "tail")
    await hub.until(lambda: hub.done("tail"))
    stages = [line.split(None, 1)[1] for line in hub.lines("tail") if line.startswith("stage")]
    assert [json.loads(each)["usd_stage_uri"] for each in stages] == ([stage] if sent else [])


@pytest.mark.parametrize(("answer", "reason"), [(500, "HAND_OVER_FAILED"), (422, "STAGE_REFUSED")])
async def test_an_application_that_does_not_open_it_ends(
    hub: Hub, node: Node, application: Applications, answer: int, reason: str
) -> None:
    """A 4xx is about the stage, which another launch would not open either; the rest is about this instance."""
    assignment = ahead(application, stage_delivery=BY_HTTP, wishes={"open": answer})
    await hub.want(assignment)
    await hub.until_state("launch-1", READY)

    await hub.want(handed(assignment, "/srv/b.usd"))

    failed = await hub.until_state("launch-1", FAILED)
    assert (failed.reason, failed.taken_up) == (reason, False)


async def test_the_next_agent_does_not_take_it_up_again(hub: Hub, node: Node, application: Applications) -> None:
    """Nor does it forget that there is a session: its timers go on."""
    assignment = ahead(application, stage_delivery=BY_HTTP)
    await hub.want(assignment)
    await hub.until_state("launch-1", READY)
    await hub.want(handed(assignment, "/srv/b.usd"))
    await taken_up(hub)

    await node.crash()
    hub.reports.pop("launch-1")
    await node.start()

    assert (await taken_up(hub)).state == READY
    await hub.tail("launch-1", "tail")
    await hub.until(lambda: hub.done("tail"))
    assert len([line for line in hub.lines("tail") if line.startswith("stage")]) == 1


@dataclass
class Ahead:
    """A launch that is ready and has no session, on a clock that is moved by hand."""

    clock: Hand = field(default_factory=Hand)

    def __post_init__(self) -> None:
        self.record = Record(Assignment(launch_id="launch-1", ahead=True), self.clock)
        limits = self.record.assignment.limits
        limits.idle_timeout.FromSeconds(60)
        limits.never_connected_timeout.FromSeconds(60)
        limits.max_duration.FromSeconds(60)
        self.record.move(LaunchState.READY)
        self.record.observe(0, None)


def test_no_timer_of_a_session_runs_before_there_is_one() -> None:
    """However long it waits; nor between the hand-over and its being taken up. Then each runs from its beginning."""
    launch = Ahead()
    launch.clock.at += 5000
    assert launch.record.overdue() == ""
    assert Notices(launch.record, launch.clock).due() is None

    launch.record.reassign(handed(launch.record.assignment))
    assert (launch.record.must_take_up, launch.record.overdue()) == (True, "")
    launch.record.take_up()
    launch.record.observe(0, None)
    assert (launch.record.must_take_up, launch.record.overdue()) == (False, "")
    assert launch.record.report().ready_for.seconds == 0

    launch.clock.at += 59
    assert launch.record.overdue() == ""
    launch.clock.at += 1
    assert launch.record.overdue() == "MAX_DURATION"


def test_who_looked_before_the_session_is_no_viewer_of_it() -> None:
    """A readiness check that dials as a viewer does is not the session's first viewer."""
    launch = Ahead()
    launch.record.observe(1, None)
    launch.record.confirm_viewer()
    launch.record.reassign(handed(launch.record.assignment))
    launch.record.take_up()

    report = launch.record.report()
    assert not report.ever_connected
    assert "FIRST_VIEWER" not in {step.stage for step in report.steps}
