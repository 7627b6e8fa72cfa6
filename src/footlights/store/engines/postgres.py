"""Postgres: one database for all replicas, reached by psycopg."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    bindparam,
    cast,
    create_engine,
    event,
    exc,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from footlights import errors
from footlights.store.engines.engine import DatabaseEngine
from footlights.store.engines.notify import Wakeups
from footlights.store.schema import REVISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

log = structlog.get_logger(__name__)

_TIMEOUTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How long a server that does not answer is waited for, unless the URL says otherwise."""

_IDLE_S = 3
"""How long a transaction may stand still: a replica that is stopped in the middle of one would hold up the others by
its locks. Less than the time after which these others, who wait, are taken for gone."""

_SCHEMA_LOCK = 0x466F6F75
"""The key of the advisory lock under which tables are changed; any number that nothing else uses. Not that of the
releases that waited for it (0x466F6F74): an index that is built beside others would wait for them in turn."""

_SCHEMA_LOCK_WAIT_S = 0.2
"""How long a change of tables waits for a lock on one: everybody who comes later waits behind it."""
_SCHEMA_PAUSES_S = (0.5, 1, 2, 4, *([8] * 75))
"""After each attempt that got none; ten minutes in all, in which a backup may end."""
_MAY_PASS = ("55P03", "40P01")
"""The states of ``lock_not_available`` and ``deadlock_detected``."""

_NEXT = select(REVISIONS.next_value()).select_from(func.generate_series(1, bindparam("count")))
_LAST: Select[Any] = select(literal_column("last_value")).select_from(text("revision_seq"))
_TABLE = select(cast(literal_column("'session'::regclass::oid"), String))
_TIMELINE = select(func.left(func.pg_walfile_name(func.pg_current_wal_lsn()), 8))
_IDS = 1 << 32
"""How many ids of transactions there are in a row's own columns."""
_SNAPSHOT = func.pg_current_snapshot()
_TRANSACTIONS = select(cast(func.pg_snapshot_xmin(_SNAPSHOT), String), cast(func.pg_snapshot_xmax(_SNAPSHOT), String))


class PostgresEngine(DatabaseEngine):
    """A database on a server. Every connection to it is made with the options of its URL."""

    name = "postgresql"
    shared = True
    positional = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]

    def __init__(self, url: URL) -> None:
        """Use the database of a URL. Raises ``errors.FailedPrecondition`` where the driver is not installed."""
        defaults = {name: value for name, value in _TIMEOUTS.items() if name not in url.query}
        try:
            writer = create_engine(
                url.set(drivername="postgresql+psycopg"),
                isolation_level="READ COMMITTED",
                pool_size=6,
                hide_parameters=True,
                connect_args=defaults,
            )
        except ModuleNotFoundError as error:
            raise errors.FailedPrecondition(
                f"Postgres needs a driver that is not installed ({error.name}): pip install 'footlights[postgres]'.",
                reason=errors.LocalReason.DRIVER_MISSING,
            ) from error
        event.listen(writer, "connect", _set_up)
        # A reading unit makes several statements and must see one state of the database.
        reader = writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        super().__init__(writer, reader)
        self._identity: str | None = None
        event.listen(writer, "connect", self._met)
        self._parameters: dict[str, Any] = {**defaults, **writer.dialect.create_connect_args(writer.url)[1]}

    def migrate(self, change: Callable[[Connection], None]) -> None:
        """Wait for no lock for long, and try again: others go on meanwhile. Replicas that start together take turns.

        Outside of transactions, as are those who wait for their turn: an index that is built beside others waits for
        every transaction that began before.
        """
        with self.writer.connect() as turn, self.writer.connect() as connection:
            turn.execution_options(isolation_level="AUTOCOMMIT")
            while not turn.execute(select(func.pg_try_advisory_lock(_SCHEMA_LOCK))).scalar_one():
                time.sleep(_SCHEMA_LOCK_WAIT_S)
            try:
                self._retried(connection, change)
            finally:
                # The settings and the lock end with the connections.
                connection.invalidate()
                turn.invalidate()

    @staticmethod
    def _retried(connection: Connection, change: Callable[[Connection], None]) -> None:
        for pause_s in (*_SCHEMA_PAUSES_S, None):
            connection.exec_driver_sql(f"SET lock_timeout = '{round(_SCHEMA_LOCK_WAIT_S * 1000)}ms'")
            connection.commit()
            try:
                change(connection)
            except exc.OperationalError as error:
                if pause_s is None or getattr(error.orig, "sqlstate", None) not in _MAY_PASS:
                    raise
                log.warning("migration_waits", error=" ".join(str(error.orig).split()), retry_s=pause_s)
                connection.rollback()
                time.sleep(pause_s)
            else:
                return

    def next_revisions(self, connection: Connection, count: int) -> Sequence[int]:
        """Draw from a sequence: others may commit smaller ones later."""
        return sorted(connection.execute(_NEXT, {"count": count}).scalars())

    def last_revision(self, connection: Connection) -> int:
        """Read the sequence."""
        return int(connection.execute(_LAST).scalar_one())

    def identity(self, connection: Connection) -> str:
        """Name the table, which a restored dump creates again, and the timeline, which a recovery begins."""
        if self._identity is None:
            table = connection.execute(_TABLE).scalar_one()
            try:
                with connection.begin_nested():
                    timeline = connection.execute(_TIMELINE).scalar_one()
            except exc.SQLAlchemyError:
                # Some hosted databases do not say.
                timeline = ""
            self._identity = f"{table}-{timeline}"
        return self._identity

    def insert_many(
        self, connection: Connection, table: Table, statement: str, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert by COPY, which takes a third of the time of separate inserts, and a seventh of the driver's."""
        driver: Any = connection.dialect.dbapi
        raw: Any = connection.connection.driver_connection
        statement = f"COPY {table.name} ({', '.join(table.c.keys())}) FROM STDIN"
        try:
            with raw.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
        except driver.Error as error:
            raise _as_core_says(error, statement) from error

    def contains(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Use ``strpos``."""
        return func.strpos(column, part) > 0

    def server_time(self, connection: Connection) -> datetime:
        """Ask the server, which all replicas share."""
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment

    def transactions(self, connection: Connection) -> tuple[int, int]:
        """Read them from the snapshot."""
        oldest, following = connection.execute(_TRANSACTIONS).one()
        return int(oldest), int(following)

    def written_since(self, column: ColumnElement[Any], transaction: int) -> ColumnElement[bool]:
        """Compare with the transaction that Postgres keeps in each row, whose numbers begin again after 32 bits."""
        table: Any = getattr(column, "table", None)
        wrote = cast(cast(literal_column(f"{table.name}.xmin"), String), BigInteger)
        return (wrote - transaction % _IDS + _IDS) % _IDS < _IDS // 2

    def damage(self, connection: Connection) -> Iterator[str]:
        """Find nothing: Postgres checks its own pages."""
        return iter(())

    def back_up(self, target: Path) -> None:
        """Write an archive for ``pg_restore``."""
        self._run("pg_dump", "--format=custom", f"--file={target}", problem="cannot be copied")

    def restore(self, source: Path) -> None:
        """Have ``pg_restore`` replace the tables, all or none."""
        with self.writer.connect() as connection:
            others = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).scalar_one()
        if others:
            raise errors.FailedPrecondition(
                f"The database {self.shown} has {others} other connections. Stop every server first.",
                reason=errors.LocalReason.DATABASE_IN_USE,
            )
        self.writer.dispose()
        self._run(
            *("pg_restore", "--clean", "--if-exists", "--single-transaction", "--no-owner", str(source)),
            problem="cannot be restored",
        )

    def _run(self, program: str, *arguments: str, problem: str) -> None:
        """Run one of Postgres' own programs on the database."""
        if shutil.which(program) is None:
            raise errors.FailedPrecondition(
                f"{program} is not installed. Install Postgres' client programs, of the server's version or later.",
                reason=errors.LocalReason.PG_DUMP_MISSING,
            )
        from psycopg.conninfo import make_conninfo

        # The password travels in the environment: other users can see a command line.
        parameters = {name: value for name, value in self._parameters.items() if name not in ("password", "context")}
        environ = {**os.environ}
        if password := self._parameters.get("password"):
            environ["PGPASSWORD"] = str(password)
        done = subprocess.run(
            [program, f"--dbname={make_conninfo(**parameters)}", "--no-password", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise errors.Unavailable(
                f"The database {self.shown} {problem}: {' '.join(done.stderr.split())}",
                reason=errors.Reason.STORE_UNAVAILABLE,
            )

    def wakeups(self, *, heard: Callable[[str], None], missed: Callable[[], None]) -> Wakeups:
        """Return LISTEN and NOTIFY on connections of their own."""
        return Wakeups(self._parameters, heard=heard, missed=missed)

    def _met(self, _connection: object, _record: object) -> None:
        # After a failover the next connection is to another server.
        self._identity = None


def _set_up(connection: Any, _record: object) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_S}s'")
    connection.commit()


def _as_core_says(error: Exception, statement: str) -> exc.DBAPIError:
    """Return the error that SQLAlchemy would have made of one of the driver's."""
    for kind in type(error).__mro__:
        known = getattr(exc, kind.__name__, None)
        if isinstance(known, type) and issubclass(known, exc.DBAPIError):
            return known(statement, None, error)
    return exc.DBAPIError(statement, None, error)
