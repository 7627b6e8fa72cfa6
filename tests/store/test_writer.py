"""What callers are told of failures, and what is accepted while the store closes (`store`)."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import exc, func, select, text

from footlights import errors
from footlights.store import Store, Transaction, open_store
from footlights.store.schema import SESSION
from footlights.store.writer import translate
from tests.store.rows import create

Fresh = tuple[Path, str]


def wrapped(error: Exception) -> Exception:
    """An error of psycopg's as SQLAlchemy passes it on."""
    return exc.DBAPIError.instance("SELECT 1", None, error, psycopg.Error)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (wrapped(psycopg.errors.AdminShutdown("terminating connection")), errors.Unavailable),
        (wrapped(psycopg.errors.CannotConnectNow("the database system is starting up")), errors.Unavailable),
        (wrapped(psycopg.errors.FeatureNotSupported("read-write mode during recovery")), errors.Unavailable),
        (wrapped(psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE")), errors.Unavailable),
        (wrapped(psycopg.errors.IdleInTransactionSessionTimeout("stood still")), errors.Unavailable),
        (wrapped(psycopg.errors.TooManyConnections("too many clients")), errors.Unavailable),
        (wrapped(psycopg.InterfaceError("closed")), errors.Unavailable),
        (psycopg.OperationalError("no route to host"), errors.Unavailable),
        (sqlite3.OperationalError("unable to open database file"), errors.Unavailable),
        (exc.DatabaseError("SELECT 1", None, sqlite3.DatabaseError("image is malformed")), errors.Unavailable),
        (exc.TimeoutError("QueuePool limit"), errors.Unavailable),
        (exc.PendingRollbackError("invalid transaction"), errors.Unavailable),
        (wrapped(psycopg.errors.UniqueViolation("duplicate key")), errors.Conflict),
        (wrapped(psycopg.errors.UndefinedTable('relation "term" does not exist')), errors.Internal),
        (wrapped(psycopg.errors.InsufficientPrivilege("permission denied")), errors.Internal),
        (wrapped(psycopg.errors.NumericValueOutOfRange("out of range")), errors.Internal),
    ],
)
def test_whatever_the_database_raises_is_one_of_our_errors(error: Exception, told: type[errors.Error]) -> None:
    """By its kind; the message is the database's own, and the cause is kept for the log."""
    found = translate(error)

    assert type(found) is told
    assert found.__cause__ is error


def test_what_is_not_the_databases_stays_as_it_is() -> None:
    """A unit's own errors, and errors of ours."""
    for error in (ValueError("no"), errors.NotFound("no")):
        assert translate(error) is error


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_refused_statement_is_told_without_the_statement(store: Store, way: str) -> None:
    """The message names what is wrong, not what was to be run."""

    def unit(tx: Transaction) -> None:
        tx.execute(text("SELECT no_such_column FROM session"))

    with pytest.raises(errors.Error, match="no_such_column") as caught:
        await (store.read(unit) if way == "read" else store.write(unit))

    assert "SELECT" not in caught.value.message


def test_everything_accepted_while_the_store_closes_is_finished(fresh: Fresh) -> None:
    """From many threads: each write and read is answered or refused, none waits forever, none is lost."""
    store = open_store(*fresh)
    acknowledged: list[int] = []
    odd: list[BaseException] = []
    begun = threading.Barrier(5)

    async def busy() -> int:
        done = 0
        while True:
            try:
                await store.write(create)
                done += 1
                await store.read(lambda tx: tx.execute(select(func.count()).select_from(SESSION)).scalar_one())
            except errors.Unavailable as error:
                if error.reason != "SERVER_STOPPING":
                    raise
                return done

    def work() -> None:
        begun.wait()
        try:
            acknowledged.append(asyncio.run(asyncio.wait_for(busy(), 60)))
        except BaseException as error:
            odd.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    closers = [threading.Thread(target=store.close_now) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in (*threads, *closers):
        thread.join(90)

    assert odd == []
    assert len(acknowledged) == 4
    again = open_store(*fresh)
    try:
        with again.engine.reader.connect() as connection:
            assert connection.execute(select(func.count()).select_from(SESSION)).scalar_one() == sum(acknowledged)
    finally:
        again.close_now()


async def test_an_observer_that_fails_does_not_stop_the_writer(fresh: Fresh) -> None:
    """Every later write would wait forever."""
    store = open_store(*fresh)
    seen: list[float] = []

    def fails(_: float) -> None:
        raise ValueError("no")

    store.observe_commits(fails)
    store.observe_commits(seen.append)
    await store.write(create)
    await store.write(create)
    await store.close()

    assert len(seen) == 2
