"""The well-known types as JSON text, which is their own: see ``decode.well_known``."""

from __future__ import annotations

import math
import re
from json.encoder import encode_basestring as quote
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from footlights.gateway import times
from footlights.gateway.decode.well_known import WRAPPERS
from footlights.gateway.encode.scalar_text import Write, scalar_writer, write_bytes, write_double
from footlights.gateway.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    from footlights.gateway.encode.writer import Writer

_PART: Final = "_?[a-z](?:[a-z0-9]|_[a-z])*"
_PATH: Final = re.compile(rf"{_PART}(?:\.{_PART})*")
"""A path of a field mask that has a spelling in camel case, and only one."""
_UNDERSCORE: Final = re.compile("_([a-z])")


class WriteError(ValueError):
    """A message that has no JSON: a time out of range, an Any of an unknown type, a field mask with capitals."""


def _any(writer: Writer, _: Descriptor) -> Write:
    def write(message: Any) -> str:
        url = message.type_url
        if not url:
            if message.value:
                raise WriteError("google.protobuf.Any: it has a value but no type_url")
            return "{}"
        embedded = _unpack(message, writer.pools)
        if embedded is None:
            if writer.keep_unknown_any:
                return f'{{"@type":{quote(url)},"value":{write_bytes(message.value)}}}'
            raise WriteError(f"google.protobuf.Any: unknown type {quoted(url)}")
        text = writer.write(embedded)
        if embedded.DESCRIPTOR.full_name in WRITERS:
            return f'{{"@type":{quote(url)},"value":{text}}}'
        return f'{{"@type":{quote(url)}{"," if text != "{}" else ""}{text[1:]}'

    return write


def _wrapper(_: Writer, descriptor: Descriptor) -> Write:
    value = scalar_writer(descriptor.fields_by_name["value"])
    return lambda message: value(message.value)


def _struct(writer: Writer, descriptor: Descriptor) -> Write:
    fields = writer.for_repeated(descriptor.fields_by_name["fields"])
    return lambda message: fields(message.fields)


def _list_value(writer: Writer, descriptor: Descriptor) -> Write:
    values = writer.for_repeated(descriptor.fields_by_name["values"])
    return lambda message: values(message.values)


def _value(writer: Writer, _: Descriptor) -> Write:
    def write(message: Any) -> str:
        kind = message.WhichOneof("kind")
        if kind == "string_value":
            return quote(message.string_value)
        if kind == "number_value":
            if not math.isfinite(message.number_value):
                raise WriteError(
                    f"google.protobuf.Value: {write_double(message.number_value)[1:-1]} is not a JSON number"
                )
            return write_double(message.number_value)
        if kind == "bool_value":
            return "true" if message.bool_value else "false"
        if kind == "null_value":
            return "null"
        if kind is None:
            raise WriteError("google.protobuf.Value: no value is set")
        return writer.write(getattr(message, kind))

    return write


def _timestamp(_: Writer, __: Descriptor) -> Write:
    return _moments(times.print_time)


def _duration(_: Writer, __: Descriptor) -> Write:
    return _moments(times.print_duration)


def _field_mask(_: Writer, __: Descriptor) -> Write:
    return _mask


def _moments(show: Callable[[int, int], str | None]) -> Write:
    def write(message: Any) -> str:
        seconds, nanos = message.seconds, message.nanos
        text = show(seconds, nanos)
        if text is None:
            raise WriteError(f"{message.DESCRIPTOR.full_name}: {seconds} s and {nanos} ns are out of range")
        return f'"{text}"'

    return write


def _mask(message: Any) -> str:
    for path in message.paths:
        if not _PATH.fullmatch(path):
            raise WriteError(f"google.protobuf.FieldMask: {quoted(path)} is not a snake_case path")
    return quote(camel_case(",".join(message.paths)))


def camel_case(path: str) -> str:
    """``thing.create_time`` as ``thing.createTime``."""
    return _UNDERSCORE.sub(lambda found: found.group(1).upper(), path)


def _unpack(message: Any, pools: Sequence[DescriptorPool]) -> Message | None:
    name = message.type_url.rpartition("/")[2]
    for pool in pools:
        try:
            embedded = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
        except KeyError:
            continue
        try:
            embedded.ParseFromString(message.value)
        except DecodeError as error:
            raise WriteError(f"google.protobuf.Any: {name} does not parse: {error}") from None
        return embedded
    return None


WRITERS: Final[dict[str, Callable[[Writer, Descriptor], Write]]] = {
    **{
        f"google.protobuf.{name}": build
        for name, build in {
            "Any": _any, "Struct": _struct, "Value": _value, "ListValue": _list_value, "Timestamp": _timestamp,
            "Duration": _duration, "FieldMask": _field_mask,
        }.items()
    },
    **dict.fromkeys(WRAPPERS, _wrapper),
}  # fmt: skip
"""Builders of writers by full name."""
