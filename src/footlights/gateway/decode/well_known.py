"""The well-known types, whose JSON is their own: times as strings, wrappers as bare values, Any with its type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pool, message_factory

from footlights.gateway import times
from footlights.gateway.decode.json_scalars import MemberError, converter, mismatch, to_double
from footlights.gateway.decode.json_text import NumberText, RepeatedMembers, too_deep
from footlights.gateway.decode.names import descriptor_of
from footlights.gateway.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from footlights.gateway.decode.message_reader import Fill, MessageReader

_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_CAPITAL: Final = re.compile(r"[A-Z]")
_EMPTY: Final = "google.protobuf.Empty"
WRAPPERS: Final = tuple(
    f"google.protobuf.{kind}Value"
    for kind in ("String", "Bytes", "Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double")
)
"""Full names of the messages that hold one scalar."""


def _wrapper(_: MessageReader, descriptor: Descriptor) -> Fill:
    convert = converter(descriptor.fields_by_name["value"], ignore_unknown=False)

    def fill(message: Any, value: Any, _: int) -> None:
        message.value = convert(value)

    return fill


def _struct(reader: MessageReader, descriptor: Descriptor) -> Fill:
    entry = descriptor.fields_by_name["fields"].message_type
    assert entry is not None
    set_entries = reader.for_map(entry)
    return lambda message, value, levels: set_entries(message.fields, value, levels)


def _list_value(reader: MessageReader, descriptor: Descriptor) -> Fill:
    add_values = reader.for_list(descriptor.fields_by_name["values"])
    return lambda message, value, levels: add_values(message.values, value, levels)


def _value(reader: MessageReader, descriptor: Descriptor) -> Fill:
    fill_struct = reader.late(_type_of(descriptor, "struct_value"))
    fill_list = reader.late(_type_of(descriptor, "list_value"))

    def fill(message: Any, value: Any, levels: int) -> None:
        kind = type(value)
        if kind is str:
            message.string_value = value
        elif kind is bool:
            message.bool_value = value
        elif value is None:
            message.null_value = 0
        elif kind is int or kind is NumberText:
            message.number_value = to_double(value)
        elif levels < 1:
            raise too_deep()
        elif kind is list:
            message.list_value.SetInParent()
            fill_list(message.list_value, value, levels - 1)
        else:
            message.struct_value.SetInParent()
            fill_struct(message.struct_value, value, levels - 1)

    return fill


def _type_of(descriptor: Descriptor, field: str) -> Descriptor:
    found = descriptor.fields_by_name[field].message_type
    assert found is not None
    return found


def _timestamp(_: MessageReader, __: Descriptor) -> Fill:
    return _moment(times.parse_json_time, times.A_TIME, times.MIN_SECONDS, times.MAX_SECONDS)


def _duration(_: MessageReader, __: Descriptor) -> Fill:
    return _moment(times.parse_json_duration, times.A_DURATION, -times.MAX_DURATION_S, times.MAX_DURATION_S)


def _moment(parse: Callable[[str], tuple[int, int] | None], wanted: str, low: int, high: int) -> Fill:
    def fill(message: Any, value: Any, _: int) -> None:
        parsed = parse(value) if type(value) is str else None
        if parsed is None or not low <= parsed[0] <= high:
            raise mismatch(wanted, value)
        message.seconds, message.nanos = parsed

    return fill


def _field_mask(_: MessageReader, __: Descriptor) -> Fill:
    def fill(message: Any, value: Any, _: int) -> None:
        if type(value) is not str:
            raise mismatch('a string of paths such as "name,thing.size"', value)
        text = value.strip()
        for path in text.split(",") if text else ():
            snake = _CAPITAL.sub(lambda found: "_" + found.group().lower(), path)
            if "_" in path or not _PATH.fullmatch(snake):
                raise MemberError(f"must hold lowerCamelCase paths (got {quoted(path)}).")
            message.paths.append(snake)

    return fill


def _any(reader: MessageReader, descriptor: Descriptor) -> Fill:
    def fill(message: Any, value: Any, levels: int) -> None:
        if levels < 1:
            raise too_deep()
        if not isinstance(value, dict):
            raise mismatch("an object", value)
        url = value.get("@type")
        if isinstance(value, RepeatedMembers) and "@type" in value.names:
            raise MemberError("is given twice; give it once.", reason="DUPLICATE_MEMBER", path=["@type"])
        if "@type" not in value:
            if value and not reader.ignore_unknown:
                raise MemberError('must have a member "@type" that names the type of the message.')
            return
        if type(url) is not str or not url:
            error = mismatch("the URL of a type", url)
            error.path.append("@type")
            raise error
        embedded = _new_message(descriptor, url)
        if embedded is None:
            raise MemberError(f"must be a known type (got {quoted(url)}).", path=["@type"])
        fill_embedded = reader.for_type(descriptor_of(embedded))
        if embedded.DESCRIPTOR.full_name in READERS or embedded.DESCRIPTOR.full_name == _EMPTY:
            if "value" in _members_of_any(reader, value):
                try:
                    fill_embedded(embedded, value["value"], levels - 1)
                except MemberError as error:
                    error.path.insert(0, "value")
                    raise
            elif embedded.DESCRIPTOR.full_name != _EMPTY:
                raise MemberError('must have a member "value".')
        else:
            fill_embedded(embedded, _without_type(value), levels - 1)
        message.type_url = url
        message.value = embedded.SerializeToString(deterministic=True)

    return fill


def _members_of_any(reader: MessageReader, value: dict[str, Any]) -> dict[str, Any]:
    """The members of an Any around a well-known type: ``@type`` and ``value``."""
    if isinstance(value, RepeatedMembers) and "value" in value.names:
        raise MemberError("is given twice; give it once.", reason="DUPLICATE_MEMBER", path=["value"])
    for name in value:
        if name not in ("@type", "value") and not reader.ignore_unknown:
            raise MemberError("is not a known member; choose from @type, value.", reason="UNKNOWN_FIELD", path=[name])
    return value


def _without_type(value: dict[str, Any]) -> dict[str, Any]:
    rest = {name: item for name, item in value.items() if name != "@type"}
    return RepeatedMembers(rest, value.names) if isinstance(value, RepeatedMembers) else rest


def _new_message(near: Descriptor, url: str) -> Message | None:
    name = url.rpartition("/")[2]
    for pool in (near.file.pool, descriptor_pool.Default()):
        try:
            return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
        except KeyError:
            continue
    return None


READERS: Final[dict[str, Callable[[MessageReader, Descriptor], Fill]]] = {
    **{
        f"google.protobuf.{name}": build
        for name, build in {
            "Any": _any, "Struct": _struct, "Value": _value, "ListValue": _list_value, "Timestamp": _timestamp,
            "Duration": _duration, "FieldMask": _field_mask,
        }.items()
    },
    **dict.fromkeys(WRAPPERS, _wrapper),
}  # fmt: skip
"""Builders of readers by full name; Empty needs none, since it is an object without members."""
