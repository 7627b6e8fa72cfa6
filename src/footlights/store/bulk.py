"""Many rows at once: statements compiled once, and values converted here as the columns' types would do it.

Through SQLAlchemy, checking and naming each value of each row again costs several times the statement itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from sqlalchemy import Table, bindparam, insert, update
from sqlalchemy.types import JSON

from footlights.store.schema import Instant, microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from footlights.store.unit import Transaction

_KEY = "key_"
"""Before the names of the columns by which a row is found: they may be changed as well."""


class Inserter:
    """Inserts rows of one table, each a sequence of values in the order of its columns."""

    def __init__(self, table: Table, *, skip_conflicts: bool = False) -> None:
        """``skip_conflicts``: leave out rows that would break a unique index."""
        self._table, self._skip = table, skip_conflicts
        self._statements: dict[str, str] = {}
        self._converters = [
            (place, convert) for place, column in enumerate(table.c) if (convert := _converter(column.type)) is not None
        ]

    def __call__(self, tx: Transaction, rows: Iterable[Sequence[Any]]) -> int:
        """Insert rows; return how many of them are there now."""
        parameters = [self._converted(row) for row in rows]
        if not parameters:
            return 0
        engine = tx.engine
        statement = self._statements.get(engine.name)
        if statement is None:
            statement = str(insert(self._table).compile(dialect=engine.positional))
            statement += " ON CONFLICT DO NOTHING" if self._skip else ""
            self._statements[engine.name] = statement
        if self._skip:
            return tx.connection.exec_driver_sql(statement, parameters).rowcount
        engine.insert_many(tx.connection, self._table, statement, parameters)
        return len(parameters)

    def _converted(self, row: Sequence[Any]) -> tuple[Any, ...]:
        values = list(row)
        for place, convert in self._converters:
            value = values[place]
            if value is not None:
                values[place] = convert(value)
        return tuple(values)


class Updater:
    """Changes rows of one table that are found by some of its columns."""

    def __init__(self, table: Table, *keys: str) -> None:
        """``keys``: the columns by which a row is found, all of them together."""
        self._table, self._keys = table, keys
        self._statements: dict[tuple[str, tuple[str, ...]], tuple[str, list[int]]] = {}
        self._converters = {name: _converter(column.type) for name, column in table.c.items()}

    def __call__(self, tx: Transaction, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> int:
        """Change rows, each given by the new values of ``columns`` and then its keys; return how many were found."""
        known = self._statements.get((tx.engine.name, columns))
        if known is None:
            known = self._statements[tx.engine.name, columns] = self._compiled(tx, columns)
        statement, order = known
        converters = [self._converters[name] for name in (*columns, *self._keys)]
        parameters = []
        for row in rows:
            values = [
                value if convert is None or value is None else convert(value)
                for value, convert in zip(row, converters, strict=True)
            ]
            parameters.append(tuple(values[place] for place in order))
        return tx.connection.exec_driver_sql(statement, parameters).rowcount

    def _compiled(self, tx: Transaction, columns: tuple[str, ...]) -> tuple[str, list[int]]:
        """Return the statement, and for each of its placeholders which of the given values it takes."""
        statement = update(self._table).values({name: bindparam(name) for name in columns})
        for name in self._keys:
            statement = statement.where(self._table.c[name] == bindparam(_KEY + name))
        compiled: Any = statement.compile(dialect=tx.engine.positional)
        given = [*columns, *(_KEY + name for name in self._keys)]
        return str(compiled), [given.index(name) for name in compiled.positiontup]


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    """Return what turns a column's value, if that is not None, into the driver's; None where the two are the same."""
    if isinstance(kind, Instant):
        return microseconds
    if isinstance(kind, JSON):
        return _to_json
    return None


def _to_json(value: Any) -> str:
    return to_json(value).decode()
