"""Many rows at once: an INSERT compiled once, and rows that need not be read back."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic_core import to_json
from sqlalchemy import Dialect, Table, exc, insert
from sqlalchemy.types import JSON
from sqlmodel import SQLModel

from footlights.store.schema import Instant, microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from footlights.store.unit import Transaction

Model = TypeVar("Model", bound=SQLModel)


class Rows(Generic[Model]):
    """Makes rows of one table: each reads like its model, cannot be changed, and equals the row that is read back."""

    def __init__(self, model: type[Model], table: Table) -> None:
        """Take the model, whose defaults a new row gets, and its table."""
        columns = list(table.c.keys())
        make: Any = namedtuple  # its fields are the table's
        self._make: Any = make(f"{model.__name__}Row", columns)
        self._places = {name: place for place, name in enumerate(columns)}
        self._template: list[Any] = [_MISSING] * len(columns)
        self._fresh: list[tuple[int, Callable[[], Any]]] = []
        for name, field in model.model_fields.items():
            if field.default_factory is not None:
                self._fresh.append((self._places[name], cast("Callable[[], Any]", field.default_factory)))
                self._template[self._places[name]] = None
            elif not field.is_required():
                self._template[self._places[name]] = field.default

    def new(self, values: Mapping[str, Any]) -> Model:
        """Return a new row. Raises TypeError where a column is unknown, or is missing and has no default."""
        row = list(self._template)
        for place, factory in self._fresh:
            row[place] = factory()
        try:
            for name, value in values.items():
                row[self._places[name]] = value
        except KeyError as unknown:
            raise TypeError(f"{self._make.__name__} has no column {unknown}") from None
        if _MISSING in row:
            missing = [name for name, place in self._places.items() if row[place] is _MISSING]
            raise TypeError(f"{self._make.__name__} needs {', '.join(missing)}")
        return cast("Model", self._make._make(row))

    def changed(self, row: Model, **changes: Any) -> Model:
        """Return a row, made here or read, with some members changed."""
        known: Any = row
        if not isinstance(known, self._make):
            known = self._make(*known)
        return cast("Model", known._replace(**changes))


class Inserter:
    """Inserts rows of one table, whole and in the order of its columns: by COPY where it can, or one ``executemany``.

    The values are converted here as the columns' types would do it: through Core, checking and naming each value of
    each row again costs several times the insert itself. COPY takes a third of the time that Postgres needs for
    separate inserts, and a seventh of the driver's; but it cannot leave a row out.
    """

    def __init__(self, table: Table, *, skip_conflicts: bool = False) -> None:
        """``skip_conflicts``: a row that would break a unique index is left out, and the answer is smaller for it."""
        self._table, self._skip = table, skip_conflicts
        self._statements: dict[str, str] = {}
        self._copy = f"COPY {table.name} ({', '.join(table.c.keys())}) FROM STDIN"
        self._converters = [
            (place, convert) for place, column in enumerate(table.c) if (convert := converter(column.type)) is not None
        ]

    def __call__(self, tx: Transaction, rows: Iterable[Any]) -> int:
        """Insert rows, each a sequence in the order of the columns; return how many are there now."""
        parameters = [self._converted(row) for row in rows]
        if not parameters:
            return 0
        dialect = tx.connection.dialect
        if dialect.name == "postgresql" and not self._skip:
            self._copied(tx, parameters)
            return len(parameters)
        statement = self._statements.get(dialect.name)
        if statement is None:
            statement = self._statements[dialect.name] = self._compiled(dialect)
        return tx.connection.exec_driver_sql(statement, parameters).rowcount

    def _converted(self, row: Sequence[Any]) -> tuple[Any, ...]:
        values = list(row)
        for place, convert in self._converters:
            value = values[place]
            if value is not None:
                values[place] = convert(value)
        return tuple(values)

    def _copied(self, tx: Transaction, rows: Sequence[tuple[Any, ...]]) -> None:
        driver: Any = tx.connection.dialect.dbapi
        connection: Any = tx.connection.connection.driver_connection
        try:
            with connection.cursor() as cursor, cursor.copy(self._copy) as copy:
                for row in rows:
                    copy.write_row(row)
        except driver.Error as error:
            raise _as_core_says(error, self._copy) from error

    def _compiled(self, dialect: Dialect) -> str:
        kind: Any = type(dialect)
        positional: Dialect = kind(paramstyle="qmark" if dialect.name == "sqlite" else "format")
        text = str(insert(self._table).compile(dialect=positional))
        return f"{text} ON CONFLICT DO NOTHING" if self._skip else text


def _as_core_says(error: Exception, statement: str) -> exc.DBAPIError:
    """Return the error that Core would have made of one of the driver's."""
    for kind in type(error).__mro__:
        known = getattr(exc, kind.__name__, None)
        if isinstance(known, type) and issubclass(known, exc.DBAPIError):
            return known(statement, None, error)
    return exc.DBAPIError(statement, None, error)


def converter(kind: Any) -> Callable[[Any], Any] | None:
    """Return what turns a column's value, if that is not None, into the driver's; None where the two are the same."""
    if isinstance(kind, Instant):
        return microseconds
    if isinstance(kind, JSON):
        return _to_json
    return None


def _to_json(value: Any) -> str:
    return to_json(value).decode()


_MISSING: Any = object()
