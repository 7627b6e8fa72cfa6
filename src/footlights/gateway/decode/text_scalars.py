"""Scalars as text, in query strings, forms and paths, as Go's strconv and base64 read them.

``base0`` is for path variables: grpc-gateway reads integers there with a base prefix (``0x10``, ``010``, ``1_0``),
and in base 10 everywhere else.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from footlights.gateway.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

Scalar = int | float | bool | str | bytes

_MAX_DIGITS: Final = 400
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_BASE0: Final = re.compile(
    r"([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)|0((?:_?[0-7])+)|(0|[1-9](?:_?[0-9])*))"
)
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9](?:_?[0-9])*)"
                           r"(?:[eE][+-]?[0-9](?:_?[0-9])*)?")  # fmt: skip
_HEX_FLOAT: Final = re.compile(
    r"[+-]?0[xX](?:_?[0-9a-fA-F])+(?:\.(?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?)?[pP][+-]?[0-9]+"
    r"|[+-]?0[xX]\.[0-9a-fA-F](?:_?[0-9a-fA-F])*[pP][+-]?[0-9]+"
)
_NAMED_FLOAT: Final = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_STANDARD: Final = re.compile(r"[A-Za-z0-9+/]*")
_URL_SAFE: Final = re.compile(r"[A-Za-z0-9_-]*")
_FROM_URL: Final = str.maketrans("-_", "+/")


def parse_scalar(field: FieldDescriptor, text: str, *, base0: bool = False) -> Scalar:
    """The value of a scalar or enum field from text.

    Raises:
        Malformed: the text is no such value.
    """
    if field.enum_type is not None:
        return parse_enum(text, field.enum_type, base0=base0)
    return _PARSERS[field.type](text, base0)


def parse_int(text: str, bits: int, *, signed: bool, base0: bool) -> int:
    """An integer in range.

    Raises:
        Malformed: the text is none.
    """
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    value = None
    if len(text) < _MAX_DIGITS and (signed or text[:1] not in ("+", "-")):
        value = _base0(text) if base0 else int(text) if _INTEGER.fullmatch(text) else None
    if value is None or not low <= value <= high:
        raise Malformed(f"an integer from {low} to {high}")
    return value


def _base0(text: str) -> int | None:
    found = _BASE0.fullmatch(text)
    if found is None:
        return None
    for digits, base in zip(found.groups()[1:], (16, 2, 8, 8, 10), strict=True):
        if digits is not None:
            value = int(digits.replace("_", ""), base)
            return -value if found.group(1) == "-" else value
    return None


def parse_float(text: str, bits: int) -> float:
    """A float in range; ``inf``, ``NaN`` and hexadecimal floats are floats.

    Raises:
        Malformed: the text is none.
    """
    if _NAMED_FLOAT.fullmatch(text):
        return float(text)
    try:
        if _FLOAT.fullmatch(text):
            value = float(text.replace("_", ""))
        elif _HEX_FLOAT.fullmatch(text):
            value = float.fromhex(text.replace("_", ""))
        else:
            raise Malformed("a number")
        if math.isinf(value):
            raise OverflowError
        if bits == 32:
            struct.pack("<f", value)
    except OverflowError:
        raise Malformed(f"a number that fits {bits} bits") from None
    return value


def parse_bool(text: str) -> bool:
    """A bool in one of the spellings of ``strconv.ParseBool``.

    Raises:
        Malformed: the text is none.
    """
    if text not in _TRUE | _FALSE:
        raise Malformed("true or false")
    return text in _TRUE


def parse_bytes(text: str) -> bytes:
    """Padded base64, standard or URL-safe.

    Raises:
        Malformed: the text is none.
    """
    return decode_base64(text, url="-" in text or "_" in text)


def decode_base64(text: str, *, url: bool, padded: bool = True) -> bytes:
    """Decode as Go's encoding/base64 does: line ends are skipped, trailing bits are not checked.

    Raises:
        Malformed: the text is not base64 of this alphabet and padding.
    """
    cleaned = text.replace("\r", "").replace("\n", "")
    body = cleaned.rstrip("=") if padded else cleaned
    fits = (not padded or len(cleaned) % 4 == 0) and len(body) % 4 != 1 and len(cleaned) - len(body) < 3
    if not fits or not (_URL_SAFE if url else _STANDARD).fullmatch(body):
        raise Malformed("base64 with its padding")
    whole = body + "=" * (-len(body) % 4)
    return base64.b64decode(whole.translate(_FROM_URL) if url else whole)


def parse_enum(text: str, enum: EnumDescriptor, *, base0: bool) -> int:
    """An enum value by its exact name or by a number that exists.

    Raises:
        Malformed: the text is neither.
    """
    by_name = enum.values_by_name.get(text)
    if by_name is not None:
        return int(by_name.number)
    try:
        number = parse_int(text, 32 if base0 else 64, signed=True, base0=base0)
    except Malformed:
        number = None
    if number is None or number not in enum.values_by_number:
        raise Malformed("one of " + ", ".join(value.name for value in enum.values), "UNKNOWN_VALUE")
    return number


def _ints(bits: int, *, signed: bool) -> Callable[[str, bool], Scalar]:
    return lambda text, base0: parse_int(text, bits, signed=signed, base0=base0)


_F = FieldDescriptor
_PARSERS: Final[dict[int, Callable[[str, bool], Scalar]]] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), _ints(32, signed=True)),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), _ints(64, signed=True)),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), _ints(32, signed=False)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), _ints(64, signed=False)),
    _F.TYPE_FLOAT: lambda text, _: parse_float(text, 32),
    _F.TYPE_DOUBLE: lambda text, _: parse_float(text, 64),
    _F.TYPE_BOOL: lambda text, _: parse_bool(text),
    _F.TYPE_STRING: lambda text, _: text,
    _F.TYPE_BYTES: lambda text, _: parse_bytes(text),
}
