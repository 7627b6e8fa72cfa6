"""Opening a database: which engine, how it is set up, and who else may have it."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from footlights import errors
from footlights.store.schema import COUNTER
from footlights.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATABASE_FILE = "footlights.db"

CONNECT_TIMEOUT_S = 10
_POSTGRES: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How long a Postgres that does not answer is waited for."""

_IDLE_S = 3
"""How long a transaction may stand still: a replica that was stopped in the middle of one would hold others up by its
locks for as long as it is stopped. Less than the time after which these others, who wait, are taken for gone."""

_MIGRATION_LOCK = 0x466F6F74
"""The key of the advisory lock under which tables are changed; any number that nobody else uses."""

_PASSWORD = re.compile(r"([^/:@\s]+):[^/@\s]*@")
_PASSWORD_OPTION = re.compile(r"(password=)[^&\s]*")


def open_store(data_dir: Path, database: str = "") -> Store:
    """Open the database, bring its tables up to date, and start the store.

    Args:
        data_dir: The server's own directory, made where it is missing, mode 0700. SQLite's file lies in it, and its
            lock keeps a second server out.
        database: Empty for SQLite in ``data_dir``, or a URL such as ``postgresql://user@host/name``.

    Raises:
        errors.FailedPrecondition: another server has the directory, it cannot be used, or the tables are of a later
            version.
        errors.InvalidArgument: the URL cannot be understood.
        errors.Unavailable: the database cannot be reached.
    """
    release = lock(data_dir)
    try:
        writer, reader = _engines(data_dir, database)
        try:
            upgrade(writer)
        except BaseException:
            reader.dispose()
            writer.dispose()
            raise
    except BaseException:
        release()
        raise
    return Store(writer, reader, on_close=release)


def upgrade(engine: Engine, to: str = "head") -> None:
    """Bring the tables to a migration, or the newest, in one transaction."""
    config = _config()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Replicas that start together migrate in turn: the lock goes with the transaction.
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if _is_later(connection, config):
                return
            config.attributes["connection"] = connection
            command.upgrade(config, to)
    except SQLAlchemyError as error:
        raise unusable(shown(engine.url), error) from error


def current(engine: Engine) -> str:
    """Return the migration that a database is at; empty where it has no tables yet."""
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""
    except SQLAlchemyError as error:
        raise unusable(shown(engine.url), error) from error


def newest() -> str:
    """Return the migration that ``upgrade`` brings a database to."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


@contextmanager
def opened(data_dir: Path, database: str) -> Iterator[Engine]:
    """Return an engine on a database as it is: no lock, no migration. Raises ``InvalidArgument`` for a wrong URL."""
    writer, reader = _engines(data_dir, database)
    try:
        yield writer
    finally:
        reader.dispose()
        writer.dispose()


def shown(url: URL) -> str:
    """Return a database's URL without its password, in whichever of two places that stands."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


def unusable(where: str, error: SQLAlchemyError) -> errors.Unavailable:
    """Return what is said of a database that cannot be used, in one line."""
    cause = " ".join(str(getattr(error, "orig", None) or error).split())
    return errors.Unavailable(f"The database {where} cannot be used: {cause}", reason="STORE_UNAVAILABLE")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    return config


def _is_later(connection: Connection, config: Config) -> bool:
    """Say whether the tables are of a later version, which has left them so that this one can work with them.

    A migration that takes away what older versions need writes the number of the oldest that is left into the counter
    ``schema_floor``.

    Raises:
        errors.FailedPrecondition: this version cannot work with them.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is None or current in known:
        return False
    floor = connection.execute(select(COUNTER.c.value).where(COUNTER.c.name == "schema_floor")).scalar_one_or_none()
    if floor is not None and int(max(known)) >= floor:
        return True
    raise errors.FailedPrecondition(
        f"The database is at migration {current}, which this version of Footlights does not know. "
        "Start the newer version, or restore a backup.",
        reason="DATABASE_TOO_NEW",
        metadata={"migration": current},
    )


def _engines(data_dir: Path, database: str) -> tuple[Engine, Engine]:
    if not database:
        return _sqlite(data_dir / DATABASE_FILE)
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        text = _PASSWORD_OPTION.sub(r"\1[redacted]", _PASSWORD.sub(r"\1:[redacted]@", database))
        raise errors.InvalidArgument(
            "database", f"{text!r} is not a database URL. Write postgresql://USER@HOST/NAME, or leave it out."
        ) from None
    if url.get_backend_name() != "postgresql":
        raise errors.InvalidArgument(
            "database", f"{url.drivername!r} is not supported. Use postgresql://…, or leave it out for SQLite."
        )
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_size=6,
            hide_parameters=True,
            connect_args={name: value for name, value in _POSTGRES.items() if name not in url.query},
        )
    except ModuleNotFoundError as error:
        raise errors.FailedPrecondition(
            f"Postgres needs a driver that is not installed ({error.name}): pip install 'footlights[postgres]'.",
            reason="DRIVER_MISSING",
        ) from error
    event.listen(engine, "connect", _set_up_postgres)
    # A reading unit makes several statements and must see one state of the database, as SQLite gives it by itself.
    return engine, engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _set_up_postgres(connection: Any, _record: Any) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_S}s'")
    connection.commit()


def _sqlite(path: Path) -> tuple[Engine, Engine]:
    """Two engines on one file: SQLite has one writer, and readers that it never blocks (WAL)."""
    url = URL.create("sqlite", database=str(path))
    writer, reader = (create_engine(url, hide_parameters=True) for _ in range(2))
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _beginner(begin))
        event.listen(engine, "handle_error", _distrust)
    event.listen(writer, "connect", _settle)
    return writer, reader


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions begin too late and too weakly: ours are begun by the event below.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 5000",
        "wal_autocheckpoint = 4000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _settle(connection: Any, _record: Any) -> None:
    """Bring what an interrupted writer has left onto the disk before anybody builds on it.

    A commit whose sync has failed may come to light when the log is next read, and lie in memory only: the kernel says
    once that it could not write a page. Copied into the database it is synced anew, or this fails and nothing is begun.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the log of changes could not be brought to the disk: others are reading it")


def _distrust(context: ExceptionContext) -> None:
    """Drop a connection whose disk has failed: what it has in memory may be other than what is on the disk."""
    code = getattr(context.original_exception, "sqlite_errorcode", sqlite3.SQLITE_OK)
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        context.is_disconnect = True


def _beginner(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin


def lock(data_dir: Path) -> Callable[[], None]:
    """Keep other servers out of a data directory, made where it is missing; return what lets them in again."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.FailedPrecondition(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Give another --data-dir.",
            reason="DATA_DIR_UNUSABLE",
            metadata={"data_dir": str(data_dir)},
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise errors.FailedPrecondition(
            f"Another server has the data directory {data_dir}. Stop it, or give this one its own --data-dir.",
            reason="DATA_DIR_LOCKED",
            metadata={"data_dir": str(data_dir)},
        ) from None
    return lambda: os.close(descriptor)
