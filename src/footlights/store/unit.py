"""What work is made of: a transaction, units of it, and joints, whose items are written together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from footlights import errors

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable, Result

T = TypeVar("T")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Changed(errors.Conflict):
    """Another process has changed a row since this transaction read it: its unit may see it when it is run again."""


class Transaction:
    """One open transaction, in the thread that runs its unit."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        """Wrap a connection on which a transaction has begun."""
        self.connection = connection

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.connection.dialect.name

    def execute(self, statement: Executable, parameters: Any = None) -> Result[*tuple[Any, ...]]:
        """Run one statement; ``parameters`` may be a list, for many rows at once."""
        return self.connection.execute(statement, parameters)

    def one(self, statement: Executable, table: type[T], parameters: Any = None) -> T | None:
        """Return the first row, which reads like ``table`` and cannot be changed; None where there is none."""
        return cast("T | None", self.connection.execute(statement, parameters).first())

    def all(self, statement: Executable, table: type[T], parameters: Any = None) -> list[T]:
        """Return every row; each reads like ``table`` and cannot be changed."""
        return cast("list[T]", list(self.connection.execute(statement, parameters).all()))

    def changed(self, statement: Executable, parameters: Any = None) -> int:
        """Run an UPDATE or DELETE and return how many rows it met; 0 means that somebody was faster."""
        return self.connection.execute(statement, parameters).rowcount


Unit = Callable[[Transaction], T]


@dataclass(frozen=True, eq=False, slots=True)
class Joint(Generic[Item, Answer]):
    """A kind of work whose items are written together: those of one commit by one call.

    ``write_all`` gets the items in the order in which they came and returns as many answers; an ``errors.Error`` among
    them is raised to whoever gave that item. Where the call itself fails, everything that it did is undone and each
    item is tried by a call of its own, so that a bad item fails alone.
    """

    name: str
    write_all: Callable[[Transaction, Sequence[Item]], Sequence[Answer | errors.Error]]
