"""JSON of the well-known types, which is their own: times as strings, wrappers as bare values, Any with its type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pool, message_factory

from footlights.gateway.decode import times
from footlights.gateway.decode.tokens import Token, read_float
from footlights.gateway.errors import go_quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from footlights.gateway.decode.reader import Reader

_FULL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


def _wrapper(reader: Reader, message: Any) -> None:
    value = reader.scalar(message.DESCRIPTOR.fields_by_name["value"])
    message.value = value


def _empty(reader: Reader, _: Any) -> None:
    token = reader.next()
    if token.raw != "{":
        raise reader.unexpected(token, "an object")
    while (token := reader.next()).raw != "}":
        if not reader.lax:
            reader.path.append(str(token.value))
            raise reader.error(token.at, f"unknown field {token.raw}", "there is no such member; it has none")
        reader.skip()


def _struct(reader: Reader, message: Any) -> None:
    fields = message.DESCRIPTOR.fields_by_name["fields"]
    assert fields.message_type is not None
    reader.map(message.fields, fields.message_type)


def _list_value(reader: Reader, message: Any) -> None:
    reader.list(message.values, message.DESCRIPTOR.fields_by_name["values"])


def _value(reader: Reader, message: Any) -> None:
    start = reader.peek()
    if start == "{":
        message.struct_value.SetInParent()
        reader.message(message.struct_value)
    elif start == "[":
        message.list_value.SetInParent()
        reader.message(message.list_value)
    elif start and start in '"tfn-0123456789':
        token = reader.next()
        if token.raw == "null":
            message.null_value = 0
        elif token.is_string:
            message.string_value = token.value
        elif token.is_number:
            number = read_float(token, single=False)
            if number is None:
                raise reader.error(
                    token.at, f"invalid google.protobuf.Value: {token.raw}", f"{token.shown} is no 64-bit number"
                )
            message.number_value = number
        else:
            message.bool_value = token.value
    else:
        token = reader.next()
        raise reader.error(token.at, f"invalid google.protobuf.Value: {token.raw}", "wants a JSON value")


def _timestamp(reader: Reader, message: Any) -> None:
    _moment(reader, message, times.parse_json_time, times.A_TIME, times.MIN_SECONDS, times.MAX_SECONDS)


def _duration(reader: Reader, message: Any) -> None:
    limit = times.MAX_DURATION_S
    _moment(reader, message, times.parse_json_duration, times.A_DURATION, -limit, limit)


def _moment(
    reader: Reader, message: Any, parse: Callable[[str], tuple[int, int] | None], what: str, low: int, high: int
) -> None:
    token = reader.next()
    if not token.is_string:
        raise reader.unexpected(token, what)
    parsed = parse(str(token.value))
    name = message.DESCRIPTOR.full_name
    if parsed is None:
        raise reader.error(token.at, f"invalid {name} value {token.raw}", f"wants {what}, not {token.shown}")
    if not low <= parsed[0] <= high:
        raise reader.error(token.at, f"{name} value out of range: {token.raw}", f"{token.shown} is out of range")
    message.seconds, message.nanos = parsed


def _field_mask(reader: Reader, message: Any) -> None:
    token = reader.next()
    if not token.is_string:
        raise reader.unexpected(token, 'paths as one string, such as "name,thing.size"')
    text = str(token.value).strip()
    for path in text.split(",") if text else ():
        snake = re.sub(r"[A-Z]", lambda found: "_" + found.group().lower(), path)
        if "_" in path or not _FULL_NAME.fullmatch(snake):
            raise reader.error(
                token.at,
                f"google.protobuf.FieldMask.paths contains invalid path: {go_quote(path)}",
                f"{go_quote(path)} is not a lowerCamelCase path",
            )
        message.paths.append(snake)


def _any(reader: Reader, message: Any) -> None:
    start = reader.at
    token = reader.next()
    if token.raw != "{":
        raise reader.unexpected(token, "an object")
    if reader.peek() == "}":
        reader.next()
        return
    found = _type_url(reader, token)
    if found is None:
        reader.at = start
        reader.skip()
        return
    url_token, url = found
    embedded = _resolve(message.DESCRIPTOR, url)
    if embedded is None:
        raise reader.error(
            url_token.at, f'unable to resolve {url_token.raw}: "not found"', f"the type {url!r} is not known here"
        )
    if embedded.DESCRIPTOR.full_name in SPECIAL:
        _any_value(reader, embedded)
    else:
        reader.members(embedded, in_any=True)
    message.type_url = url
    message.value = embedded.SerializeToString(deterministic=True)


def _type_url(reader: Reader, opening: Token) -> tuple[Token, str] | None:
    """Look ahead for ``@type``; None where it is missing and unknown members are ignored."""
    at, found = reader.at, None
    while (token := reader.next()).raw != "}":
        if token.value != "@type":
            reader.skip()
            continue
        if found is not None:
            raise reader.error(token.at, 'duplicate "@type" field', '"@type" is given twice; give it once')
        found = reader.next()
        if not found.is_string:
            raise reader.error(found.at, f"@type field value is not a string: {found.raw}", '"@type" wants a string')
        if not found.value:
            raise reader.error(found.at, "@type field contains empty value", '"@type" is empty')
    reader.at = at
    if found is None:
        if reader.lax:
            return None
        raise reader.error(opening.at, 'missing "@type" field', 'an Any needs "@type"')
    return found, str(found.value)


def _any_value(reader: Reader, embedded: Message) -> None:
    found = False
    while (token := reader.next()).raw != "}":
        if token.value == "@type":
            reader.skip()
        elif token.value == "value":
            if found:
                raise reader.error(token.at, 'duplicate "value" field', '"value" is given twice; give it once')
            found = True
            reader.message(embedded)
        elif reader.lax:
            reader.skip()
        else:
            raise reader.error(token.at, f"unknown field {token.raw}", 'only "@type" and "value" are allowed here')
    if not found and embedded.DESCRIPTOR.full_name != "google.protobuf.Empty":
        raise reader.error(reader.at - 1, 'missing "value" field', '"value" is missing')


def _resolve(near: Descriptor, url: str) -> Message | None:
    name = url.rpartition("/")[2]
    for pool in (near.file.pool, descriptor_pool.Default()):
        try:
            return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
        except KeyError:
            continue
    return None


SPECIAL: Final[dict[str, Callable[[Reader, Any], None]]] = {
    f"google.protobuf.{name}": read_it
    for name, read_it in {
        "Any": _any, "Empty": _empty, "Struct": _struct, "Value": _value,
        "ListValue": _list_value, "Timestamp": _timestamp, "Duration": _duration,
        "FieldMask": _field_mask,
        **dict.fromkeys(("StringValue", "BytesValue", "BoolValue", "Int32Value", "Int64Value", "UInt32Value",
                         "UInt64Value", "FloatValue", "DoubleValue"), _wrapper),
    }.items()
}  # fmt: skip
