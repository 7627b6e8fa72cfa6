"""Scalars in JSON as Go's protojson reads them.

Numbers also come in strings, ``3.0`` is an integer, base64 is of any kind.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from google.protobuf.descriptor import FieldDescriptor

from footlights.gateway.decode.scalars import decode_base64
from footlights.gateway.errors import Malformed

_F = FieldDescriptor
SIGNED32, _SIGNED64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
RANGES: Final[dict[int, tuple[int, int]]] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), SIGNED32),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), _SIGNED64),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (0, 2**64 - 1)),
}
NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


class Token:
    """A bracket, or a whole scalar. ``raw`` is its text, ``value`` what it stands for."""

    __slots__ = ("at", "raw", "value")

    def __init__(self, at: int, raw: str, value: object) -> None:
        self.at, self.raw, self.value = at, raw, value

    @property
    def is_string(self) -> bool:
        """Whether it is a string."""
        return self.raw[:1] == '"'

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.raw[:1] in "-0123456789" and bool(self.raw)

    @property
    def shown(self) -> str:
        """For people: a bracket by what it opens."""
        return {"{": "an object", "[": "an array"}.get(
            self.raw, self.raw if len(self.raw) < 120 else self.raw[:117] + "…"
        )


def _number_text(token: Token) -> str | None:
    """The number in a number, or in a string that holds nothing but one."""
    if token.is_number:
        return token.raw
    if token.is_string and NUMBER.fullmatch(str(token.value)):
        return str(token.value)
    return None


def read_integer(token: Token, limits: tuple[int, int]) -> int | None:
    """An integer within limits, or None."""
    text = _number_text(token)
    found = NUMBER.fullmatch(text) if text is not None else None
    if found is None:
        return None
    sign, whole, fraction, exponent = found.group(1), found.group(2), found.group(3) or "", found.group(4) or "0"
    digits, shift = whole + fraction, 0
    if len(digits) > 400 or len(exponent) > 4:
        return 0 if not digits.strip("0") else None
    shift = int(exponent) - len(fraction)
    if shift >= 0:
        value = int(digits) * 10 ** min(shift, 400)
    else:
        kept, dropped = digits[:shift], digits[shift:]
        if dropped.strip("0"):
            return None
        value = int(kept or "0")
    value = -value if sign else value
    return value if limits[0] <= value <= limits[1] else None


def read_float(token: Token, *, single: bool) -> float | None:
    """A float that does not overflow, or None."""
    if token.is_string and token.value in ("NaN", "Infinity", "-Infinity"):
        return float(str(token.value))
    text = _number_text(token)
    if text is None:
        return None
    value = float(text)
    if value in (float("inf"), float("-inf")):
        return None
    if single:
        try:
            struct.pack("<f", value)
        except OverflowError:
            return None
    return value


def read_bytes(token: Token) -> bytes | None:
    """Bytes, or None."""
    if not token.is_string:
        return None
    text = str(token.value)
    try:
        return decode_base64(text, url="-" in text or "_" in text, padded=len(text) % 4 == 0)
    except Malformed:
        return None
