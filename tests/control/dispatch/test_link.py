"""A link's own protocol: its states, what it sends, and what it takes from its agent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from footlights.agent.v1 import agent_pb2

from footlights import errors
from footlights.control.dispatch.assignments import LaunchAssignment
from footlights.control.dispatch.link import MAX_UNSENT, AgentLink, Fingerprint, LinkState
from footlights.lifecycle import TimeLimits
from tests.control.harness import Report, seconds

NOTICE = agent_pb2.LinkResponse(notice=agent_pb2.Notice(reason="R"))


def link(*known: str) -> AgentLink:
    return AgentLink("node-a", "one", 1, set(known))


def launch(launch_id: str, state: str = "ASSIGNED", **members: object) -> LaunchAssignment:
    message = agent_pb2.Assignment(launch_id=launch_id, desired=agent_pb2.Assignment.RUNNING, **members)  # type: ignore[arg-type]
    return LaunchAssignment(message, state)


def running(*launch_ids: str, epoch: int = 1) -> dict[str, Fingerprint]:
    return dict.fromkeys(launch_ids, ("RUNNING", epoch, b"", None, None))


async def drain(held: AgentLink) -> list[agent_pb2.LinkResponse]:
    """Hold a link until it has sent what waits, and return that."""
    sent = asyncio.Queue[agent_pb2.LinkResponse]()
    mark = agent_pb2.LinkResponse(notice=agent_pb2.Notice(reason="MARK"))
    assert held.send(mark)
    holding = asyncio.create_task(held.hold(sent.put, asyncio.Event().wait))
    found = []
    async with asyncio.timeout(10):
        while (message := await sent.get()) != mark:
            found.append(message)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    return found


def test_it_goes_from_greeting_through_the_full_set_to_live() -> None:
    """And is closed for good."""
    one = link()
    states = [one.state]
    one.begin_full_set()
    states.append(one.state)
    one.full_set({}, {})
    states.append(one.state)
    one.close()
    one.begin_full_set()
    one.full_set({}, {})
    states.append(one.state)

    assert states == [LinkState.GREETING, LinkState.FULL_SET, LinkState.LIVE, LinkState.CLOSED]


async def test_what_changes_before_it_is_live_is_remembered_and_not_sent() -> None:
    """The full set may have been read before the change."""
    one = link()
    early = one.note_change(), one.offer_new(launch("l"), ("RUNNING", 1, b"", None, None))
    one.begin_full_set()
    one.full_set({}, {})

    assert early == (False, False)
    assert one.changed_early
    assert one.note_change()


async def test_only_what_was_not_told_yet_is_told() -> None:
    """Each change once; what could not be made is not taken for told."""
    one = link()
    one.begin_full_set()
    [full] = one.full_set(running("a", "b"), {"a": launch("a"), "b": launch("b")})
    one.offer(running("a", "b", "c", "broken"), {"c": launch("c")})
    one.offer(running("a", "b", "c", "broken"), {})
    [told] = await drain(one)

    assert [each.launch_id for each in full.assignments.assignments] == ["a", "b"]
    assert told.assignment.launch_id == "c"
    assert one.outdated(running("a", "b", "c", "broken")) == ["broken"]
    assert one.was_told(running("a", "b", "c"))
    assert not one.was_told(running("a", "b", "c", epoch=2))


def test_what_was_begun_elsewhere_and_is_not_known_is_to_stop() -> None:
    """It must not begin a second time; what the agent knows goes on."""
    one = link("known")
    found = {name: launch(name, "READY") for name in ("known", "unknown")}
    [full] = one.full_set(running("known", "unknown"), found)

    assert [(each.launch_id, each.desired) for each in full.assignments.assignments] == [
        ("known", agent_pb2.Assignment.RUNNING),
        ("unknown", agent_pb2.Assignment.STOPPED),
    ]


async def test_an_agent_that_does_not_read_is_closed() -> None:
    """What waits for it is bounded."""
    one = link()
    one.full_set({}, {})
    sent = sum(one.send(NOTICE) for _ in range(MAX_UNSENT + 5))
    one.offer(running("a"), {"a": launch("a")})

    assert sent == MAX_UNSENT
    assert isinstance(one.close_reason, errors.Unavailable)
    assert one.close_reason.reason == "LINK_SLOW"


async def test_its_holder_ends_with_the_first_close_reason() -> None:
    """A caller that waits for its end is told, too."""
    one = link()
    holding = asyncio.create_task(one.hold(asyncio.Queue[agent_pb2.LinkResponse]().put, asyncio.Event().wait))
    closed = one.closed()
    await asyncio.sleep(0)
    one.close(errors.Unavailable("first", reason=errors.Reason.LINK_REPLACED))
    one.close(errors.Unavailable("second", reason=errors.Reason.LINK_SILENT))

    with pytest.raises(errors.Unavailable, match="first"):
        await holding
    assert closed.is_set()
    assert one.closed().is_set()


async def test_a_stream_that_breaks_while_it_is_written_to_closes_it() -> None:
    """The agent dials again."""
    one = link()

    async def broken(_: agent_pb2.LinkResponse) -> None:
        raise OSError("gone")

    one.send(NOTICE)
    with pytest.raises(errors.Unavailable, match="The link is broken: gone"):
        await one.hold(broken, asyncio.Event().wait)


def test_a_report_is_accepted_when_it_says_more_than_the_last() -> None:
    """Durations alone say nothing more, unless a time limit is over."""
    one = link()
    one.full_set(running("a"), {"a": replace(launch("a", "READY"), limits=TimeLimits(max_s=60))})

    def report(ready_for_s: int, viewers: int = 0) -> Report:
        return Report(launch_id="a", epoch=1, state=Report.READY, viewers=viewers, ready_for=seconds(ready_for_s))

    accepted = [one.accept(report(1)), one.accept(report(2)), one.accept(report(3, viewers=1))]
    over = one.accept(report(61, viewers=1))
    one.expect_again("a")

    assert accepted == [True, False, True]
    assert over
    assert one.accept(report(3, viewers=1))


def test_a_launch_whose_report_was_lost_is_told_again() -> None:
    """So its agent reports again, also what it reports only when it is told."""
    one = link()
    one.full_set(running("a"), {"a": launch("a")})
    one.accept(Report(launch_id="a", epoch=1, state=Report.LOST))
    one.retry("a")

    assert one.outdated(running("a")) == ["a"]
    assert one.accept(Report(launch_id="a", epoch=1, state=Report.LOST))


def test_silence_is_measured_from_the_last_message() -> None:
    """On the clock that it is given."""
    now = [100.0]
    one = AgentLink("node-a", "one", 1, set(), monotonic=lambda: now[0])
    now[0] += 7
    before = one.silent_for()
    one.touch()
    now[0] += 2

    assert (before, one.silent_for()) == (7, 2)


def test_it_is_small() -> None:
    """Thousands are open: no attribute that is not declared, and nothing made before it is needed."""
    one = link()

    assert not hasattr(one, "__dict__")
    assert [name for name in ("_outbox", "_writer", "_closed", "_spoken") if getattr(one, name) is not None] == []
