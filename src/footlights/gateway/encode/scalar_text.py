"""Scalars and enums as JSON text."""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from json.encoder import encode_basestring as quote
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

Write = Callable[[Any], str]
"""From a value to its JSON text."""

_F = FieldDescriptor
LONG_TYPES: Final = frozenset((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64, _F.TYPE_UINT64, _F.TYPE_FIXED64))
"""64-bit integers, which are strings in JSON."""


_NOT_FINITE: Final = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


def scalar_writer(field: FieldDescriptor) -> Write:
    """The function that writes one value of a scalar or enum field."""
    return _enum_writer(field.enum_type) if field.enum_type is not None else _BY_TYPE[field.type]


def write_bytes(value: bytes) -> str:
    """Base64 in a string."""
    return f'"{b64encode(value).decode()}"'


def write_double(value: float) -> str:
    """The shortest digits, an exponent from 1e21 and below 1e-6, as ECMAScript prints them."""
    text = repr(value)
    if "e" not in text and "n" not in text:
        return text.removesuffix(".0")
    return _NOT_FINITE.get(text) or _digits(text)


def _digits(text: str) -> str:
    text = text.removesuffix(".0")
    if "e" not in text:
        return text
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    if -7 < power < 21:
        return format(Decimal(text), "f")
    return f"{mantissa.removesuffix('.0')}e{power:+d}"


def _float(value: float) -> str:
    """As ``write_double``, with the shortest digits that are the same 32-bit float."""
    if not math.isfinite(value):
        return write_double(value)
    for precision in range(6, 10):
        text = f"{value:.{precision}g}"
        if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
            return _digits(repr(float(text)))
    return _digits(repr(value))


def write_map_key(key: object) -> str:
    """A map key that is not a string: members of objects have names in quotes."""
    if isinstance(key, bool):
        return '"true"' if key else '"false"'
    return f'"{key}"'


class _Names(dict[int, str]):
    """Enum values as JSON: the name in quotes, or the number where there is no name."""

    def __missing__(self, number: int) -> str:
        return str(number)


def _enum_writer(enum: EnumDescriptor) -> Write:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda _: "null"
    # The first name of an alias wins.
    return _Names({value.number: f'"{value.name}"' for value in reversed(enum.values)}).__getitem__


_BY_TYPE: Final[dict[int, Write]] = {
    _F.TYPE_STRING: quote,
    _F.TYPE_BOOL: lambda value: "true" if value else "false",
    _F.TYPE_BYTES: write_bytes,
    _F.TYPE_FLOAT: _float,
    _F.TYPE_DOUBLE: write_double,
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32, _F.TYPE_UINT32, _F.TYPE_FIXED32), str),
    **dict.fromkeys(LONG_TYPES, lambda value: f'"{value}"'),
}
