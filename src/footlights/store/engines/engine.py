"""What every engine can do, where engines differ from each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import URL, ColumnElement, Connection, Dialect, Engine, Table

    from footlights.store.engines.notify import Wakeups


class DatabaseEngine(ABC):
    """One database: its connections, and the operations for which its engine has statements of its own."""

    name: ClassVar[str]
    shared: ClassVar[bool]
    """Whether several replicas may use the database at once."""
    positional: ClassVar[Dialect]
    """Compiles statements with placeholders by position, as ``exec_driver_sql`` takes them."""

    def __init__(self, writer: Engine, reader: Engine) -> None:
        """``writer`` begins transactions that write, ``reader`` those that see one state and change nothing."""
        self.writer, self.reader = writer, reader

    @property
    def shown(self) -> str:
        """The database's URL without its password."""
        return shown(self.writer.url)

    def dispose(self) -> None:
        """Close all connections."""
        self.reader.dispose()
        self.writer.dispose()

    @abstractmethod
    def migrate(self, change: Callable[[Connection], None]) -> None:
        """Change tables on a connection, while no other process does. The change goes on where it was broken off."""

    @abstractmethod
    def next_revisions(self, connection: Connection, count: int) -> Sequence[int]:
        """Return ``count`` numbers, growing, each greater than all before; by one statement."""

    @abstractmethod
    def last_revision(self, connection: Connection) -> int:
        """Return a number that is at least as great as all that ``next_revisions`` has returned."""

    @abstractmethod
    def identity(self, connection: Connection) -> str:
        """Return what differs between this database and one that was restored from a copy of it, as far as is known."""

    @abstractmethod
    def insert_many(
        self, connection: Connection, table: Table, statement: str, rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert rows as fast as the engine can; ``statement`` is the compiled INSERT of all columns."""

    @abstractmethod
    def contains(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Return the fastest condition for texts that contain a part, in the same case."""

    @abstractmethod
    def server_time(self, connection: Connection) -> datetime | None:
        """Return the time of the database's server; None where the database runs in this process."""

    @abstractmethod
    def transactions(self, connection: Connection) -> tuple[int, int] | None:
        """Return the oldest transaction in progress and the next one to begin; None where commits keep their order."""

    @abstractmethod
    def written_since(self, column: ColumnElement[Any], transaction: int) -> ColumnElement[bool]:
        """Return the condition for rows of a column's table that this transaction or a later one wrote.

        Only where ``transactions`` is not None.
        """

    @abstractmethod
    def damage(self, connection: Connection) -> Iterator[str]:
        """Return what the engine itself finds wrong with the database."""

    @abstractmethod
    def back_up(self, target: Path) -> None:
        """Write a consistent copy over an empty file. Raises ``errors.Unavailable``."""

    @abstractmethod
    def restore(self, source: Path) -> None:
        """Put a copy that ``back_up`` wrote in the place of the database, which nobody else uses.

        Raises:
            errors.FailedPrecondition: the copy cannot be read or is damaged, or others use the database.
            errors.Unavailable: the database cannot be written.
        """

    @abstractmethod
    def wakeups(self, *, heard: Callable[[str], None], missed: Callable[[], None]) -> Wakeups:
        """Return the way to wake other replicas; only where ``shared``."""


def shown(url: URL) -> str:
    """Return a database's URL without its password, in whichever of two places that stands."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()
