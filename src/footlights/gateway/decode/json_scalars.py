"""Scalar fields from JSON values, as protojson takes them.

Numbers also come in strings, ``3.0`` and ``1e2`` are integers, and base64 may be of either alphabet, padded or not.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from footlights.gateway.decode.json_text import NumberText
from footlights.gateway.decode.text_scalars import decode_base64
from footlights.gateway.errors import Malformed, quoted

Convert = Callable[[Any], Any]
"""From a JSON value to a field's value; raises ``MemberError``."""

_F = FieldDescriptor
_SIGNED32, _SIGNED64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
RANGES: Final[dict[int, tuple[int, int]]] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), _SIGNED32),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), _SIGNED64),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (0, 2**64 - 1)),
}
_NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_LONG: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_MAX_FLOAT: Final = 3.4028234663852886e38
_INFINITE: Final = (float("inf"), float("-inf"))
_MAX_DIGITS: Final = 400
_MAX_EXPONENT_DIGITS: Final = 4


class MemberError(ValueError):
    """A JSON value that is not what its member takes.

    Attributes:
        path: the members from the outermost message to the one at fault; filled while the error passes them.
    """

    def __init__(self, problem: str, *, reason: str = "INVALID_MEMBER", path: list[str] | None = None) -> None:
        super().__init__(problem)
        self.problem, self.reason, self.path = problem, reason, path or []

    @property
    def field(self) -> str:
        """The path as one text: ``things[0].size``."""
        return ".".join(self.path).replace(".[", "[")


def mismatch(wanted: str, value: object, reason: str = "INVALID_MEMBER") -> MemberError:
    """The error for a value of the wrong kind; ``wanted`` is a noun phrase."""
    # Where an object belongs, a text may be what one of its members was to be, and that a secret.
    text = isinstance(value, str) and not isinstance(value, NumberText)
    shown = "a string" if text and wanted == "an object" else _shown(value)
    return MemberError(f"must be {wanted} (got {shown}).", reason=reason)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str) and not isinstance(value, NumberText):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:50]


def converter(field: FieldDescriptor, *, ignore_unknown: bool) -> Convert:
    """The function that converts one value of a field; unknown enum names become None where they are ignored."""
    if field.enum_type is not None:
        return _enum(field.enum_type, ignore_unknown=ignore_unknown)
    if field.type in RANGES:
        return _integer(*RANGES[field.type])
    return _CONVERTERS[field.type]


def _integer(low: int, high: int) -> Convert:
    wanted = f"an integer from {low} to {high}"
    in_strings = high > 2**32  # which is how canonical JSON writes them

    def convert(value: Any) -> int:
        number: int | None
        kind = type(value)
        if kind is int or (in_strings and kind is str and _LONG.fullmatch(value)):
            number = int(value)
        else:
            number = integer_of(value)
        if number is None or not low <= number <= high:
            raise mismatch(wanted, value)
        return number

    return convert


def integer_of(value: object) -> int | None:
    """The integer that a number, or a number in a string, stands for; None where it is none or far too large."""
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    sign, whole, fraction, exponent = found.group(1), found.group(2), found.group(3) or "", found.group(4) or "0"
    digits = whole + fraction
    if len(digits) > _MAX_DIGITS or len(exponent) > _MAX_EXPONENT_DIGITS:
        return None if digits.strip("0") else 0
    shift = int(exponent) - len(fraction)
    if shift >= 0:
        number = int(digits) * int(10 ** min(shift, _MAX_DIGITS))
    elif digits[shift:].strip("0"):
        return None
    else:
        number = int(digits[:shift] or "0")
    return -number if sign else number


def _enum(enum: EnumDescriptor, *, ignore_unknown: bool) -> Convert:
    numbers: dict[str, int] = {value.name: value.number for value in enum.values}
    wanted = "one of " + ", ".join(numbers)
    low, high = _SIGNED32
    takes_null = enum.full_name == "google.protobuf.NullValue"
    known = set(numbers.values()) if enum.is_closed else None

    def convert(value: Any) -> int | None:
        number: int | None
        if type(value) is str:
            number = numbers.get(value)
            if number is None:
                if ignore_unknown:
                    return None
                raise mismatch(wanted, value, "UNKNOWN_VALUE")
        elif value is None:
            number = 0 if takes_null else None
        else:
            number = int(value) if type(value) is int else integer_of(value)
            if number is not None and (not low <= number <= high or (known is not None and number not in known)):
                number = None
        if number is None:
            raise mismatch(wanted, value)
        return number

    return convert


def _string(value: Any) -> str:
    if type(value) is not str:
        raise mismatch("a string", value)
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise mismatch("true or false", value)
    return value


def to_double(value: Any) -> float:
    """A finite number, or NaN or an infinity by name.

    Raises:
        MemberError: the value is none of these.
    """
    kind = type(value)
    if kind is str and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if kind is int or kind is NumberText or (kind is str and _NUMBER.fullmatch(value)):
        try:
            number = float(value)
        except OverflowError:
            number = _INFINITE[0]
        if number not in _INFINITE:
            return number
    raise mismatch("a number", value)


def _float(value: Any) -> float:
    number = to_double(value)
    if not -_MAX_FLOAT <= number <= _MAX_FLOAT and number not in _INFINITE:
        try:
            struct.pack("<f", number)
        except OverflowError:
            raise mismatch("a number that fits 32 bits", value) from None
    return number


def _bytes(value: Any) -> bytes:
    if type(value) is str:
        try:
            return decode_base64(value, url="-" in value or "_" in value, padded=len(value) % 4 == 0)
        except Malformed:
            pass
    raise mismatch("base64 in a string", value)


_CONVERTERS: Final[dict[int, Convert]] = {
    _F.TYPE_STRING: _string, _F.TYPE_BOOL: _bool, _F.TYPE_DOUBLE: to_double, _F.TYPE_FLOAT: _float,
    _F.TYPE_BYTES: _bytes,
}  # fmt: skip
