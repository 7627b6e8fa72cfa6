"""Following sessions in frames: what there is, a mark, then every change; from a list on, and after an interruption.

Covers ``sessions.follow`` and `cursors`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from footlights.v1 import session_pb2
from sqlalchemy import event, update
from sqlalchemy import text as sql

from footlights import errors
from footlights.auth.roles import Caller, Role
from footlights.control.call.sealed import Sealer
from footlights.control.routes import Origin
from footlights.control.services.sessions.cursors import Cursors
from footlights.control.services.sessions.follow import BOOKMARK_S, Followed, SessionFollower
from footlights.store.schema import COUNTER, SESSION
from footlights.store.sessions import removals, session_rows
from tests.control.harness import Control, problem

Response = session_pb2.FollowSessionsResponse
State = session_pb2.Session.State
SET, REMOVED, SYNCED, BOOKMARK = Response.SET, Response.REMOVED, Response.SYNCED, Response.BOOKMARK


def follow(plane: Control, token: str | None = None, **members: Any) -> Any:
    return plane.stream("StreamingService.FollowSessions", session_pb2.FollowSessionsRequest(**members), token)


async def take(stream: AsyncIterator[Any], count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


async def until_synced(stream: AsyncIterator[Any]) -> list[Any]:
    frames = []
    async with asyncio.timeout(10):
        async for frame in stream:
            frames.append(frame)
            if frame.change == SYNCED:
                break
    return frames


def said(frames: list[Any]) -> list[tuple[str, str, str]]:
    return [
        (Response.Change.Name(each.change), each.session.session_id, State.Name(each.session.state)) for each in frames
    ]


async def listed(plane: Control, **members: Any) -> session_pb2.ListSessionsResponse:
    answer: session_pb2.ListSessionsResponse = await plane.call(
        "StreamingService.ListSessions", session_pb2.ListSessionsRequest(**members)
    )
    return answer


async def test_a_watch_says_what_there_is_then_what_changes(plane: Control) -> None:
    """The living as they are, the mark, then changes with the ends; every frame has a time and a cursor."""
    gone, first = await plane.create(), await plane.create()
    await plane.terminate(gone.session_id)
    async with aclosing(follow(plane)) as stream:
        begun = await until_synced(stream)
        second = await plane.create()
        await plane.terminate(first.session_id)
        changes = await take(stream, 2)

    assert said(begun) == [("SET", first.session_id, "PENDING"), ("SYNCED", "", "STATE_UNSPECIFIED")]
    assert said(changes) == [("SET", second.session_id, "PENDING"), ("SET", first.session_id, "TERMINATED")]
    assert all(frame.cursor and frame.HasField("time") for frame in (*begun, *changes))
    assert not begun[-1].HasField("session")


async def test_a_list_and_its_watch_leave_no_gap(plane: Control) -> None:
    """The list's cursor sends what changed since, and not what the list has."""
    first = await plane.create()
    page = await listed(plane)
    second = await plane.create()

    async with aclosing(follow(plane, cursor=page.cursor)) as stream:
        frames = await until_synced(stream)

    assert [item.session_id for item in page.items] == [first.session_id]
    assert said(frames) == [("SET", second.session_id, "PENDING"), ("SYNCED", "", "STATE_UNSPECIFIED")]


async def test_all_pages_of_a_list_have_the_cursor_of_the_first(plane: Control) -> None:
    """A client that reads to the end and follows from there has what changed on an earlier page meanwhile."""
    await plane.apply()
    first, *_ = [await plane.create() for _ in range(3)]
    page = await listed(plane, limit=1)
    cursors = [page.cursor]
    await plane.terminate(first.session_id)
    while page.next_page_token:
        page = await listed(plane, limit=1, page_token=page.next_page_token)
        cursors.append(page.cursor)
    async with aclosing(follow(plane, cursor=page.cursor)) as stream:
        [change] = await take(stream, 1)

    assert cursors == [cursors[0]] * 3
    assert change.session.session_id == first.session_id


@pytest.mark.parametrize("members", [{}, {"state": [State.PENDING, State.TERMINATED]}], ids=["living", "by state"])
async def test_a_watch_goes_on_from_any_frame(plane: Control, members: dict[str, Any]) -> None:
    """Also from the middle of what there was at its beginning: the rest comes, and what changed meanwhile."""
    made = [(await plane.create()).session_id for _ in range(6)]
    async with aclosing(follow(plane, **members)) as stream:
        first = await take(stream, 2)
    await plane.terminate(made[0])
    await plane.terminate(made[5])
    late = (await plane.create()).session_id
    async with aclosing(follow(plane, cursor=first[-1].cursor, **members)) as stream:
        rest = await until_synced(stream)
        more = await listed(plane)
    async with aclosing(follow(plane, cursor=rest[-1].cursor, **members)) as stream:
        again = await until_synced(stream)

    has = {frame.session.session_id: frame.session.state for frame in (*first, *rest) if frame.change == SET}
    assert has == dict.fromkeys((*made, late), State.PENDING) | {
        made[0]: State.TERMINATED,
        made[5]: State.TERMINATED,
    }
    assert [frame.change for frame in again] == [SYNCED]
    assert more.count == 5


@pytest.mark.parametrize("ends", ["by itself", "with others"])
async def test_a_change_while_the_beginning_is_sent_is_sent_once(plane: Control, ends: str) -> None:
    """What is sent as it is only after a change of it is not sent again for that change, and for the next one it is."""
    made = [(await plane.create()).session_id for _ in range(102)]
    async with aclosing(follow(plane)) as stream:
        first = await take(stream, 1)
        [last, other] = [each for each in reversed(made) if each != first[0].session.session_id][:2]
        for each in [last] if ends == "by itself" else [last, made[0], other]:
            await plane.terminate(each)
        rest = await until_synced(stream)
        late = (await plane.create()).session_id
        [after] = await take(stream, 1)

    ended = [frame for frame in (*first, *rest) if frame.session.session_id == last]
    assert [frame.session.state for frame in ended] == [State.TERMINATED]
    assert after.session.session_id == late
    told = [(frame.session.session_id, frame.session.revision) for frame in (*first, *rest) if frame.change == SET]
    assert len(told) == len(set(told))
    assert {session_id for session_id, _ in told} == set(made)


async def test_what_no_longer_matches_is_removed(plane: Control) -> None:
    """Once, with its id alone; what never matched is not mentioned."""
    pending = await plane.create()
    async with aclosing(follow(plane, state=[State.PENDING])) as stream:
        await until_synced(stream)
        await plane.agent()
        await plane.place()
        [removed] = await take(stream, 1)
        await plane.terminate(pending.session_id)
        other = await plane.create()
        [added] = await take(stream, 1)

    assert removed.change == REMOVED
    assert removed.session == session_pb2.Session(session_id=pending.session_id)
    assert said([added]) == [("SET", other.session_id, "PENDING")]


async def test_a_watch_that_resumes_removes_what_its_client_may_have(plane: Control) -> None:
    """It cannot know which: what changed and does not match is removed once."""
    session = await plane.create(labels={"team": "a"})
    cursor = (await listed(plane, state=[State.PENDING])).cursor
    agent = await plane.agent()
    await plane.place()
    async with aclosing(follow(plane, cursor=cursor, state=[State.PENDING])) as stream:
        frames = await until_synced(stream)
        await agent.ready(session.session_id)
        other = await plane.create()
        [after] = await take(stream, 1)

    assert said(frames)[:1] == [("REMOVED", session.session_id, "STATE_UNSPECIFIED")]
    assert after.session.session_id == other.session_id


@pytest.mark.parametrize(
    ("members", "matching"),
    [
        ({"label": ["team=a"]}, "a"),
        ({"label": ["team=a", "stage=x"]}, ""),
        ({"filter": 'labels.team = "a" AND priority = 0'}, "a"),
        ({"filter": "NOT labels:team"}, "b"),
        ({"username": "ann"}, "a"),
        ({"username": "ann", "filter": "username = bob"}, ""),
        ({"application": "fake"}, "ab"),
        ({"application": "other"}, ""),
        ({"filter": 'node = "node-a"'}, ""),
        ({"filter": "state = TERMINATED"}, "c"),
        ({"filter": "end_reason:*", "username": "bob"}, "c"),
        ({"state": [State.TERMINATED, State.PENDING]}, "abc"),
    ],
    ids=str,
)
async def test_a_watch_is_about_what_it_asks_for(plane: Control, members: dict[str, Any], matching: str) -> None:
    """By user, application, state, label and filter, alone and together."""
    service = await plane.token("SERVICE", "portal")
    made = {
        "a": await plane.create(service, username="ann", labels={"team": "a"}),
        "b": await plane.create(service, username="bob"),
        "c": await plane.create(service, username="bob"),
    }
    await plane.terminate(made["c"].session_id)
    names = {session.session_id: name for name, session in made.items()}

    async with aclosing(follow(plane, service, **members)) as stream:
        frames = await until_synced(stream)

    assert "".join(sorted(names[frame.session.session_id] for frame in frames[:-1])) == matching


async def test_others_sessions_are_invisible(plane: Control) -> None:
    """Their changes and their removal too, whatever is asked for; another user's name is refused."""
    ann, bob = await plane.token(subject="ann"), await plane.token(subject="bob")
    his = await plane.create(bob)
    cursor = (await listed(plane, username="ann", state=[State.READY])).cursor
    async with aclosing(follow(plane, ann, state=[State.READY], cursor=cursor)) as stream:
        await until_synced(stream)
        await plane.terminate(his.session_id)
        await plane.store.write(
            lambda tx: session_rows.prune(tx, before=plane.clock() + timedelta(days=1), now=plane.clock())
        )
        hers = await plane.create(ann)
        [frame] = await take(stream, 1)

    assert said([frame]) == [("REMOVED", hers.session_id, "STATE_UNSPECIFIED")]
    with pytest.raises(errors.PermissionDenied, match="username: 'bob' is not you"):
        await take(follow(plane, ann, username="bob"), 1)
    with pytest.raises(errors.NotFound):
        await take(follow(plane, ann, session_id=his.session_id), 1)


async def test_one_session_is_followed_to_its_end(plane: Control) -> None:
    """Then the stream ends; so does one that begins after the end, or resumes after it."""
    agent = await plane.agent()
    session = await plane.create()
    await plane.create()
    async with aclosing(follow(plane, session_id=session.session_id)) as stream, asyncio.timeout(10):
        frames = await until_synced(stream)
        await plane.place()
        assignment = await agent.ready(session.session_id)
        await plane.terminate(session.session_id)
        await agent.report(assignment, "EXITED", exit_code=0)
        frames += [frame async for frame in stream]
    again = [frame async for frame in follow(plane, session_id=session.session_id)]
    resumed = [frame async for frame in follow(plane, session_id=session.session_id, cursor=frames[-1].cursor)]

    assert [frame.change for frame in frames[:2]] == [SET, SYNCED]
    assert {frame.session.session_id for frame in frames if frame.change == SET} == {session.session_id}
    assert frames[-1].session.state == State.TERMINATED
    assert [frame.change for frame in again] == [SET, SYNCED]
    assert [frame.change for frame in resumed] == [SYNCED]
    with pytest.raises(errors.NotFound, match="there is no session"):
        await take(follow(plane, session_id="01a229b6-80d2-7710-a573-ea3f49d8c69c"), 1)


async def test_a_silent_watch_says_that_it_lives(plane: Control) -> None:
    """And its cursor has moved on past what it did not mention."""
    async with aclosing(follow(plane, filter="application = other")) as stream:
        [synced] = await until_synced(stream)
        session = await plane.create()
        plane.clock.pass_s(BOOKMARK_S)
        plane.plane.signals.sessions.publish()
        [bookmark] = await take(stream, 1)
    async with aclosing(follow(plane, cursor=synced.cursor, filter="application = other")) as stream:
        before = await until_synced(stream)
    async with aclosing(follow(plane, cursor=bookmark.cursor, filter="application = other")) as stream:
        after = await until_synced(stream)

    assert bookmark.change == BOOKMARK
    assert not bookmark.HasField("session")
    assert [frame.session.session_id for frame in before] == [session.session_id, ""]
    assert [frame.change for frame in after] == [SYNCED]


# Removed by retention, and restored


async def _ended(plane: Control) -> str:
    session = await plane.create()
    await plane.terminate(session.session_id)
    return session.session_id


async def _prune(plane: Control) -> None:
    now = plane.clock()
    await plane.store.write(lambda tx: session_rows.prune(tx, before=now + timedelta(days=1), now=now))
    plane.plane.signals.sessions.publish()


async def test_what_retention_removes_is_removed(plane: Control) -> None:
    """For a watch that is there, and for one that comes back."""
    old = await _ended(plane)
    cursor = (await listed(plane, filter="state = TERMINATED")).cursor
    async with aclosing(follow(plane, filter="state = TERMINATED")) as stream:
        begun = await until_synced(stream)
        await _prune(plane)
        told = await take(stream, 1)
    async with aclosing(follow(plane, cursor=cursor, filter="state = TERMINATED")) as stream:
        resumed = await until_synced(stream)

    assert said(begun)[0] == ("SET", old, "TERMINATED")
    assert said(told) == said(resumed)[:1] == [("REMOVED", old, "STATE_UNSPECIFIED")]


async def test_a_cursor_from_before_what_is_forgotten_is_gone(plane: Control) -> None:
    """A day after sessions were removed nobody knows which; a newer cursor is as good as before."""
    await _ended(plane)
    cursor = (await listed(plane)).cursor
    await _prune(plane)
    newer = (await listed(plane)).cursor
    await plane.store.write(
        lambda tx: removals.forget_old(tx, now=plane.clock() + removals.KEPT + timedelta(seconds=1))
    )

    with pytest.raises(errors.OutOfRange, match="it is not known any more which") as caught:
        await take(follow(plane, cursor=cursor), 1)
    for good in (newer, (await listed(plane)).cursor):
        async with aclosing(follow(plane, cursor=good)) as stream:
            assert [frame.change for frame in await until_synced(stream)] == [SYNCED]

    assert caught.value.reason == "CURSOR_GONE"


async def test_a_cursor_of_a_database_that_was_restored_is_gone(plane: Control) -> None:
    """Not silence without end: one that has not come so far, and one that has another session there."""
    await plane.create()
    cursor = (await listed(plane)).cursor
    await plane.store.write(
        lambda tx: tx.execute(update(SESSION).values(session_id="00000000-0000-7000-8000-000000000000")) and None
    )
    other = await plane.rest("GET", "/v1/sessions:watch", params={"cursor": cursor})
    await plane.store.write(
        lambda tx: tx.execute(update(COUNTER).where(COUNTER.c.name == "revision").values(value=0)) and None
    )
    behind = await plane.rest("GET", "/v1/sessions:watch", headers={"last-event-id": cursor})

    for answer in (other, behind):
        assert answer.status_code == 400
        assert (problem(answer)["code"], problem(answer)["reason"]) == (11, "CURSOR_GONE")
    assert "has reached revision 0" in behind.text


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("WatchSessions", session_pb2.WatchSessionsRequest(after_revision=1000)),
        ("WatchSession", session_pb2.WatchSessionRequest(session_id="x", after_revision=1000)),
    ],
    ids=["all", "one"],
)
async def test_a_revision_that_was_never_reached_is_refused_by_the_watches_of_before(
    plane: Control, method: str, request_: Any
) -> None:
    """They waited without end."""
    with pytest.raises(errors.OutOfRange, match="has reached revision") as caught:
        await take(plane.stream(f"StreamingService.{method}", request_), 1)

    assert caught.value.reason == "CURSOR_GONE"


async def test_what_is_no_cursor_is_refused(plane: Control) -> None:
    """A page token too: each text is good for one use."""
    for _ in range(2):
        await plane.create()
    page = await listed(plane, limit=1)

    for text in ("x", page.cursor[:-2], page.cursor.swapcase(), page.next_page_token):
        with pytest.raises(errors.InvalidArgument, match="is not a cursor of this server") as caught:
            await take(follow(plane, cursor=text), 1)
        assert (caught.value.field, caught.value.reason) == ("cursor", "INVALID_CURSOR")


async def test_a_cursor_is_good_for_the_sessions_that_it_is_of(plane: Control) -> None:
    """Others would be missing without a word; members that are written in another order are the same."""
    states = [State.READY, State.PENDING]
    whole = (await listed(plane)).cursor
    some = (await listed(plane, state=states, username="ann")).cursor
    async with aclosing(follow(plane, label=["a=b"])) as stream:
        [synced] = await until_synced(stream)

    for cursor, members in (
        (some, {}),
        (whole, {"filter": "priority > 3"}),
        (whole, {"username": "ann"}),
        (some, {"state": states[:1], "username": "ann"}),
        (synced.cursor, {"label": ["a=c"]}),
    ):
        with pytest.raises(errors.InvalidArgument, match="is of a list or a watch with other filters") as caught:
            await take(follow(plane, cursor=cursor, **members), 1)
        assert (caught.value.field, caught.value.reason) == ("cursor", "INVALID_CURSOR")
    async with aclosing(follow(plane, await plane.token(subject="ann"), cursor=some, state=states[::-1])) as stream:
        assert [frame.change for frame in await until_synced(stream)] == [SYNCED]


async def test_following_living_states_reads_no_history(plane: Control) -> None:
    """By a state or by a filter: as many statements with 5,000 sessions that have ended as with none."""

    async def statements(**members: Any) -> int:
        met: list[str] = []

        def note(*arguments: Any) -> None:
            met.append(arguments[2])

        for engine in {plane.store.engine.writer, plane.store.engine.reader}:
            event.listen(engine, "before_cursor_execute", note)
        try:
            async with aclosing(follow(plane, **members)) as stream:
                await until_synced(stream)
        finally:
            for engine in {plane.store.engine.writer, plane.store.engine.reader}:
                event.remove(engine, "before_cursor_execute", note)
        return sum("FROM session" in each for each in met)

    asked: list[dict[str, Any]] = [
        {"state": [State.READY]},
        {"filter": "state = READY OR state = PENDING"},
        {"filter": "NOT (state = TERMINATED OR state = FAILED)"},
    ]
    before = [await statements(**members) for members in asked]
    session = await plane.create()
    await plane.terminate(session.session_id)
    columns = SESSION.c.keys()
    copied = ["'old-' || n" if name == "session_id" else "n + 1000" if name == "revision" else name for name in columns]
    await plane.store.write(
        lambda tx: tx.execute(
            sql(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000) "
                f"INSERT INTO session ({', '.join(columns)}) SELECT {', '.join(copied)} FROM session, numbers"
            )
        )
    )
    after = [await statements(**members) for members in asked]
    history = await statements(state=[State.TERMINATED])

    assert all(now <= then + 2 for now, then in zip(after, before, strict=True)), (before, after)
    assert history > 50


async def test_a_caller_has_a_bounded_number_of_watches(plane: Control) -> None:
    """One that was closed makes room."""
    follower = SessionFollower(
        plane.store,
        plane.plane.signals,
        Cursors(Sealer(plane.key.keys("pages"))),
        Origin("x", 1),
        clock=plane.clock,
        monotonic=plane.clock.monotonic,
        most_per_caller=1,
    )
    ann, bob = Caller("ann", Role.DEVELOPER, "1"), Caller("bob", Role.DEVELOPER, "2")
    async with (
        aclosing(follower.follow(Followed(), ann, "")) as first,
        aclosing(follower.follow(Followed(), bob, "")) as other,
    ):
        await take(first, 1)
        await take(other, 1)
        with pytest.raises(errors.Exhausted, match="ann has 1 watches") as caught:
            await take(follower.follow(Followed(), ann, ""), 1)
    async with aclosing(follower.follow(Followed(), ann, "")) as again:
        await take(again, 1)

    assert caught.value.reason == "TOO_MANY_WATCHES"


async def test_over_rest_a_frame_is_a_line_or_an_event(plane: Control) -> None:
    """The same frame; the event's id is the cursor, from which Last-Event-ID goes on."""
    session_id = await _ended(plane)
    path = f"/v1/sessions/{session_id}:watch"

    ndjson = await plane.rest("GET", path)
    events = await plane.rest("GET", path, headers={"accept": "text/event-stream"})
    lines = [json.loads(line)["result"] for line in ndjson.text.splitlines()]
    datas = [json.loads(line[5:]) for line in events.text.splitlines() if line.startswith("data:")]
    ids = [line[3:].strip() for line in events.text.splitlines() if line.startswith("id:")]
    resumed = await plane.rest("GET", path, headers={"last-event-id": ids[-1]})

    for frames in (lines, datas):
        assert [frame["change"] for frame in frames] == ["SET", "SYNCED"]
        assert frames[0]["session"]["state"] == "TERMINATED"
    assert [frame["cursor"] for frame in datas] == ids
    assert [json.loads(line)["result"]["change"] for line in resumed.text.splitlines()] == ["SYNCED"]
