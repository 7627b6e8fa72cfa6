"""JSON to message, fast: setters compiled once per message type, for bodies without surprises.

Whatever is not plain (an unknown member, a duplicate, a number in a string where an int32 is wanted, trailing data,
anything wrong) makes the message start over in ``reader``, which is exact and slower. So this module refuses nothing,
and must never accept what ``reader`` refuses or read it differently.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from footlights.gateway.decode import times
from footlights.gateway.decode.names import descriptor_of
from footlights.gateway.decode.tokens import RANGES
from footlights.gateway.encode.wellknown import SPECIAL

if TYPE_CHECKING:
    from google.protobuf.message import Message

_F = FieldDescriptor
_Fill = Callable[[Any, Any], None]
_Convert = Callable[[Any], Any]
_LONG: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_UNSIGNED_LONG: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_MAX_FLOAT: Final = 3.4028234663852886e38
_MAX_BRACKETS: Final = 100
"""No deeper than what ``reader`` takes, without counting levels."""


class _Surprise(Exception):
    """Something that ``reader`` must decide."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Surprise
    return found


def _surprise(_: str) -> NoReturn:
    raise _Surprise


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_surprise)


def _loads(text: str) -> Any:
    # The C scanner without the Python around it, which is for white space.
    try:
        value, end = _DECODER.scan_once(text, 0)  # type: ignore[attr-defined]  # the standard library has it
    except StopIteration:
        return _DECODER.decode(text)
    return value if end == len(text) else _DECODER.decode(text)


def fill(text: str, message: Message) -> bool:
    """Fill an empty message from a JSON text; False, with the message empty again, where that is not for here."""
    if text.count("{") + text.count("[") > _MAX_BRACKETS:
        return False
    try:
        filler(descriptor_of(message))(message, _loads(text))
    except (_Surprise, ValueError, TypeError, RecursionError, OverflowError):
        message.Clear()
        return False
    return True


_fillers: dict[Descriptor, _Fill] = {}


def filler(descriptor: Descriptor) -> _Fill:
    """The compiled function that sets a message's fields from a JSON value."""
    found = _fillers.get(descriptor)
    if found is None:
        name = descriptor.full_name
        if name in _WELL_KNOWN:
            found = _WELL_KNOWN[name]
        elif name in SPECIAL:
            found = _wrapper(descriptor) if name.endswith("Value") else _refer
        else:
            found = _compile(descriptor)
        _fillers[descriptor] = found
    return found


def _compile(descriptor: Descriptor) -> _Fill:
    table: dict[str, tuple[object, _Fill]] = {}
    for field in descriptor.fields:
        setter = _setter(field)
        oneof = field.containing_oneof
        # Two members of a oneof count as one field given twice, which the reader sorts out. What has one name and
        # stands alone cannot be given twice: duplicates have been refused before.
        identity: object = None
        if oneof is not None:
            identity = oneof.full_name
        elif field.name != field.json_name:
            identity = field.number
        for name in (field.name, field.json_name):
            table[name] = (identity, setter)
    lookup = table.get

    def fill_fields(message: Any, value: Any) -> None:
        if type(value) is not dict:
            raise _Surprise
        seen: set[object] | None = None
        for name, item in value.items():
            entry = lookup(name)
            if entry is None or item is None:
                raise _Surprise
            identity, set_field = entry
            if identity is not None:
                if seen is None:
                    seen = set()
                elif identity in seen:
                    raise _Surprise
                seen.add(identity)
            set_field(message, item)

    return fill_fields


def _setter(field: FieldDescriptor) -> _Fill:
    name, inner = field.name, field.message_type
    if field.is_repeated:
        if inner is not None and inner.GetOptions().map_entry:
            return _map_setter(name, inner)
        if inner is not None:
            return _messages_setter(name, inner)
        convert_item = _converter(field)

        def set_items(message: Any, value: Any) -> None:
            if type(value) is not list:
                raise _Surprise
            getattr(message, name).extend([convert_item(item) for item in value])

        return set_items
    if inner is not None:
        fill_inner = _late(inner)

        def set_message(message: Any, value: Any) -> None:
            member = getattr(message, name)
            member.SetInParent()
            fill_inner(member, value)

        return set_message
    if field.type == _F.TYPE_STRING:

        def set_string(message: Any, value: Any) -> None:
            if type(value) is not str:
                raise _Surprise
            setattr(message, name, value)

        return set_string
    convert = _converter(field)

    def set_scalar(message: Any, value: Any) -> None:
        setattr(message, name, convert(value))

    return set_scalar


def _messages_setter(name: str, inner: Descriptor) -> _Fill:
    fill_inner = _late(inner)

    def set_messages(message: Any, value: Any) -> None:
        if type(value) is not list:
            raise _Surprise
        add = getattr(message, name).add
        for item in value:
            fill_inner(add(), item)

    return set_messages


def _map_setter(name: str, entry: Descriptor) -> _Fill:
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    if key_field.type != _F.TYPE_STRING:
        return _refer
    if value_field.message_type is not None:
        fill_inner = _late(value_field.message_type)

        def set_message_map(message: Any, value: Any) -> None:
            if type(value) is not dict:
                raise _Surprise
            container = getattr(message, name)
            for key, item in value.items():
                fill_inner(container[key], item)

        return set_message_map
    convert = _converter(value_field)

    def set_map(message: Any, value: Any) -> None:
        if type(value) is not dict:
            raise _Surprise
        container = getattr(message, name)
        for key, item in value.items():
            container[key] = convert(item)

    return set_map


def _late(descriptor: Descriptor) -> _Fill:
    """The filler of a type, found at the first use, because types may contain themselves."""
    found: list[_Fill] = []

    def fill_late(message: Any, value: Any) -> None:
        if not found:
            found.append(filler(descriptor))
        found[0](message, value)

    return fill_late


def _converter(field: FieldDescriptor) -> _Convert:
    kind = field.type
    if kind in RANGES:
        low, high = RANGES[kind]
        # 64-bit integers are strings in canonical JSON; the others in a string are a surprise.
        pattern = None if high < 2**32 else _LONG if low else _UNSIGNED_LONG

        def integer(value: Any) -> int:
            if type(value) is str and pattern is not None and pattern.fullmatch(value):
                value = int(value)
            if type(value) is not int or not low <= value <= high:
                raise _Surprise
            return value

        return integer
    if kind == _F.TYPE_ENUM:
        assert field.enum_type is not None
        if field.enum_type.full_name == "google.protobuf.NullValue":
            return _no
        numbers = {value.name: value.number for value in field.enum_type.values}

        def enum(value: Any) -> int:
            if type(value) is not str:
                raise _Surprise
            number = numbers.get(value)
            if number is None:
                raise _Surprise
            return number

        return enum
    return _CONVERTERS[kind]


def _string(value: Any) -> str:
    if type(value) is not str:
        raise _Surprise
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _Surprise
    return value


def _double(value: Any) -> float:
    number: Any = float(value) if type(value) is int else value
    if type(number) is not float or number in (float("inf"), float("-inf")):
        raise _Surprise
    return float(number)


def _float(value: Any) -> float:
    number = _double(value)
    if not -_MAX_FLOAT <= number <= _MAX_FLOAT:
        raise _Surprise
    return number


def _bytes(value: Any) -> bytes:
    if type(value) is not str or not _BASE64.fullmatch(value):
        raise _Surprise
    return b64decode(value)


def _no(_: Any) -> NoReturn:
    raise _Surprise


_CONVERTERS: Final[dict[int, _Convert]] = {
    _F.TYPE_STRING: _string, _F.TYPE_BOOL: _bool, _F.TYPE_DOUBLE: _double, _F.TYPE_FLOAT: _float,
    _F.TYPE_BYTES: _bytes,
}  # fmt: skip


# Well-known types


def _refer(_: Any, __: Any) -> None:
    raise _Surprise


def _wrapper(descriptor: Descriptor) -> _Fill:
    convert = _converter(descriptor.fields_by_name["value"])

    def fill_wrapper(message: Any, value: Any) -> None:
        message.value = convert(value)

    return fill_wrapper


def _timestamp(message: Any, value: Any) -> None:
    parsed = times.parse_json_time(value) if type(value) is str else None
    if parsed is None or not times.MIN_SECONDS <= parsed[0] <= times.MAX_SECONDS:
        raise _Surprise
    message.seconds, message.nanos = parsed


def _duration(message: Any, value: Any) -> None:
    parsed = times.parse_json_duration(value) if type(value) is str else None
    if parsed is None or abs(parsed[0]) > times.MAX_DURATION_S:
        raise _Surprise
    message.seconds, message.nanos = parsed


def _struct(message: Any, value: Any) -> None:
    if type(value) is not dict:
        raise _Surprise
    fields = message.fields
    for key, item in value.items():
        _value(fields[key], item)


def _list_value(message: Any, value: Any) -> None:
    if type(value) is not list:
        raise _Surprise
    add = message.values.add
    for item in value:
        _value(add(), item)


def _value(message: Any, value: Any) -> None:
    kind = type(value)
    if kind is str:
        message.string_value = value
    elif kind is bool:
        message.bool_value = value
    elif kind is dict:
        message.struct_value.SetInParent()
        _struct(message.struct_value, value)
    elif kind is list:
        message.list_value.SetInParent()
        _list_value(message.list_value, value)
    elif value is None:
        message.null_value = 0
    else:
        message.number_value = _double(value)


_WELL_KNOWN: Final[dict[str, _Fill]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _value,
    "google.protobuf.ListValue": _list_value,
}
