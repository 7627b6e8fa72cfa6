"""What work is made of: a transaction, units that run in it, and batch writes, whose items are written together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import structlog
from sqlalchemy import Select, Table, select, tuple_

from footlights import errors
from footlights.store.schema import RowT, table_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable, Result

    from footlights.store.engines.engine import DatabaseEngine

log = structlog.get_logger(__name__)
T = TypeVar("T")
Item = TypeVar("Item")
Answer = TypeVar("Answer")

UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)
"""What decoding a stored value raises where it is not what its column says, such as text that is not JSON."""


class Changed(errors.Conflict):
    """Another process has changed a row since this transaction read it: its unit may see it when it is run again."""


class Transaction:
    """One open transaction, in the thread that runs its unit."""

    __slots__ = ("connection", "engine")

    def __init__(self, connection: Connection, engine: DatabaseEngine) -> None:
        self.connection, self.engine = connection, engine

    def execute(self, statement: Executable, parameters: Any = None) -> Result[*tuple[Any, ...]]:
        """Run one statement; ``parameters`` may be a list, for many rows at once."""
        return self.connection.execute(statement, parameters)

    def one(self, statement: Executable, row: type[RowT], parameters: Any = None) -> RowT | None:
        """Return the first row; None where there is none. Raises Internal where it cannot be decoded."""
        result = self.connection.execute(statement, parameters)
        try:
            found = result.first()
        except UNREADABLE as error:
            raise errors.Internal(
                f"A row of {_name(row)} cannot be decoded: {error}", reason=errors.Reason.ROW_UNREADABLE
            ) from error
        return None if found is None else row._make(found)

    def all(self, statement: Executable, row: type[RowT], parameters: Any = None) -> list[RowT]:
        """Return all rows except those that cannot be decoded, each of which is logged."""
        return self.readable(statement, row, parameters).rows

    def readable(self, statement: Executable, row: type[RowT], parameters: Any = None) -> Readable[RowT]:
        """Return all rows that can be decoded, and how many cannot."""
        result = self.connection.execute(statement, parameters)
        try:
            return Readable(list(map(row._make, result)))
        except UNREADABLE:
            table = table_of(row)
            if table is None or not isinstance(statement, Select):
                raise
        columns = list(table.primary_key)
        keys = [tuple(key) for key in self.connection.execute(statement.with_only_columns(*columns), parameters)]
        rows = self._by_halves(table, row, keys)
        return Readable(rows, len(keys) - len(rows))

    def changed(self, statement: Executable, parameters: Any = None) -> int:
        """Run an UPDATE or DELETE and return how many rows it found; 0 means that another writer was faster."""
        return self.connection.execute(statement, parameters).rowcount

    def _by_halves(self, table: Table, row: type[RowT], keys: Sequence[tuple[Any, ...]]) -> list[RowT]:
        """Return the rows with these keys, in their order, except those that cannot be decoded."""
        if not keys:
            return []
        columns = list(table.primary_key)
        try:
            found = self.connection.execute(select(table).where(tuple_(*columns).in_(keys))).all()
        except UNREADABLE as error:
            if len(keys) == 1:
                _report(table.name, keys[0], str(error))
                return []
            middle = len(keys) // 2
            return self._by_halves(table, row, keys[:middle]) + self._by_halves(table, row, keys[middle:])
        by_key = {tuple(getattr(each, column.name) for column in columns): each for each in map(row._make, found)}
        return [by_key[key] for key in keys if key in by_key]


@dataclass(frozen=True, slots=True)
class Readable(Generic[RowT]):
    """What could be decoded of the rows that a statement found."""

    rows: list[RowT]
    skipped: int = 0
    """How many could not."""

    @property
    def found(self) -> int:
        """How many rows there were."""
        return len(self.rows) + self.skipped


Unit = Callable[[Transaction], T]


@dataclass(frozen=True, eq=False, slots=True)
class BatchWrite(Generic[Item, Answer]):
    """A kind of work whose items are written together: those that share a commit by one call.

    ``write_all`` gets the items in the order in which they came and returns as many answers; an ``errors.Error`` among
    them is raised to the caller of that item. Where the call itself fails, everything that it did is undone and each
    item is tried by a call of its own, so that a bad item fails alone.
    """

    name: str
    write_all: Callable[[Transaction, Sequence[Item]], Sequence[Answer | errors.Error]]


def _name(row: type[NamedTuple]) -> str:
    table = table_of(row)
    return row.__name__ if table is None else table.name


@lru_cache(maxsize=1000)
def _report(table: str, key: tuple[Any, ...], error: str) -> None:
    """Log a row once, and not at every read: the loops read many times a second."""
    log.error("row_unreadable", table=table, key=json.dumps(key, default=str), error=error)
