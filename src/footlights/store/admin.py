"""What an operator does to a database: bring it up to date, look whether it is sound, copy it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from footlights import errors
from footlights.store.engines import opening as engines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROMISES = {
    "live leases without a live launch": """
        SELECT lease_id FROM lease LEFT JOIN launch ON launch.launch_id = lease.launch_id
        WHERE lease.released_time IS NULL AND (launch.launch_id IS NULL OR launch.ended_time IS NOT NULL)""",
    "live launches whose session has ended": """
        SELECT launch.launch_id FROM launch JOIN session ON session.session_id = launch.session_id
        WHERE launch.ended_time IS NULL AND session.ended_time IS NOT NULL""",
    "sessions whose launch is not there": """
        SELECT session.session_id FROM session LEFT JOIN launch ON launch.launch_id = session.launch_id
        WHERE session.launch_id IS NOT NULL AND launch.launch_id IS NULL""",
    "sessions whose state and end disagree": """
        SELECT session_id FROM session
        WHERE (state IN ('TERMINATED', 'FAILED')) <> (ended_time IS NOT NULL)""",
    "slots with two live leases": """
        SELECT node FROM lease WHERE released_time IS NULL GROUP BY node, device, slot HAVING count(*) > 1""",
}
"""What the store promises of its rows, each as a query for those that break it."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at a database has found."""

    where: str
    migration: str
    """Empty where it has no tables yet."""
    newest: str
    """The migration that this version of Footlights brings it to."""
    problems: tuple[str, ...]


def migrate(data_dir: Path, database: str = "") -> tuple[str, str]:
    """Bring the tables up to date; return from which migration ("" for none) and to which.

    SQLite's data directory is locked meanwhile, so that its server must be stopped.

    Raises:
        errors.Error: as ``open_store`` does.
    """
    release = engines.lock(data_dir) if not database else None
    try:
        with engines.opened(data_dir, database) as engine:
            before = engines.current(engine)
            engines.upgrade(engine)
            return before, engines.current(engine)
    finally:
        if release is not None:
            release()


def check(data_dir: Path, database: str = "") -> Health:
    """Look whether a database is whole, and keeps what the store promises. May run beside its server.

    Raises:
        errors.FailedPrecondition: there is none.
        errors.Unavailable: it cannot be read.
    """
    _must_exist(data_dir, database)
    with engines.opened(data_dir, database) as engine, _said(engines.shown(engine.url)):
        migration = engines.current(engine)
        with engine.connect() as connection:
            problems = tuple(_problems(connection))
        return Health(engines.shown(engine.url), migration, engines.newest(), problems)


def backup(data_dir: Path, target: Path, database: str = "") -> None:
    """Write a consistent copy of a database to a new file, beside its server if that runs.

    SQLite: another SQLite file, to be put in the place of the first. Postgres: an archive for ``pg_restore``.

    Raises:
        errors.FailedPrecondition: there is no database, the file exists, or ``pg_dump`` is not installed.
        errors.Unavailable: the database cannot be read, or the file not written.
    """
    _must_exist(data_dir, database)
    if database:
        with engines.opened(data_dir, database):
            pass  # Whatever is wrong with the URL has been said.
        if shutil.which("pg_dump") is None:
            raise errors.FailedPrecondition(
                "pg_dump is not installed here. Install Postgres' client programs, of the server's version or later.",
                reason="PG_DUMP_MISSING",
            )
    try:
        # Whoever may read the copy may read every secret in it.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        fix = "Give a new one." if isinstance(error, FileExistsError) else "Give another."
        raise errors.FailedPrecondition(
            f"The file {target} cannot be made: {error.strerror}. {fix}", reason="BACKUP_FILE_UNUSABLE"
        ) from error
    try:
        if database:
            _dump(database, target)
        else:
            _copy(data_dir / engines.DATABASE_FILE, target)
        for path in (target, target.absolute().parent):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _must_exist(data_dir: Path, database: str) -> None:
    if not database and not (data_dir / engines.DATABASE_FILE).is_file():
        raise errors.FailedPrecondition(
            f"There is no database in {data_dir}. Give the server's --data-dir, or its --database.",
            reason="DATABASE_MISSING",
            metadata={"data_dir": str(data_dir)},
        )


def _problems(connection: Connection) -> Iterator[str]:
    if connection.dialect.name == "sqlite":
        for row in connection.exec_driver_sql("PRAGMA quick_check(20)"):
            if row[0] != "ok":
                yield f"damaged: {row[0]}"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield f"{row[0]} row {row[1]} refers to a {row[2]} that is not there"
    if not inspect(connection).has_table("session"):
        yield "it has no tables: start its server, or run footlights db upgrade"
        return
    for what, query in _PROMISES.items():
        broken = [str(row[0]) for row in connection.execute(text(query))]
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            yield f"{what}: {', '.join(broken[:3])}{more}"


def _copy(source: Path, target: Path) -> None:
    try:
        connection = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
        try:
            connection.execute("VACUUM INTO ?", (str(target.absolute()),))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise errors.Unavailable(
            f"The database {source} cannot be copied: {error}", reason="STORE_UNAVAILABLE"
        ) from error


def _dump(database: str, target: Path) -> None:
    url = make_url(database).set(drivername="postgresql")
    # The password travels in the environment: other users see a command line.
    environ = {**os.environ, "PGCONNECT_TIMEOUT": str(engines.CONNECT_TIMEOUT_S)}
    if password := url.password or url.query.get("password"):
        environ["PGPASSWORD"] = str(password)
    shown = url.difference_update_query(["password"])._replace(password=None).render_as_string(hide_password=False)
    done = subprocess.run(
        ["pg_dump", "--format=custom", f"--file={target}", f"--dbname={shown}", "--no-password"],
        env=environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise errors.Unavailable(
            f"The database {shown} cannot be copied: {' '.join(done.stderr.split())}", reason="STORE_UNAVAILABLE"
        )


@contextmanager
def _said(where: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise engines.unusable(where, error) from error


__all__ = ["Health", "backup", "check", "migrate"]
