"""Opening a database: which engine it needs, which servers may use it, and bringing its tables up to date."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from footlights import errors
from footlights.store.engines.postgres import PostgresEngine
from footlights.store.engines.sqlite import DATABASE_FILE, SqliteEngine, file_damage
from footlights.store.schema import COUNTER
from footlights.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from footlights.store.engines.engine import DatabaseEngine

_PASSWORD = re.compile(r"([^/:@\s]+):[^/@\s]*@")
_PASSWORD_OPTION = re.compile(r"(password=)[^&\s]*")


def open_store(data_dir: Path, database: str = "") -> Store:
    """Open the database, bring its tables up to date, and start the store.

    Raises:
        errors.FailedPrecondition: another server has the directory, it cannot be used, or the tables are of a later
            version.
        errors.InvalidArgument: the URL is not valid.
        errors.Unavailable: the database cannot be reached.
    """
    release = lock(data_dir)
    try:
        engine = _engine(data_dir, database)
        try:
            upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
    except BaseException:
        release()
        raise
    return Store(engine, on_close=release)


@contextmanager
def opened(data_dir: Path, database: str) -> Iterator[DatabaseEngine]:
    """Return an engine on a database as it is: no lock, no migration. Raises ``InvalidArgument`` for a wrong URL."""
    engine = _engine(data_dir, database)
    try:
        yield engine
    finally:
        engine.dispose()


def upgrade(engine: DatabaseEngine, to: str = "head") -> None:
    """Bring the tables to a migration, or the newest. Where others use the database, they go on meanwhile."""
    config = _config()

    def change(connection: Connection) -> None:
        whole = connection.in_transaction()
        if _needs_nothing(connection, to):
            return
        if not whole:
            # Each migration begins a transaction of its own.
            connection.rollback()
        config.attributes["connection"] = connection
        command.upgrade(config, to)

    try:
        engine.migrate(change)
    except SQLAlchemyError as error:
        raise unusable(engine.shown, error) from error


def current(engine: DatabaseEngine) -> str:
    """Return the migration that a database is at; empty where it has no tables yet."""
    try:
        with engine.writer.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""
    except SQLAlchemyError as error:
        raise unusable(engine.shown, error) from error


def newest() -> str:
    """Return the migration that ``upgrade`` brings a database to."""
    return _migrations()[0]


def unusable(where: str, error: SQLAlchemyError) -> errors.Error:
    """Return what is said of a database that cannot be used, in one line; of a damaged file, that it is."""
    cause = getattr(error, "orig", None) or error
    if damage := file_damage(where, cause):
        return damage
    text = " ".join(str(cause).split())
    return errors.Unavailable(f"The database {where} cannot be used: {text}", reason=errors.Reason.STORE_UNAVAILABLE)


def lock(data_dir: Path) -> Callable[[], None]:
    """Keep other servers out of a data directory, made where it is missing; return what lets them in again."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.FailedPrecondition(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Give another --data-dir.",
            reason=errors.LocalReason.DATA_DIR_UNUSABLE,
            metadata={"data_dir": str(data_dir)},
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise errors.FailedPrecondition(
            f"Another server has the data directory {data_dir}. Stop it, or give this one its own --data-dir.",
            reason=errors.LocalReason.DATA_DIR_LOCKED,
            metadata={"data_dir": str(data_dir)},
        ) from None
    return lambda: os.close(descriptor)


def _engine(data_dir: Path, database: str) -> DatabaseEngine:
    if not database:
        return SqliteEngine(data_dir / DATABASE_FILE)
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        text = _PASSWORD_OPTION.sub(r"\1[redacted]", _PASSWORD.sub(r"\1:[redacted]@", database))
        raise errors.InvalidArgument(
            "database", f"{text!r} is not a database URL. Write postgresql://USER@HOST/NAME, or leave it out."
        ) from None
    if url.get_backend_name() != PostgresEngine.name:
        raise errors.InvalidArgument(
            "database", f"{url.drivername!r} is not supported. Use postgresql://…, or leave it out for SQLite."
        )
    return PostgresEngine(url)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    return config


@cache
def _migrations() -> tuple[str, ...]:
    """Return all that this version knows, the newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _needs_nothing(connection: Connection, to: str) -> bool:
    """Say whether the tables are up to date, or of a later version with which this one can work.

    A migration that removes what older versions need writes the number of the oldest migration whose version can still
    work into the counter ``schema_floor``.

    Raises FailedPrecondition where this version cannot work with them.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    known = _migrations()
    if current is None or current in known:
        return to == "head" and current == known[0]
    floor = connection.execute(select(COUNTER.c.value).where(COUNTER.c.name == "schema_floor")).scalar_one_or_none()
    if floor is not None and int(max(known)) >= floor:
        return True
    raise errors.FailedPrecondition(
        f"The database is at migration {current}, which this version of Footlights does not know. "
        "Start the newer version, or restore a backup.",
        reason=errors.LocalReason.DATABASE_TOO_NEW,
        metadata={"migration": current},
    )
