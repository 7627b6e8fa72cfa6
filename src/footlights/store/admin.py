"""What an operator does to a database: migrate it, check it, back it up, restore it."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from footlights import errors
from footlights.lifecycle import EndReason
from footlights.store.engines import opening
from footlights.store.engines.sqlite import DATABASE_FILE
from footlights.store.sessions import session_rows
from footlights.store.store import Store
from footlights.store.unit import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from footlights.store.engines.engine import DatabaseEngine

_PAGE = 500
_WAITED = (
    "It waited for a device when the backup was made that was restored now, and what became of it since is not known. "
    "Create it again if it is still wanted."
)

_INVARIANTS = {
    "live leases without a live launch": """
        SELECT lease_id FROM lease LEFT JOIN launch ON launch.launch_id = lease.launch_id
        WHERE lease.released_time IS NULL AND (launch.launch_id IS NULL OR launch.ended_time IS NOT NULL)""",
    "live launches whose session has ended": """
        SELECT launch.launch_id FROM launch JOIN session ON session.session_id = launch.session_id
        WHERE launch.ended_time IS NULL AND session.ended_time IS NOT NULL""",
    "sessions whose launch does not exist": """
        SELECT session.session_id FROM session LEFT JOIN launch ON launch.launch_id = session.launch_id
        WHERE session.launch_id IS NOT NULL AND launch.launch_id IS NULL""",
    "sessions whose state and end disagree": """
        SELECT session_id FROM session
        WHERE (state IN ('TERMINATED', 'FAILED')) <> (ended_time IS NOT NULL)""",
    "slots with two live leases": """
        SELECT node FROM lease WHERE released_time IS NULL GROUP BY node, device, slot HAVING count(*) > 1""",
}
"""What the store guarantees of its rows, each as a query for those that break it."""


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """What a check of a database has found."""

    where: str
    migration: str
    """Empty where it has no tables yet."""
    newest: str
    """The migration that this version of Footlights brings it to."""
    problems: tuple[str, ...]


def migrate(data_dir: Path, database: str = "") -> tuple[str, str]:
    """Bring the tables up to date; return from which migration ("" for none) and to which.

    SQLite's data directory is locked meanwhile, so that its server must be stopped.

    Raises as ``open_store`` does.
    """
    release = opening.lock(data_dir) if not database else None
    try:
        with opening.opened(data_dir, database) as engine:
            before = opening.current(engine)
            opening.upgrade(engine)
            return before, opening.current(engine)
    finally:
        if release is not None:
            release()


def check(data_dir: Path, database: str = "") -> DatabaseCheck:
    """Check that a database is undamaged and its rows consistent. May run beside its server.

    Raises FailedPrecondition where there is none; Unavailable where it cannot be read.
    """
    _must_exist(data_dir, database)
    with opening.opened(data_dir, database) as engine, _reported(engine.shown):
        migration = opening.current(engine)
        with engine.writer.connect() as connection:
            problems = tuple(_problems(engine, connection))
        return DatabaseCheck(engine.shown, migration, opening.newest(), problems)


@contextmanager
def reading(data_dir: Path, database: str = "") -> Iterator[Transaction]:
    """Read a database as it is, beside its servers.

    Raises FailedPrecondition where there is none, or its tables are not of this version; Unavailable where it cannot be
    read.
    """
    _must_exist(data_dir, database)
    with opening.opened(data_dir, database) as engine, _reported(engine.shown):
        if (found := opening.current(engine)) != opening.newest():
            raise errors.FailedPrecondition(
                f"{engine.shown} is at migration {found or 'none'}, and this version reads {opening.newest()}. Upgrade "
                "its servers, or use the version that they are of.",
                reason=errors.LocalReason.DATABASE_OF_OTHER_VERSION,
            )
        with engine.writer.connect() as connection:
            yield Transaction(connection, engine)


def backup(data_dir: Path, target: Path, database: str = "") -> None:
    """Write a consistent copy of a database to a new file, beside its server if that runs.

    SQLite: another SQLite file, to be put in the place of the first. Postgres: an archive for ``pg_restore``.

    Raises:
        errors.FailedPrecondition: there is no database, the file exists, or ``pg_dump`` is not installed.
        errors.Unavailable: the database cannot be read, or the file not written.
    """
    _must_exist(data_dir, database)
    with opening.opened(data_dir, database) as engine:
        _make(target)
        try:
            engine.back_up(target)
            for path in (target, target.absolute().parent):
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def restore(data_dir: Path, source: Path, database: str = "") -> int:
    """Put a copy in the place of a database that no server uses, and end the sessions that wait in it.

    What became of a session that waited when the copy was made is not known: it may have run, and its user may have
    ended it. Sessions that had a launch end as their agents report. Return how many were ended.

    Raises as ``DatabaseEngine.restore`` and ``open_store`` do.
    """
    if not source.is_file():
        raise errors.FailedPrecondition(
            f"There is no file {source}. Give one that footlights db backup has written.",
            reason=errors.LocalReason.BACKUP_FILE_UNUSABLE,
        )
    release = None if database else opening.lock(data_dir)
    try:
        with opening.opened(data_dir, database) as engine:
            engine.restore(source)
            opening.upgrade(engine)
            return asyncio.run(_end_all_waiting(engine))
    finally:
        if release is not None:
            release()


async def _end_all_waiting(engine: DatabaseEngine) -> int:
    store, ended = Store(engine), 0
    try:
        while some := await store.write(_end_waiting):
            ended += some
    finally:
        await store.close()
    return ended


def _end_waiting(tx: Transaction) -> int:
    waiting = session_rows.pending_page(tx, _PAGE).sessions
    ends = [(row, EndReason.USER_TERMINATED, _WAITED) for row in waiting]
    return len(session_rows.end_waiting(tx, ends, now=datetime.now(UTC)))


def _make(target: Path) -> None:
    try:
        # The copy holds every secret of the database.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        fix = "Give a new one." if isinstance(error, FileExistsError) else "Give another."
        raise errors.FailedPrecondition(
            f"The file {target} cannot be created: {error.strerror}. {fix}",
            reason=errors.LocalReason.BACKUP_FILE_UNUSABLE,
        ) from error


def _must_exist(data_dir: Path, database: str) -> None:
    if not database and not (data_dir / DATABASE_FILE).is_file():
        raise errors.FailedPrecondition(
            f"There is no database in {data_dir}. Give the server's --data-dir, or its --database.",
            reason=errors.LocalReason.DATABASE_MISSING,
            metadata={"data_dir": str(data_dir)},
        )


def _problems(engine: DatabaseEngine, connection: Connection) -> Iterator[str]:
    yield from engine.damage(connection)
    if not inspect(connection).has_table("session"):
        yield "it has no tables: start its server, or run footlights db upgrade"
        return
    for what, query in _INVARIANTS.items():
        broken = [str(row[0]) for row in connection.execute(text(query))]
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            yield f"{what}: {', '.join(broken[:3])}{more}"


@contextmanager
def _reported(where: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise opening.unusable(where, error) from error
