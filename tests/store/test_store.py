"""Units of work: group commits, consistent reads, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from footlights import errors
from footlights.store import BatchWrite, Store, Transaction, open_store
from footlights.store.cluster.revisions import last_revision
from footlights.store.schema import SESSION
from footlights.store.sessions import session_rows
from tests.store.rows import create


def count(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(SESSION)).scalar_one())


class Gate:
    """Holds the writer inside one unit, so that what is written meanwhile shares the next commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._inside, self._open = threading.Event(), threading.Event()

    async def __aenter__(self) -> None:
        def hold(_: Transaction) -> None:
            self._inside.set()
            assert self._open.wait(10)

        self._task = asyncio.create_task(self._store.write(hold))
        assert await asyncio.to_thread(self._inside.wait, 10)

    async def __aexit__(self, *_: object) -> None:
        self._open.set()
        await self._task


def once(session_id: str) -> Callable[[Transaction], str]:
    """A unit that creates one session and returns its id."""

    def write(tx: Transaction) -> str:
        return create(tx, session_id=session_id).session_id

    return write


async def test_concurrent_writes_are_all_acknowledged_and_all_there(store: Store) -> None:
    """200 at once: each gets its own answer, and each row is there when it has it."""

    async def write(number: int) -> None:
        session_id = str(number)
        answer = await store.write(once(session_id))
        assert answer == session_id
        assert await store.read(lambda tx: session_rows.get(tx, session_id)) is not None

    await asyncio.gather(*(write(number) for number in range(200)))

    assert await store.read(count) == 200


async def test_what_arrives_during_a_commit_shares_the_next_one(store: Store) -> None:
    """Group commit: one transaction for all that waited, in the order in which they came."""
    order: list[int] = []
    connections: set[int] = set()

    def unit(number: int) -> Callable[[Transaction], None]:
        def write(tx: Transaction) -> None:
            order.append(number)
            connections.add(id(tx.connection))

        return write

    async with Gate(store):
        tasks = [asyncio.create_task(store.write(unit(number))) for number in range(50)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert order == list(range(50))
    assert len(connections) == 1


async def test_a_unit_that_fails_undoes_itself_alone(store: Store) -> None:
    """Its neighbours in the batch are committed; it leaves nothing behind and raises what it raised."""

    def spoil(tx: Transaction) -> None:
        create(tx, session_id="spoilt")
        raise errors.FailedPrecondition("no")

    async with Gate(store):
        tasks = [
            asyncio.create_task(store.write(spoil if number % 3 == 1 else once(str(number)))) for number in range(30)
        ]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [isinstance(outcome, errors.FailedPrecondition) for outcome in outcomes] == [n % 3 == 1 for n in range(30)]
    assert await store.read(count) == 20
    assert await store.read(lambda tx: session_rows.get(tx, "spoilt")) is None


async def test_a_unit_that_breaks_a_constraint_harms_no_other_of_its_batch(store: Store) -> None:
    """Also where the engine would refuse every further statement of the transaction (Postgres)."""
    async with Gate(store):
        tasks = [asyncio.create_task(store.write(once(name))) for name in ("a", "a", "b")]
        await asyncio.sleep(0)
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)

    assert (first, third) == ("a", "b")
    assert isinstance(second, errors.Conflict)
    assert await store.read(count) == 2


async def test_a_unit_alone_in_its_commit_is_undone_where_it_fails(store: Store) -> None:
    """The path without a savepoint is as strict."""

    def spoil(tx: Transaction) -> None:
        create(tx)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.write(spoil)

    assert await store.read(count) == 0
    assert await store.write(count) == 0


async def test_a_caller_that_leaves_does_not_undo_what_was_accepted(store: Store) -> None:
    """A cancelled wait says nothing of the write: it is done, and the writer lives on."""
    async with Gate(store):
        task = asyncio.create_task(store.write(once("left")))
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await store.write(count) == 1


async def test_a_read_sees_one_state_of_the_database(store: Store) -> None:
    """What commits between two statements of one read is seen by neither or by both."""
    between, written = threading.Event(), threading.Event()

    def look(tx: Transaction) -> tuple[int, int]:
        first = count(tx)
        between.set()
        assert written.wait(10)
        return first, count(tx)

    reading = asyncio.create_task(store.read(look))
    assert await asyncio.to_thread(between.wait, 10)
    await store.write(create)
    written.set()

    first, second = await reading
    assert first == second == 0


async def test_readers_do_not_wait_for_a_writer(store: Store) -> None:
    """A long write delays other writes, never a read."""
    async with Gate(store):
        assert await asyncio.wait_for(store.read(count), 5) == 0


async def test_a_read_changes_nothing(store: Store) -> None:
    """Whatever a reading unit does by mistake is refused or undone."""
    with pytest.raises(Exception):  # noqa: B017, PT011  # the engines differ in how they say it
        await store.read(lambda tx: (create(tx), 1 / 0))

    assert await store.read(count) == 0


async def test_revisions_grow_with_every_change(store: Store) -> None:
    """No two changes share a revision, and the last one is the greatest."""
    seen = [(await store.write(create)).revision for _ in range(5)]
    seen += [row.revision for row in await asyncio.gather(*(store.write(create) for _ in range(20)))]

    assert sorted(set(seen)) == sorted(seen)
    assert seen[:5] == sorted(seen[:5])
    assert await store.read(last_revision) == max(seen)


async def test_rows_that_are_read_cannot_be_changed(store: Store) -> None:
    """A row outlives its transaction and cannot be edited."""
    row = await store.write(create)

    with pytest.raises(AttributeError):
        row.state = "READY"  # type: ignore[misc]  # mypy refuses it too


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(fresh: tuple[Path, str]) -> None:
    """Everything acknowledged or accepted is there after; later writes are told that the server stops."""
    directory, url = fresh
    store = open_store(directory, url)
    async with Gate(store):
        tasks = [asyncio.create_task(store.write(create)) for _ in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
    await closing
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(errors.Unavailable, match="stopping"):
        await store.write(create)
    with pytest.raises(errors.Unavailable, match="stopping"):
        await store.read(count)
    await store.close()

    again = open_store(directory, url)
    try:
        accepted = sum(not isinstance(outcome, Exception) for outcome in outcomes)
        assert accepted == 20
        assert await again.read(count) == accepted
    finally:
        await again.close()


async def test_a_queue_that_is_full_refuses_instead_of_growing(store: Store) -> None:
    """Writes that would wait behind too many others are told when to come back."""
    small = type("Small", (Store,), {"MAX_QUEUED": 2})(store.engine)
    async with Gate(small):
        tasks = [asyncio.create_task(small.write(create)) for _ in range(5)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, errors.Unavailable)]
    assert len(refused) == 3
    assert all(error.reason == "STORE_OVERLOADED" and error.retry_after_s for error in refused)
    small._queue.put(None)
    small._thread.join()
    small._pool.shutdown()


# Joints


def joint(calls: list[list[str]], *, bad: str = "") -> BatchWrite[str, str]:
    """A joint that creates sessions by id and breaks the whole call at a bad one."""

    def write_all(tx: Transaction, items: Sequence[str]) -> list[str | errors.Error]:
        calls.append(list(items))
        for item in items:
            create(tx, session_id=item)
            if item == bad:
                raise ValueError(item)
        return [errors.FailedPrecondition("no") if item == "refused" else item for item in items]

    return BatchWrite("a test", write_all)


async def together(store: Store, *writes: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Make writes that share one commit; return their answers or failures."""
    async with Gate(store):
        tasks = [asyncio.create_task(write()) for write in writes]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_items_of_a_joint_are_written_by_one_call(store: Store) -> None:
    """At the place of the first of them, in their order; other joints and units keep theirs."""
    calls: list[list[str]] = []
    one, two = joint(calls), joint(calls)

    def unit(tx: Transaction) -> str:
        calls.append(["unit"])
        return "unit"

    answers = await together(
        store,
        lambda: store.write(unit),
        lambda: store.write_batched(one, "a"),
        lambda: store.write_batched(two, "b"),
        lambda: store.write(unit),
        lambda: store.write_batched(one, "c"),
    )

    assert answers == ["unit", "a", "b", "unit", "c"]
    assert calls == [["unit"], ["a", "c"], ["b"], ["unit"]]
    assert await store.read(count) == 3


async def test_an_item_that_breaks_its_joint_fails_alone(store: Store) -> None:
    """What the call did is undone, and each item is tried by itself."""
    calls: list[list[str]] = []
    broken = joint(calls, bad="bad")

    answers = await together(
        store,
        lambda: store.write_batched(broken, "a"),
        lambda: store.write_batched(broken, "bad"),
        lambda: store.write_batched(broken, "b"),
        lambda: store.write(once("unit")),
    )

    assert [repr(answer) for answer in answers] == ["'a'", "ValueError('bad')", "'b'", "'unit'"]
    assert calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert await store.read(count) == 3


async def test_an_error_among_the_answers_is_raised_to_its_own_caller(store: Store) -> None:
    """Nothing is undone for it: the joint has said what became of each item."""
    calls: list[list[str]] = []
    picky = joint(calls)

    answers = await together(
        store, lambda: store.write_batched(picky, "a"), lambda: store.write_batched(picky, "refused")
    )

    assert answers[0] == "a"
    assert isinstance(answers[1], errors.FailedPrecondition)
    assert len(calls) == 1


async def test_an_item_alone_in_its_commit_is_undone_where_its_joint_fails(store: Store) -> None:
    """The path without a savepoint is as strict."""
    with pytest.raises(ValueError, match="bad"):
        await store.write_batched(joint([], bad="bad"), "bad")

    assert await store.read(count) == 0


async def test_a_joint_that_answers_for_too_few_fails(store: Store) -> None:
    """Each gets its own answer."""
    short: BatchWrite[str, str] = BatchWrite("short", lambda tx, items: [])

    with pytest.raises(RuntimeError, match="short gave 0 answers to 1 items"):
        await store.write_batched(short, "a")


def test_an_error_of_the_engine_shows_no_values(store: Store) -> None:
    """It is logged as it is, and what was to be written may be anybody's name, argument or digest."""
    statement = text("SELECT no_such_column FROM session WHERE username = :username")
    for engine in (store.engine.writer, store.engine.reader):
        with engine.connect() as connection, pytest.raises(SQLAlchemyError, match="no_such_column") as caught:
            connection.execute(statement, {"username": "hush"})
        assert "hush" not in str(caught.value)
