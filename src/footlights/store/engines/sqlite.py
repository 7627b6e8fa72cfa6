"""SQLite: one file that one server has alone; readers never wait for its one writer (WAL)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from footlights import errors
from footlights.linux import files
from footlights.store.engines.engine import DatabaseEngine
from footlights.store.schema import COUNTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy.engine import ExceptionContext

    from footlights.store.engines.notify import Wakeups

DATABASE_FILE = "footlights.db"

_REVISION = "revision"
_BUMP = (
    update(COUNTER)
    .where(COUNTER.c.name == _REVISION)
    .values(value=COUNTER.c.value + bindparam("count"))
    .returning(COUNTER.c.value)
)


class SqliteEngine(DatabaseEngine):
    """A database file, which no other server may use: see ``opening.lock``."""

    name = "sqlite"
    shared = False
    positional = SQLiteDialect_pysqlite(paramstyle="qmark")

    def __init__(self, path: Path) -> None:
        self._path = path
        url = URL.create("sqlite", database=str(path))
        writer, reader = (create_engine(url, hide_parameters=True) for _ in range(2))
        for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
            event.listen(engine, "connect", _set_up)
            event.listen(engine, "begin", _beginner(begin))
            event.listen(engine, "handle_error", _drop_after_io_error)
        event.listen(writer, "connect", _checkpoint)
        super().__init__(writer, reader)

    def migrate(self, change: Callable[[Connection], None]) -> None:
        """Make it one transaction. The data directory is locked."""
        with self.writer.begin() as connection:
            change(connection)

    def next_revisions(self, connection: Connection, count: int) -> Sequence[int]:
        """Count in a row: without gaps, in commit order."""
        last = connection.execute(_BUMP, {"count": count}).scalar_one_or_none()
        if last is None:
            connection.execute(insert(COUNTER).values(name=_REVISION, value=count, text=""))
            last = count
        return range(int(last) - count + 1, int(last) + 1)

    def last_revision(self, connection: Connection) -> int:
        """Read the counter."""
        last = select(COUNTER.c.value).where(COUNTER.c.name == _REVISION)
        return int(connection.execute(last).scalar_one_or_none() or 0)

    def identity(self, connection: Connection) -> str:
        """Name the file: a copy that took its place is another one."""
        return str(self._path.stat().st_ino)

    def insert_many(
        self, connection: Connection, table: Table, statement: str, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert by ``executemany``."""
        connection.exec_driver_sql(statement, list(rows))

    def contains(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Use ``instr``: LIKE takes several times as long."""
        return func.instr(column, part) > 0

    def server_time(self, connection: Connection) -> None:
        """Return None: its clock is this process's."""

    def transactions(self, connection: Connection) -> None:
        """Return None: there is one writer."""

    def written_since(self, column: ColumnElement[Any], transaction: int) -> ColumnElement[bool]:
        """Raise: commits keep their order."""
        raise NotImplementedError("there is one writer")

    def damage(self, connection: Connection) -> Iterator[str]:
        """Check pages, and references from table to table."""
        for row in connection.exec_driver_sql("PRAGMA quick_check(20)"):
            if row[0] != "ok":
                yield f"damaged: {row[0]}"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield f"{row[0]} row {row[1]} refers to a {row[2]} that does not exist"

    def back_up(self, target: Path) -> None:
        """Write another SQLite file, which can take the place of the first."""
        try:
            connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
            try:
                connection.execute("VACUUM INTO ?", (str(target.absolute()),))
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise file_damage(self.shown, error) or errors.Unavailable(
                f"The database {self._path} cannot be copied: {error}", reason=errors.Reason.STORE_UNAVAILABLE
            ) from error

    def restore(self, source: Path) -> None:
        """Copy the file; what was there before stays beside it, as ``footlights.db.replaced-TIME``."""
        _check_copy(source)
        path = self._path.absolute()
        draft, now = path.with_name(f"{path.name}.restoring"), int(time.time())
        try:
            draft.unlink(missing_ok=True)
            files.create_file(draft, b"")
            with source.open("rb") as copied, draft.open("wb") as copy:
                shutil.copyfileobj(copied, copy)
                copy.flush()
                os.fsync(copy.fileno())
            # The log first: with another database it would be read as its newest pages.
            for suffix in ("-wal", "-shm", ""):
                old = path.with_name(path.name + suffix)
                if old.exists():
                    old.replace(path.with_name(f"{path.name}.replaced-{now}{suffix}"))
            draft.replace(path)
            files.sync_directory(path.parent)
        except OSError as error:
            raise errors.Unavailable(
                f"The database {path} cannot be written: {error.strerror}", reason=errors.Reason.STORE_UNAVAILABLE
            ) from error

    def wakeups(self, *, heard: Callable[[str], None], missed: Callable[[], None]) -> Wakeups:
        """Raise: no other replica can use the database."""
        raise NotImplementedError("a SQLite database has no other replicas")


_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def file_damage(where: str, error: BaseException) -> errors.FailedPrecondition | None:
    """Return what is said of a database file that is damaged; None where the error is another."""
    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF not in _DAMAGED:
        return None
    return errors.FailedPrecondition(
        f"The database {where} is damaged: {error}. Keep the file for what can still be read, and restore a backup: "
        'see "Back up and restore" in docs/runbook.md.',
        reason=errors.LocalReason.DATABASE_DAMAGED,
    )


def _check_copy(source: Path) -> None:
    try:
        connection = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        finally:
            connection.close()
        problem = "" if found == ["ok"] and tables == (1,) else "it is damaged, or no copy of a Footlights database"
    except sqlite3.Error as error:
        problem = str(error)
    if problem:
        raise errors.FailedPrecondition(
            f"The copy {source} cannot be restored: {problem}. Nothing was changed. Give another copy.",
            reason=errors.LocalReason.BACKUP_FILE_UNUSABLE,
        )


def _set_up(connection: Any, _record: object) -> None:
    # The driver's own transactions begin too late and too weakly: ours are begun by the ``begin`` event.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 5000",
        "wal_autocheckpoint = 4000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _checkpoint(connection: Any, _record: object) -> None:
    """Bring what an interrupted writer has left to the disk before anything builds on it.

    A commit whose sync has failed may appear when the log is next read, and be in memory only: the kernel reports once
    that it could not write a page. Copied into the database it is synced again, or this fails and nothing is begun.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the log of changes could not be brought to the disk: others are reading it")


def _drop_after_io_error(context: ExceptionContext) -> None:
    """Drop a connection whose disk has failed: what it has in memory may differ from what is on the disk."""
    code = getattr(context.original_exception, "sqlite_errorcode", sqlite3.SQLITE_OK)
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        context.is_disconnect = True


def _beginner(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin
