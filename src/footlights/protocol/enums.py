"""Enums of messages: their names and numbers, also of values that only a later release knows.

Nothing here raises: a replica, an agent or a client of the next release may have written or sent any value.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper
    from google.protobuf.message import Message

V = TypeVar("V", bound=int)


def number_of(kind: _EnumTypeWrapper[V], text: str) -> V:
    """Return the number of a value by its name; that of the unspecified value for one that this release lacks."""
    numbers = _numbers(kind)
    return numbers[text] if text in numbers else kind.values()[0]


def name_of(kind: _EnumTypeWrapper[Any], number: int) -> str:
    """Return the name of a value; the number as text for one that this release does not know."""
    return _names(kind).get(number, str(number))


def field_name(message: Message, field: str) -> str:
    """Return the name of the value of an enum field, as ``name_of`` does."""
    kind, number = message.DESCRIPTOR.fields_by_name[field].enum_type, getattr(message, field)
    assert kind is not None, f"{field} is not an enum"
    value = kind.values_by_number.get(number)
    return str(number) if value is None else str(value.name)


@cache
def _numbers(kind: _EnumTypeWrapper[V]) -> Mapping[str, V]:
    return dict(kind.items())


@cache
def _names(kind: _EnumTypeWrapper[Any]) -> Mapping[int, str]:
    return {number: name for name, number in kind.items()}
