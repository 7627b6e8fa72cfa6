"""Following changes by revision: nothing is missed and nothing told twice, whatever commits in which order.

Covers `removals` too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from footlights.lifecycle import EndReason
from footlights.store import Store, Transaction, open_store
from footlights.store.schema import SESSION, RemovalRow, SessionRow
from footlights.store.sessions import removals, session_rows
from footlights.store.sessions.feed import _DRAWN_S, _ENDED_S, BATCH, Feed, Position, holder
from tests.store.databases import clean
from tests.store.rows import NOW, S, add_version, create, create_one, creation_of, end, read


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def transaction(store: Store) -> Iterator[Transaction]:
    """Another replica's, that ends when the block does."""
    with store.engine.writer.begin() as connection:
        yield Transaction(connection, store.engine)


async def begin(store: Store, clock: Clock) -> Feed:
    return await store.read(lambda tx: Feed(Position.now(tx), clock))


async def told(store: Store, feed: Feed) -> list[str]:
    return [row.session_id for row in await store.read(feed.read)]


async def made(store: Store) -> str:
    return (await store.write(create)).session_id


async def test_changes_are_told_once_and_in_their_order(store: Store, clock: Clock) -> None:
    """What was there before is not told; what changes again is told again, as it is then."""
    before = await made(store)
    feed = await begin(store, clock)
    first = [await made(store) for _ in range(3)]
    seen = [await told(store, feed) for _ in range(2)]
    await store.write(lambda tx: session_rows.update_session(tx, read(tx, before), now=NOW, status_message="changed"))
    later = [await told(store, feed) for _ in range(2)]

    assert seen == [first, []]
    assert later == [[before], []]


async def test_more_than_a_batch_is_told_in_several(store: Store, clock: Clock) -> None:
    """A full one says that there is more."""
    feed = await begin(store, clock)
    names = await store.write(lambda tx: [create(tx, queue_limit=10_000).session_id for _ in range(BATCH + 20)])
    batches = [await told(store, feed) for _ in range(3)]

    assert [len(batch) for batch in batches] == [BATCH, 20, 0]
    assert [name for batch in batches for name in batch] == names


async def test_one_that_comes_from_elsewhere_hears_again_rather_than_not_at_all(store: Store, clock: Clock) -> None:
    """On Postgres what was seen elsewhere may be told again; on SQLite it begins exactly after it."""
    first, second = await made(store), await made(store)
    after = await store.read(lambda tx: read(tx, first).revision)
    feed = Feed(await store.read(lambda tx: Position.after(tx, after)), clock)

    assert await told(store, feed) == ([first, second] if store.shared else [second])
    assert await told(store, feed) == []


async def test_what_commits_later_with_a_smaller_revision_is_not_missed(store: Store, clock: Clock) -> None:
    """However long its transaction takes, and nothing is told twice for it."""
    only_postgres(store)
    await made(store)
    feed = await begin(store, clock)
    with transaction(store) as other:
        late = create(other)
        early = [await made(store) for _ in range(2)]
        seen = [await told(store, feed)]
        for _ in range(5):
            clock.now += _DRAWN_S
            seen.append(await told(store, feed))
    seen.append(await told(store, feed))
    clock.now += 10 * _DRAWN_S
    seen.append(await told(store, feed))

    assert late.revision < await store.read(lambda tx: read(tx, early[0]).revision)
    assert [batch for batch in seen if batch] == [early, [late.session_id]]


async def test_the_overlap_shrinks_to_what_is_new(store: Store, clock: Clock) -> None:
    """Once every transaction that could have drawn a smaller revision has ended, nothing is read again."""
    only_postgres(store)
    feed = await begin(store, clock)
    names = [await made(store) for _ in range(20)]
    assert await told(store, feed) == names
    newest = feed.position.revision
    for _ in range(3):
        clock.now += _DRAWN_S
        assert await told(store, feed) == []

    assert (feed._low, feed._seen) == (newest, {})
    after = await made(store)
    assert await told(store, feed) == [after]


async def test_a_long_transaction_elsewhere_does_not_let_the_overlap_grow_for_ever(store: Store, clock: Clock) -> None:
    """A backup that runs for hours holds up what is known for certain; after a minute it is taken for granted."""
    only_postgres(store)
    feed = await begin(store, clock)
    with store.engine.writer.begin() as connection:
        # As pg_dump does it, and with an id of its own.
        connection.execute(text("SELECT pg_current_xact_id()"))
        first = await made(store)
        assert await told(store, feed) == [first]
        for _ in range(10):
            clock.now += _DRAWN_S
            await told(store, feed)
        held = feed._low
        for _ in range(100):
            await made(store)
            clock.now += 2.0
            await told(store, feed)
        [newest] = await store.read(lambda tx: tx.execute(select(SESSION.c.revision)).scalars().all()[-1:])
        kept = len(feed._seen)
        marks = len(feed._marks)

    assert held < await store.read(lambda tx: read(tx, first).revision)
    assert feed._low > held
    assert newest - feed._low <= _ENDED_S
    assert kept <= _ENDED_S
    assert marks <= _ENDED_S


async def test_a_list_and_what_follows_leave_no_gap(store: Store, clock: Clock) -> None:
    """What a transaction had drawn before the list and commits after it is told.

    What the list has is told again only where it was written beside such a transaction.
    """
    only_postgres(store)
    before = await made(store)
    with transaction(store) as other, other.connection.begin_nested():
        # In a savepoint, as every write is: the row then bears another number than its transaction.
        late = create(other)
        listed = await made(store)
        position = await store.read(Position.now)
    after = await made(store)

    feed = Feed(position, clock)
    told_ = [await told(store, feed) for _ in range(2)]

    assert late.revision < position.revision
    assert position.session_id == listed
    assert told_ == [[late.session_id, listed, after], []]
    assert before not in told_[0]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "end", "list", "read"]), st.integers(0, 2)), max_size=30
)


@given(actions=ACTIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_commits_in_which_order_a_list_with_its_changes_is_what_there_is(
    store: Store, actions: list[tuple[str, int]]
) -> None:
    """Three writers at a time, as of several replicas, and lists and watches between any two of their steps."""

    async def run() -> None:
        clean(store)
        clock = Clock()
        await store.write(add_version)
        open_: dict[int, ExitStack] = {}
        writers: dict[int, Transaction] = {}
        rows: dict[int, list[SessionRow]] = {}
        copies: list[tuple[Feed, dict[str, int]]] = []

        def finish(writer: int) -> None:
            if writer in open_:
                open_.pop(writer).close()
                del writers[writer]

        async def read(feed: Feed, copy: dict[str, int]) -> None:
            copy.update({row.session_id: row.revision for row in await store.read(feed.read)})

        for action, number in actions:
            writer = number if store.shared else 0
            if action == "write":
                if writer not in open_:
                    open_[writer] = ExitStack()
                    writers[writer] = open_[writer].enter_context(transaction(store))
                mine = rows.setdefault(writer, [])
                with writers[writer].connection.begin_nested():
                    if len(mine) > 2:
                        mine.append(session_rows.update_session(writers[writer], mine.pop(0), now=NOW, priority=number))
                    else:
                        mine.append(create_one(writers[writer], creation_of()).session)
            elif action == "end":
                finish(writer)
            elif action == "list":
                copies.append(await store.read(lambda tx: (Feed(Position.now(tx), clock), everything(tx))))
            else:
                for feed, known in copies:
                    await read(feed, known)
                if copies:
                    # Another watch goes on where this one is.
                    feed, known = copies[-1]
                    copies[-1] = Feed(feed.position, clock), known
                clock.now += number * _DRAWN_S
        for writer in list(open_):
            finish(writer)
        for feed, known in copies:
            await read(feed, known)
            assert known == await store.read(everything)

    asyncio.run(run())


async def test_replicas_that_write_at_once_are_followed_without_a_gap(fresh: tuple[Path, str], tmp_path: Path) -> None:
    """Lists at one replica, followed at another, while both write in group commits."""
    stores = [open_store(*fresh)]
    if stores[0].shared:
        stores.append(open_store(tmp_path / "second", fresh[1]))
    try:
        await stores[0].write(add_version)
        copies: list[tuple[Feed, dict[str, int]]] = []

        async def write(store: Store) -> None:
            for _ in range(15):
                made_ = await asyncio.gather(*(store.write(lambda tx: create_one(tx, creation_of())) for _ in range(8)))
                row = made_[0].session
                await store.write(lambda tx, row=row: session_rows.update_session(tx, row, now=NOW, priority=1))  # type: ignore[misc]

        async def follow(feed: Feed, known: dict[str, int]) -> None:
            while rows := await stores[-1].read(feed.read):
                known.update({row.session_id: row.revision for row in rows})

        writing = asyncio.gather(*(write(store) for store in stores for _ in range(2)))
        while not writing.done():
            copies.append(await stores[0].read(lambda tx: (Feed(Position.now(tx), time.monotonic), everything(tx))))
            for feed, known in copies[-5:]:
                await follow(feed, known)
        await writing
        at_last = await stores[0].read(everything)
        for feed, known in copies:
            await follow(Feed(feed.position, time.monotonic), known)
            assert known == at_last
    finally:
        for store in stores:
            store.close_now()

    assert len(copies) > 5


def everything(tx: Transaction) -> dict[str, int]:
    return {row[0]: row[1] for row in tx.execute(select(SESSION.c.session_id, SESSION.c.revision))}


async def test_what_is_removed_is_told_once(store: Store, clock: Clock) -> None:
    """With its revision, among changes of sessions; a day later it is forgotten, and the floor says since when."""
    row = await store.write(create)
    await store.write(lambda tx: end(tx, row, EndReason.USER_TERMINATED, "", now=NOW))
    other = await made(store)
    position = await store.read(Position.now)
    await store.write(lambda tx: session_rows.prune(tx, before=NOW + S, now=NOW + S))
    newest = await store.read(Position.now)

    [removal] = await store.read(Feed(position, clock).read)
    of_others = await store.read(lambda tx: Feed(position, clock).read(tx, username="bob"))
    floors = [await store.read(removals.floor)]
    await store.write(lambda tx: removals.forget_old(tx, now=NOW + removals.KEPT))
    floors.append(await store.read(removals.floor))
    await store.write(lambda tx: removals.forget_old(tx, now=NOW + removals.KEPT + 2 * S))
    floors.append(await store.read(removals.floor))

    assert removal == RemovalRow(newest.revision, row.session_id, "ann", "fake", NOW + S)
    assert of_others == []
    assert floors == [0, 0, newest.revision]
    assert await store.read(lambda tx: holder(tx, position.revision)) == other
    assert await store.read(lambda tx: holder(tx, newest.revision)) == row.session_id


def only_postgres(store: Store) -> None:
    if not store.shared:
        pytest.skip("SQLite has one writer: revisions are committed in their order")
