"""Deadlines: of any number of sessions, and of those that cannot be read or ended.

The expiry loop (`loop`), `retention` and `fleet_report` are shown here with a part that fails.
"""

from __future__ import annotations

from typing import Any

from footlights.v1 import application_pb2, session_pb2
from structlog.testing import capture_logs

from footlights.control.expiry.deadlines import Deadlines
from tests.control.harness import Control, State, seconds
from tests.control.scheduling.test_loop import GARBAGE, change, queue, skipped, wait

MINUTE = application_pb2.Limits(queue_timeout=seconds(60)).SerializeToString()
QUEUE_TIMEOUT = session_pb2.Session.QUEUE_TIMEOUT


async def test_each_of_a_long_queue_ends_in_time(plane: Control) -> None:
    """Also those behind the page that one pass reads."""
    await wait(plane, Deadlines.PAGE + 500, limits=MINUTE)
    for _ in range(3):
        await plane.reap()
    plane.clock.pass_s(59)
    await plane.reap()
    early = len(await queue(plane))
    plane.clock.pass_s(1)
    await plane.reap()

    assert early == Deadlines.PAGE + 500
    assert await queue(plane) == []


async def test_one_that_cannot_be_ended_keeps_no_other(plane: Control) -> None:
    """It is reported, tried again after a minute, and ends then."""
    bad, good = await wait(plane, 2, limits=MINUTE)
    await change(plane, bad, timeline=5)
    await plane.reap()
    plane.clock.pass_s(60)

    with capture_logs() as logs:
        await plane.reap()
        await plane.reap()
    states = (await plane.get(good)).end_reason, [row.session_id for row in await queue(plane)]
    await change(plane, bad, timeline=[])
    plane.clock.pass_s(59)
    await plane.reap()
    early = len(await queue(plane))
    plane.clock.pass_s(1)
    await plane.reap()

    assert states == (QUEUE_TIMEOUT, [bad])
    assert [entry["session_id"] for entry in skipped(logs)] == [bad]
    assert (early, await queue(plane)) == (1, [])


async def test_one_whose_limits_cannot_be_read_keeps_no_other(plane: Control) -> None:
    """It is reported once, and waits on."""
    [bad] = await wait(plane, 1, limits=GARBAGE)
    [good] = await wait(plane, 1, limits=MINUTE)
    with capture_logs() as logs:
        await plane.reap()
        plane.clock.pass_s(60)
        await plane.reap()

    assert (await plane.get(good)).end_reason == QUEUE_TIMEOUT
    assert [row.session_id for row in await queue(plane)] == [bad]
    assert [entry["session_id"] for entry in skipped(logs)] == [bad]


async def test_a_part_that_fails_stops_no_other_part(plane: Control) -> None:
    """What is old is removed although the fleet cannot be counted."""
    await plane.agent()
    [bad] = await wait(plane, 1, limits=MINUTE)
    report: Any = plane.plane.reaping._report
    await plane.reap()

    async def failing() -> None:
        raise ZeroDivisionError

    report.report = failing
    plane.clock.pass_s(60)
    with capture_logs() as logs:
        await plane.reap()

    assert (await plane.get(bad)).end_reason == QUEUE_TIMEOUT
    assert [entry["part"] for entry in skipped(logs)] == ["fleet_report"]
    assert (await plane.get(bad)).state == State.FAILED
