"""Scalars as text, in query strings, forms and paths, read as Go's strconv and base64 read them.

``base0`` is for path variables: the reference reads integers there with a base prefix (``0x10``, ``010``, ``1_0``),
and in base 10 everywhere else.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from footlights.gateway.errors import Malformed, go_quote

if TYPE_CHECKING:
    from collections.abc import Callable

Scalar = int | float | bool | str | bytes

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
_NAMED_FLOAT: Final = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}
_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_STD: Final = {char: index for index, char in
               enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}  # fmt: skip
_URL: Final = {{"+": "-", "/": "_"}.get(char, char): index for char, index in _STD.items()}


def parse_int(text: str, bits: int, *, signed: bool, base0: bool) -> int:
    """An integer in range.

    Raises:
        Malformed: as ``strconv.ParseInt`` or ``ParseUint`` says it.
    """
    function = "strconv.ParseInt" if signed else "strconv.ParseUint"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    wanted = f"an integer from {low} to {high}"
    value = _base0(text) if base0 else int(text) if _INTEGER.fullmatch(text) and len(text) < 400 else None
    if len(text) >= 400 and _INTEGER.fullmatch(text):
        value = high + 1
    if value is None or (not signed and text[:1] in ("+", "-")):
        raise Malformed(f"{function}: parsing {go_quote(text)}: invalid syntax", wanted)
    if not low <= value <= high:
        raise Malformed(f"{function}: parsing {go_quote(text)}: value out of range", wanted)
    return value


def _base0(text: str) -> int | None:
    found = _BASE0.fullmatch(text) if len(text) < 400 else None
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
        Malformed: as ``strconv.ParseFloat`` says it.
    """
    named = _NAMED_FLOAT.get(text.lstrip("+-").lower()) if text[:2] not in ("+-", "-+", "++", "--") else None
    if named is not None:
        return -named if text[0] == "-" else named
    try:
        if _FLOAT.fullmatch(text):
            value = float(text.replace("_", ""))
        elif _HEX_FLOAT.fullmatch(text):
            value = float.fromhex(text.replace("_", ""))
        else:
            raise Malformed(f"strconv.ParseFloat: parsing {go_quote(text)}: invalid syntax", "a number")
        if math.isinf(value):
            raise OverflowError
        if bits == 32:
            struct.pack("<f", value)
    except OverflowError:
        raise Malformed(
            f"strconv.ParseFloat: parsing {go_quote(text)}: value out of range", f"a number that fits {bits} bits"
        ) from None
    return value


def parse_bool(text: str) -> bool:
    """A bool as ``strconv.ParseBool`` reads it."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Malformed(f"strconv.ParseBool: parsing {go_quote(text)}: invalid syntax", "true or false")


def parse_bytes(text: str) -> bytes:
    """Padded base64, standard or URL-safe."""
    try:
        return decode_base64(text, url=False)
    except Malformed:
        return decode_base64(text, url=True)


def decode_base64(text: str, *, url: bool, padded: bool = True) -> bytes:
    """Decode as Go's encoding/base64 does: line ends are skipped, trailing bits are not checked.

    Raises:
        Malformed: with the offset of the byte that Go complains about.
    """
    alphabet = _URL if url else _STD
    data = text.encode("utf-8", "surrogatepass").decode("latin1")
    cleaned = data.replace("\r", "").replace("\n", "")
    body = cleaned.rstrip("=") if padded else cleaned
    fits = (not padded or len(cleaned) % 4 == 0) and len(body) % 4 != 1 and len(cleaned) - len(body) < 3
    if fits and all(map(alphabet.__contains__, body)):
        whole = body + "=" * (-len(body) % 4)
        return base64.b64decode(whole.translate(_FROM_URL) if url else whole)
    offset = _corrupt_at(data, alphabet, padded=padded)
    raise Malformed(f"illegal base64 data at input byte {offset}", "base64 with its padding")


_FROM_URL: Final = str.maketrans("-_", "+/")


def _corrupt_at(data: str, alphabet: dict[str, int], *, padded: bool) -> int:
    """The offset in CorruptInputError: walks quanta the way decodeQuantum does."""
    at, size = 0, len(data)
    while True:
        filled = 0
        while filled < 4:
            if at == size:
                return at - filled
            char = data[at]
            at += 1
            if char in alphabet:
                filled += 1
            elif char in "\r\n":
                continue
            elif char != "=" or not padded or filled < 2:
                return at - 1
            else:
                if filled == 2:
                    while at < size and data[at] in "\r\n":
                        at += 1
                    if at == size:
                        return size
                    if data[at] != "=":
                        return at - 1
                    at += 1
                while at < size and data[at] in "\r\n":
                    at += 1
                return at


def parse_enum(text: str, enum: EnumDescriptor, *, base0: bool) -> int:
    """An enum value by its exact name or by a number that exists."""
    by_name = enum.values_by_name.get(text)
    if by_name is not None:
        return int(by_name.number)
    reference = f"{text} is not valid" if base0 else f"{go_quote(text)} is not a valid value"
    wanted = "one of " + ", ".join(value.name for value in enum.values)
    try:
        number = parse_int(text, 32 if base0 else 64, signed=True, base0=base0)
    except Malformed:
        raise Malformed(reference, wanted) from None
    if number not in enum.values_by_number:
        raise Malformed(reference, wanted)
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


def parse_scalar(field: FieldDescriptor, text: str, *, base0: bool = False) -> Scalar:
    """The value of a scalar or enum field from text.

    Raises:
        Malformed: the text is no such value.
    """
    if field.enum_type is not None:
        return parse_enum(text, field.enum_type, base0=base0)
    return _PARSERS[field.type](text, base0)
