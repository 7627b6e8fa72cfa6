"""Following, watching and waiting for sessions, of scripted servers (`sessions`, `resuming`, `session_states`)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from footlights.v1 import session_pb2

from footlights.client import Client, DeadlineExceeded, SessionOver
from footlights.errors import (
    Conflict,
    Error,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    Reason,
    Unauthenticated,
    Unavailable,
)
from tests.client.standin import Frame, Standin, frame, frames

S = session_pb2.Session
Request = session_pb2.FollowSessionsRequest


@pytest.fixture
def standin() -> Iterator[Standin]:
    yield from Standin().serve()


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[Client]:
    async with Client.connect(standin.address, "fl_secret") as client:
        yield client


def session(state: S.State.ValueType, revision: int, **members: Any) -> S:
    return S(session_id="s1", state=state, revision=revision, **members)


def gone() -> Error:
    return OutOfRange("Changes after it are not known.", reason=Reason.CURSOR_GONE)


def turns(*answers: Callable[[], Iterator[Frame]]) -> Callable[[Any], Iterator[Frame]]:
    """A script with an answer for each stream that is opened."""
    left = iter(answers)
    return lambda _: next(left)()


def lost(*sent: Frame, error: Error | None = None) -> Callable[[], Iterator[Frame]]:
    """A stream that breaks off after some frames."""

    def answer() -> Iterator[Frame]:
        yield from sent
        raise error or Unavailable("restarting")

    return answer


async def test_following_resumes_where_it_was(standin: Standin, client: Client) -> None:
    """From the cursor of the last frame, also of one without a session; what was asked for is asked for again."""
    bookmark = Frame(change=Frame.BOOKMARK, cursor="c3")
    second = frame(session(S.READY, 5), cursor="c4")
    standin.on("FollowSessions", turns(lost(frame(session(S.PENDING, 4), "c2"), bookmark), lost(second), lost()))
    request = Request(filter="priority > 3", label=["team=b"], cursor="c1")

    async with asyncio.timeout(10), aclosing(client.sessions.follow(request)) as stream:
        seen = [await anext(stream) for _ in range(3)]

    assert [(each.change, each.cursor) for each in seen] == [
        (Frame.SET, "c2"),
        (Frame.BOOKMARK, "c3"),
        (Frame.SET, "c4"),
    ]
    assert [each.cursor for each in standin.requests("FollowSessions")[:2]] == ["c1", "c3"]
    assert {each.filter for each in standin.requests("FollowSessions")} == {"priority > 3"}
    assert request.cursor == "c1"


async def test_a_cursor_that_is_gone_ends_it_with_that_error(standin: Standin, client: Client) -> None:
    """Nothing is left out silently: of the caller's own cursor, and of one that got too old meanwhile."""
    standin.on("FollowSessions", gone())
    with pytest.raises(OutOfRange) as caught:
        await anext(client.sessions.follow(Request(cursor="c1")))
    assert caught.value.reason == "CURSOR_GONE"

    standin.on("FollowSessions", turns(lost(frame(session(S.READY, 1), "c1")), lost(error=gone())))
    with pytest.raises(OutOfRange) as caught:
        async for _ in client.sessions.follow():
            pass
    assert caught.value.reason == "CURSOR_GONE"


async def test_a_caller_who_wants_to_start_over_is_told_and_does(standin: Standin, client: Client) -> None:
    """It is called before the first frame of the new beginning, which has no cursor."""
    again = frame(session(S.READY, 2), "c9")
    standin.on("FollowSessions", turns(lost(error=gone()), lost(again), lost()))
    known = ["what was"]

    async with (
        asyncio.timeout(10),
        aclosing(client.sessions.follow(Request(cursor="c1"), start_over=known.clear)) as on,
    ):
        seen = await anext(on)

    assert (seen.cursor, known) == ("c9", [])
    assert [request.cursor for request in standin.requests("FollowSessions")] == ["c1", ""]


async def test_following_one_session_ends_with_it(standin: Standin, client: Client) -> None:
    """All that the stream says is told, SYNCED too; also if the connection is lost after the end."""
    ended, synced = frame(session(S.TERMINATED, 2), "c2"), Frame(change=Frame.SYNCED, cursor="c3")
    for script in (frames(session(S.READY, 1), ended, synced), turns(lost(ended, synced))):
        standin.on("FollowSessions", script)
        async with asyncio.timeout(10):
            seen = [each async for each in client.sessions.follow(Request(session_id="s1"))]
        assert seen[-2:] == [ended, synced]
    assert len(standin.requests("FollowSessions")) == 2


@pytest.mark.parametrize(
    "request_",
    [Request(cursor="of a list"), Request(state=[S.READY]), Request(filter="priority > 3")],
    ids=["cursor", "state", "filter"],
)
async def test_following_a_session_that_is_over_ends_without_telling_of_it(
    standin: Standin, client: Client, request_: Request
) -> None:
    """Its end was before the cursor, or does not match: the server says so by ending the stream."""
    request_.session_id = "s1"
    synced = Frame(change=Frame.SYNCED, cursor="c3")
    standin.on("FollowSessions", turns(lost(frame(session(S.READY, 1), "c2")), lambda: iter([synced])))

    async with asyncio.timeout(10):
        seen = [each.change async for each in client.sessions.follow(request_)]

    assert seen == [Frame.SET, Frame.SYNCED]
    assert len(standin.requests("FollowSessions")) == 2


async def test_streams_that_the_server_ends_at_once_are_not_opened_in_a_row(standin: Standin, client: Client) -> None:
    """Each is opened after a longer pause than the one before, whatever they say."""
    standin.on("FollowSessions", frames(Frame(change=Frame.SYNCED, cursor="c1")))
    clock = asyncio.get_running_loop().time
    began = clock()

    async with asyncio.timeout(10), aclosing(client.sessions.follow()) as stream:
        told = [(await anext(stream), clock() - began)[1] for _ in range(4)]

    assert told[3] >= 0.2 + 0.4 + 0.8


async def test_a_watch_that_the_server_ends_too_early_is_an_error(standin: Standin, client: Client) -> None:
    """Those who wait for a state are told that it will not be seen."""
    standin.on("FollowSessions", frames(session(S.STARTING, 1)))

    with pytest.raises(Unavailable) as caught:
        await client.sessions.wait_ready("s1", timeout_s=5)

    assert "STARTING" in caught.value.message


async def test_a_watch_survives_a_lost_connection(standin: Standin, client: Client) -> None:
    """It goes on from the last cursor, and drops what was there already."""
    rounds = itertools.count()

    def answer(_: Any) -> Iterator[Frame]:
        turn = next(rounds)
        if turn == 0:
            yield frame(session(S.PENDING, 4), "c4")
            yield frame(session(S.STARTING, 5), "c5")
            raise Unavailable("restarting")
        if turn == 1:
            yield frame(session(S.STARTING, 5), "c5")
            raise Unavailable("restarting again")
        yield frame(session(S.READY, 6), "c6")
        yield frame(session(S.TERMINATED, 7), "c7")

    standin.on("FollowSessions", answer)

    async with asyncio.timeout(10), aclosing(client.sessions.watch("s1")) as changes:
        seen = [change.revision async for change in changes]

    assert seen == [4, 5, 6, 7]
    assert [request.cursor for request in standin.requests("FollowSessions")] == ["", "c5", "c5"]


async def test_a_watch_starts_over_where_its_cursor_is_gone(standin: Standin, client: Client) -> None:
    """Of one session nothing is missed by that; one that was removed meanwhile is not found."""
    script = turns(
        lost(frame(session(S.READY, 9), "c9")),
        lost(error=gone()),
        lost(frame(session(S.READY, 3), "c3"), Frame(change=Frame.REMOVED, session=S(session_id="s1"))),
    )
    standin.on("FollowSessions", script)
    changes = client.sessions.watch("s1")

    async with asyncio.timeout(10):
        seen = [(await anext(changes)).revision for _ in range(2)]
        with pytest.raises(NotFound):
            await anext(changes)

    assert seen == [9, 3]


async def test_a_watch_of_what_is_not_there_fails_at_once(standin: Standin, client: Client) -> None:
    """NOT_FOUND, a bad token and a server that does not answer are raised: only a watch that ran is resumed."""
    for error in (NotFound("no"), Unauthenticated("no"), Unavailable("no"), Conflict("no")):
        standin.on("FollowSessions", error)
        with pytest.raises(type(error)):
            async for _ in client.sessions.watch("s1"):
                pass


async def test_waiting_sees_every_step_until_ready(standin: Standin, client: Client) -> None:
    """wait_ready follows the watch and returns the session that can be connected to."""
    standin.on("FollowSessions", frames(session(S.PENDING, 1), session(S.STARTING, 2), session(S.READY, 3, node="n")))
    steps: list[int] = []

    ready = await client.sessions.wait_ready("s1", timeout_s=5, on_change=lambda s: steps.append(s.revision))

    assert (ready.node, steps) == ("n", [1, 2, 3])


@pytest.mark.parametrize("state", [S.TERMINATING, S.TERMINATED, S.FAILED])
async def test_waiting_for_a_session_that_ends_instead_says_how(
    standin: Standin, client: Client, state: S.State.ValueType
) -> None:
    """SessionOver carries the session, and its message the state, the reason and what the server said."""
    over = session(state, 2, end_reason=S.CRASHED, status_message="exit 3")
    standin.on("FollowSessions", frames(session(S.STARTING, 1), over))

    with pytest.raises(SessionOver) as caught:
        await client.sessions.wait_ready("s1", timeout_s=5)

    assert caught.value.session.end_reason == S.CRASHED
    assert "CRASHED" in caught.value.message
    assert "exit 3" in caught.value.message


async def test_waiting_ends_at_its_deadline(standin: Standin, client: Client) -> None:
    """The refusal names the state it is still in."""

    def forever(_: Any) -> Iterator[Frame]:
        yield frame(session(S.PENDING, 1))
        standin.stopping.wait(5)

    standin.on("FollowSessions", forever)

    with pytest.raises(DeadlineExceeded) as caught:
        await client.sessions.wait_ready("s1", timeout_s=1.5)
    standin.stopping.set()

    assert "PENDING" in caught.value.message
    assert caught.value.reason == "WAIT_TIMEOUT"


async def test_waiting_for_the_end_passes_terminating(standin: Standin, client: Client) -> None:
    """wait_ended returns when the device is free, not when the end was asked for."""
    standin.on("FollowSessions", frames(session(S.TERMINATING, 1), session(S.TERMINATED, 2)))

    assert (await client.sessions.wait_ended("s1", timeout_s=5)).state == S.TERMINATED


async def test_connecting_watches_a_session_instead_of_retrying(standin: Standin, client: Client) -> None:
    """A session that is not ready is refused once; with a time to wait the client watches it, then connects once."""
    refusal = FailedPrecondition("The session is STARTING.", reason=Reason.SESSION_NOT_READY)
    standin.on("ConnectSession", refusal)
    with pytest.raises(FailedPrecondition) as refused:
        await client.sessions.connect("s1")
    assert refused.value.reason == "SESSION_NOT_READY"
    assert len(standin.requests("ConnectSession")) == 1

    standin.on("ConnectSession", session_pb2.ConnectSessionResponse(token="grant"))
    standin.on("FollowSessions", frames(session(S.STARTING, 1), session(S.READY, 2)))

    assert (await client.sessions.connect("s1", wait_s=10)).token == "grant"
    assert len(standin.requests("ConnectSession")) == 2
