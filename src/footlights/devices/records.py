"""Records made of plain data such as YAML, checked member by member against their dataclasses. Pure."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from footlights.errors import InvalidArgument

T = TypeVar("T")


def read_record(kind: type[T], value: Any, path: str = "") -> T:
    """Make a dataclass of plain data. Raises InvalidArgument, with the path of the member that will not do.

    A class may take a plain number by its class method ``from_number``; a ``…_bytes`` may be written as ``48GiB``.
    """
    shorthand = getattr(kind, "from_number", None)
    if shorthand is not None and isinstance(value, int | float) and not isinstance(value, bool):
        return typing.cast("T", shorthand(_member(float, value, path)))
    hints = typing.get_type_hints(kind)
    members = {}
    for name, each in as_mapping(path or "value", value).items():
        if name not in hints:
            raise InvalidArgument(_below(path, name), f"unknown; one of {', '.join(hints)}.")
        members[name] = _member(hints[name], each, _below(path, name))
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in members and field.default is field.default_factory is dataclasses.MISSING:
            raise InvalidArgument(_below(path, field.name), "is missing.")
    try:
        return kind(**members)
    except InvalidArgument as error:
        raise error.renamed(partial(_below, path)) from None


def as_mapping(path: str, value: Any) -> Mapping[str, Any]:
    """Return a value that is members and their values. Raises InvalidArgument."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(path, f"{value!r}; expected members and their values.")
    return value


def as_list(path: str, value: Any) -> Sequence[Any]:
    """Return a value that is a list. Raises InvalidArgument."""
    if not isinstance(value, list | tuple):
        raise InvalidArgument(path, f"{value!r}; expected a list.")
    return value


def _member(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, types.UnionType):
        return None if value is None else _member(typing.get_args(hint)[0], value, path)
    if typing.get_origin(hint) is tuple:
        each_hint = typing.get_args(hint)[0]
        return tuple(_member(each_hint, each, f"{path}[{at}]") for at, each in enumerate(as_list(path, value)))
    if typing.get_origin(hint) is Mapping:
        return dict(as_mapping(path, value))
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast("type[Any]", hint), value, path)
    if issubclass(hint, enum.Enum):
        if value not in hint.__members__:
            raise InvalidArgument(path, f"{value!r}; one of {', '.join(hint.__members__)}.")
        return hint[value]
    if path.endswith("_bytes") and isinstance(value, str):
        return _size(path, value)
    wanted = (int, float) if hint is float else hint
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise InvalidArgument(path, f"{value!r}; expected {'number' if hint is float else hint.__name__}.")
    if isinstance(value, int | float) and value < 0:
        raise InvalidArgument(path, f"must not be negative (got {value!r}).")
    return value


def _size(path: str, text: str) -> int:
    number = text.removesuffix("GiB").strip()
    if not text.endswith("GiB") or not number.replace(".", "", 1).isdigit():
        raise InvalidArgument(path, f"{text!r} is not a size; give bytes, or a size such as 48GiB.")
    return int(float(number) * (1 << 30))


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
