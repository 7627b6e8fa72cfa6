"""Writes of two replicas at the same time: one is run again, and its caller does not notice (`applications`)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import insert, text, update

from footlights import errors
from footlights.store import Store, Transaction, applications, open_store
from footlights.store.nodes import identities, node_rows
from footlights.store.schema import NODE, NodeRow
from footlights.store.sessions import session_rows
from tests.store.databases import Postgres
from tests.store.rows import NOW, add_version, create, create_one, creation_of, join, read
from tests.system.stack import until


@pytest.fixture
def url(a_postgres: Postgres) -> str:
    made = a_postgres.create()
    with psycopg.connect(made, autocommit=True) as connection:
        # Long enough that both wait by then, whatever else this machine does.
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET deadlock_timeout = '2s'".encode())
    return made


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "data", url)
    yield store
    store.close_now()


def touch(tx: Transaction, *names: str) -> str:
    """Lock nodes in this order."""
    for name in names:
        tx.execute(update(NODE).where(NODE.c.node == name).values(incarnation="touched"))
    return ",".join(names)


def waiting(tx: Transaction) -> int:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return int(tx.execute(text(statement)).scalar_one())


@pytest.mark.parametrize("together", [1, 3])
async def test_a_write_that_crosses_anothers_is_tried_again(shared: Store, url: str, together: int) -> None:
    """Its caller learns nothing of it, nor do others that share its commit."""
    for name in ("node-a", "node-b", "node-c"):
        await shared.write(lambda tx, name=name: join(tx, name))  # type: ignore[misc]
    gate = threading.Event()
    held = asyncio.create_task(shared.write(lambda _: gate.wait(10)))
    await until(lambda: asyncio.to_thread(lambda: shared.queued == 0), what="the writer is held")
    with psycopg.connect(url) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("UPDATE node SET incarnation = 'other' WHERE node = 'node-a'")
        writes = [asyncio.create_task(shared.write(lambda tx: touch(tx, "node-b", "node-a")))]
        writes += [asyncio.create_task(shared.write(lambda tx: touch(tx, "node-c"))) for _ in range(together - 1)]
        await asyncio.sleep(0)
        gate.set()
        await until(lambda: shared.read(lambda tx: waiting(tx) == 1), what="the write waits for the other one")
        crossing = asyncio.to_thread(other.execute, "UPDATE node SET incarnation = 'other' WHERE node = 'node-b'")
        await asyncio.wait_for(crossing, 20)
        other.commit()

    assert await held
    assert await asyncio.gather(*writes) == ["node-b,node-a", *["node-c"] * (together - 1)]


async def test_a_change_that_another_was_faster_with_is_made_on_what_is_there_then(shared: Store) -> None:
    """Of a session that one process reads while another one changes it."""
    session_id = (await shared.write(create)).session_id
    runs: list[int] = []

    def change(tx: Transaction) -> None:
        session = read(tx, session_id)
        runs.append(session.revision)
        if len(runs) == 1:
            with shared.engine.writer.begin() as connection:
                other = Transaction(connection, shared.engine)
                session_rows.update_session(other, read(other, session_id), now=NOW, status_message="the other's")
        session_rows.update_session(tx, session, now=NOW, username="mine")

    await shared.write(change)
    after = await shared.read(lambda tx: read(tx, session_id))

    assert (after.status_message, after.username) == ("the other's", "mine")
    assert len(runs) == 2
    assert runs[0] < runs[1]


async def test_what_stays_untrue_is_told_at_last(shared: Store) -> None:
    """It is run again so often and no more."""
    session = await shared.write(create)
    await shared.write(lambda tx: session_rows.update_session(tx, session, now=NOW, username="somebody else"))
    runs: list[None] = []

    def stale(tx: Transaction) -> None:
        runs.append(None)
        session_rows.update_session(tx, session, now=NOW, username="mine")

    with pytest.raises(errors.Conflict, match="was changed at the same time"):
        await shared.write(stale)
    assert len(runs) == 1 + Store.MAX_RETRIES


async def test_what_another_made_at_the_same_time_is_found(shared: Store) -> None:
    """Both would make it; the one that comes second looks again."""
    runs: list[bool] = []
    made: list[NodeRow] = []

    def make(tx: Transaction) -> None:
        known = node_rows.get(tx, "node-a") is not None
        runs.append(known)
        if len(runs) == 1:
            with shared.engine.writer.begin() as connection:
                made.append(join(Transaction(connection, shared.engine), "node-a"))
        if not known:
            tx.execute(insert(NODE), [made[0]._asdict()])

    await shared.write(make)

    assert runs == [False, True]


async def test_who_enrolls_a_node_undoes_no_revocation_of_the_same_moment(shared: Store) -> None:
    """It waits for what has looked at the identity and goes on to write it, also where there was none."""
    revoking: list[threading.Thread] = []

    def revoke() -> None:
        with shared.engine.writer.begin() as connection:
            identities.revoke(Transaction(connection, shared.engine), "a", now=NOW)

    def blocked() -> int:
        with (
            shared.engine.writer.connect() as connection
        ):  # a transaction sees who waits as it was when it looked first
            return waiting(Transaction(connection, shared.engine))

    def enroll(tx: Transaction) -> None:
        assert identities.locked(tx, "a").revoked_time is None
        revoking.append(threading.Thread(target=revoke))
        revoking[0].start()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and revoking[0].is_alive() and not blocked():
            time.sleep(0.01)
        identities.enroll(tx, "a", "one", now=NOW, expire_time=NOW, authority="ours")

    await shared.write(enroll)
    await asyncio.to_thread(revoking[0].join)

    assert await shared.read(identities.standing) == {"a": ("one", True)}


async def test_a_version_is_not_removed_under_a_session_that_is_being_created(shared: Store) -> None:
    """Who removes it waits for the session and counts it; nothing runs a version that is not there."""
    await shared.write(add_version)

    def remove(tx: Transaction) -> int:
        applications.remove_version(tx, "fake", "1.0.0")
        return applications.live_session_count(tx, "fake", "1.0.0")[0]

    with shared.engine.writer.connect() as connection:
        create_one(Transaction(connection, shared.engine), creation_of())
        removal = asyncio.create_task(shared.write(remove))
        await until(lambda: shared.read(lambda tx: waiting(tx) == 1), what="the removal waits for the session")
        connection.commit()

    assert await removal == 1


async def test_what_fails_for_another_reason_is_not_tried_again(shared: Store) -> None:
    """It would fail again."""
    calls: list[None] = []

    def fails(tx: Transaction) -> None:
        calls.append(None)
        tx.execute(text("SELECT no_such_column FROM node"))

    with pytest.raises(Exception, match="no_such_column") as caught:
        await shared.write(fails)

    assert not isinstance(caught.value, errors.Conflict)
    assert len(calls) == 1
