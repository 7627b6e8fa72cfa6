"""Many rows changed at once: an UPDATE compiled once for each set of columns, by one ``executemany``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Dialect, Table, bindparam, update

from footlights.store.bulk_insert import converter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.store.unit import Transaction

_KEY = "key_"
"""Before the names of the columns by which a row is found: they may be changed as well."""


class Updater:
    """Changes rows of one table that are found by some of its columns.

    The values are converted here as the columns' types would do it, as ``Inserter`` does.
    """

    def __init__(self, table: Table, *keys: str) -> None:
        """``keys``: the columns by which a row is found, all of them at once."""
        self._table, self._keys = table, keys
        self._statements: dict[tuple[str, tuple[str, ...]], tuple[str, list[int]]] = {}
        self._converters: dict[str, Callable[[Any], Any] | None] = {
            name: converter(column.type) for name, column in table.c.items()
        }

    def __call__(self, tx: Transaction, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> int:
        """Change rows, each given by the new values of ``columns`` and then its keys; return how many were met."""
        dialect = tx.connection.dialect
        known = self._statements.get((dialect.name, columns))
        if known is None:
            known = self._statements[dialect.name, columns] = self._compiled(dialect, columns)
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

    def _compiled(self, dialect: Dialect, columns: tuple[str, ...]) -> tuple[str, list[int]]:
        """Return the statement, and for each of its placeholders which of the given values it takes."""
        kind: Any = type(dialect)
        positional: Dialect = kind(paramstyle="qmark" if dialect.name == "sqlite" else "format")
        statement = update(self._table).values({name: bindparam(name) for name in columns})
        for name in self._keys:
            statement = statement.where(self._table.c[name] == bindparam(_KEY + name))
        compiled: Any = statement.compile(dialect=positional)
        given = [*columns, *(_KEY + name for name in self._keys)]
        return str(compiled), [given.index(name) for name in compiled.positiontup]
