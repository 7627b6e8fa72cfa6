"""Column types, and what ties a table's SQLModel class to the record that its rows are read as."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple, TypeVar

from sqlalchemy import BigInteger, Dialect, Index, MetaData, Table, text
from sqlalchemy.types import JSON, TypeDecorator
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

RowT = TypeVar("RowT", bound=NamedTuple)

metadata: MetaData = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def microseconds(time: datetime) -> int:
    """Return a moment as microseconds since the epoch. Raises ValueError where it has no time zone."""
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return (time - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """Return microseconds since the epoch as a moment in UTC."""
    return _EPOCH + value * _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """A moment as microseconds since the epoch, in UTC: exact, and in the same order on every engine."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return what is stored."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        return None if value is None else moment(value)


Moment = Annotated[datetime, Field(sa_type=Instant)]
OptionalMoment = Annotated[datetime | None, Field(sa_type=Instant)]
BigInt = Annotated[int, Field(sa_type=BigInteger)]
OptionalBigInt = Annotated[int | None, Field(sa_type=BigInteger)]
Strings = Annotated[list[str], Field(sa_type=JSON)]
Labels = Annotated[dict[str, str], Field(sa_type=JSON)]
Json = Annotated[dict[str, Any], Field(sa_type=JSON)]
JsonList = Annotated[list[Any], Field(sa_type=JSON)]

Key = Annotated[str, Field(primary_key=True)]


def partial_index(name: str, condition: str, *columns: Any, unique: bool = False) -> Index:
    """Return an index on the rows that fulfil a condition."""
    where = text(condition)
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


_TABLES: dict[type[Any], Table] = {}


def table(name: str, row: type[Any], *arguments: Any, **options: Any) -> Table:
    """Declare with SQLModel the table whose rows are read as ``row``, and return it; statements are written on it."""
    members = {
        "__module__": row.__module__,
        "__annotations__": row.__annotations__,
        "__tablename__": name,
        "__table_args__": (*arguments, options),
    }
    metaclass: Any = type(SQLModel)
    _TABLES[row] = metaclass(f"{row.__name__}Model", (SQLModel,), members, table=True).__table__
    return _TABLES[row]


def table_of(row: type[Any]) -> Table | None:
    """Return the table whose rows are read as this record; None for a record of some of its columns."""
    return _TABLES.get(row)
