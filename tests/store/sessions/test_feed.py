"""Following changes by revision: nothing is missed and nothing told twice, whatever commits in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select, text

from footlights.store import Store, Transaction
from footlights.store.schema import SESSION
from footlights.store.sessions import session_rows
from footlights.store.sessions.feed import _DRAWN_S, _ENDED_S, BATCH, Feed
from tests.store.rows import NOW, create, read


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
    return await store.read(lambda tx: Feed.now(tx, clock))


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
    feed = Feed(after, clock)

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
    newest = feed.revision
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


def only_postgres(store: Store) -> None:
    if not store.shared:
        pytest.skip("SQLite has one writer: revisions are committed in their order")
