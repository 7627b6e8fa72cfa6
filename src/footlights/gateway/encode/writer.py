"""Message to JSON: one function a message type, compiled from its descriptor.

The text is protojson's with EmitUnpopulated: zero scalars, empty lists and ``null`` for unset messages are printed,
members of a oneof and ``optional`` fields only when set. A compiled function is one f-string with one expression a
field, several times as fast as a walk over descriptors (the proof is in tests/bench).
"""

from __future__ import annotations

import keyword
import math
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from decimal import Decimal
from json.encoder import encode_basestring as quote
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from footlights.gateway.decode import times
from footlights.gateway.decode.names import descriptor_of, json_name
from footlights.gateway.errors import quoted

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

_F = FieldDescriptor
_Write = Callable[[Any], str]
_LONG: Final = frozenset((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64, _F.TYPE_UINT64, _F.TYPE_FIXED64))


class WriteError(ValueError):
    """A message that has no JSON: a time out of range, an Any of an unknown type, a field mask with capitals."""


class Writer:
    """Compiled writers of one spelling.

    Args:
        spell: the members' names.
        keep_unknown_any: print an Any whose type is unknown as its bytes instead of failing.
        pools: where the types of Any are looked up, before the default pool.
    """

    def __init__(
        self,
        *,
        spell: Callable[[FieldDescriptor], str] = json_name,
        keep_unknown_any: bool = False,
        pools: Sequence[DescriptorPool] = (),
    ) -> None:
        self._spell, self._keep_unknown_any = spell, keep_unknown_any
        self._pools = [*pools, descriptor_pool.Default()]
        self._compiled: dict[Descriptor, _Write] = {}
        self._cells: dict[Descriptor, list[_Write]] = {}

    def write(self, message: Message) -> str:
        """The JSON text.

        Raises:
            WriteError: the message has no JSON.
        """
        return self.for_type(descriptor_of(message))(message)

    def for_type(self, descriptor: Descriptor) -> _Write:
        """The function that writes messages of a type."""
        found = self._compiled.get(descriptor)
        if found is None:
            special = _SPECIAL.get(descriptor.full_name)
            found = special(self, descriptor) if special is not None else self._compile(descriptor)
            self._compiled[descriptor] = found
        return found

    def for_field(self, field: FieldDescriptor) -> _Write:
        """The function that writes one field of a message, set or not: what ``response_body`` answers."""
        name, bare = field.name, self._value(field)
        if field.is_repeated:
            repeated = self._repeated(field)
            return lambda message: repeated(getattr(message, name))
        return lambda message: bare(getattr(message, name))

    def _compile(self, descriptor: Descriptor) -> _Write:
        """Generate the source of one function; identifiers and names come from a descriptor, never from a request."""
        scope: dict[str, Any] = {"quote": quote}
        lines: list[str] = ["def write(m):"]
        pieces: list[str] = []
        parts = 0

        def flush() -> None:
            nonlocal parts
            if pieces:
                lines.append(f"    p{parts} = f{''.join(pieces)!r}")
                parts += 1
                pieces.clear()

        for number, field in enumerate(descriptor.fields):
            access = f"m.{field.name}"
            if keyword.iskeyword(field.name):
                access, scope[f"g{number}"] = f"g{number}(m)", attrgetter(field.name)
            key = _literal("," + quote(self._spell(field)) + ":")
            shown = self._shown(field, access, number, scope)
            if field.containing_oneof is not None:
                flush()
                lines.append(f"    p{parts} = f{key + shown!r} if m.HasField({field.name!r}) else ''")
                parts += 1
                continue
            if field.has_presence and not field.is_repeated:
                lines.append(f"    o{number} = f{shown!r} if m.HasField({field.name!r}) else 'null'")
                shown = f"{{o{number}}}"
            pieces.append(key + shown)
        flush()
        if not parts:
            return lambda _: "{}"
        joined = " + ".join(f"p{index}" for index in range(parts))
        lines.append(f"    return '{{' + ({joined})[1:] + '}}'")
        exec("\n".join(lines), scope)  # noqa: S102  the source is made above, of descriptors alone
        return scope["write"]  # type: ignore[no-any-return]

    def _shown(self, field: FieldDescriptor, access: str, number: int, scope: dict[str, Any]) -> str:
        """The part of an f-string that prints a field's value; it has no quotes of its own but double ones."""
        if field.is_repeated:
            scope[f"v{number}"] = self._repeated(field)
        elif field.message_type is not None:
            scope[f"v{number}"] = self._cell(field.message_type)
            return f"{{v{number}[0]({access})}}"
        elif field.type == _F.TYPE_STRING:
            return f"{{quote({access})}}"
        elif field.type == _F.TYPE_BOOL:
            scope["bools"] = ("false", "true")
            return f"{{bools[{access}]}}"
        elif field.type in _LONG:
            return f'"{{{access}}}"'
        elif field.enum_type is None and _BY_TYPE[field.type] is str:
            return f"{{{access}}}"
        else:
            scope[f"v{number}"] = self._value(field)
        return f"{{v{number}({access})}}"

    def _value(self, field: FieldDescriptor) -> _Write:
        if field.message_type is not None:
            cell = self._cell(field.message_type)
            return lambda message: cell[0](message)
        if field.enum_type is not None:
            return _enum(field.enum_type)
        return _BY_TYPE[field.type]

    def _cell(self, descriptor: Descriptor) -> list[_Write]:
        """A place for a type's writer, which replaces itself at the first use, because types may contain themselves."""
        cell = self._cells.get(descriptor)
        if cell is None:
            cell = self._cells[descriptor] = []

            def first(message: Any) -> str:
                cell[0] = self.for_type(descriptor)
                return cell[0](message)

            cell.append(first)
        return cell

    def _repeated(self, field: FieldDescriptor) -> _Write:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key_field, item = entry.fields_by_name["key"], self._value(entry.fields_by_name["value"])
            key: _Write = quote if key_field.type == _F.TYPE_STRING else _map_key
            return lambda mapping: (
                "{" + ",".join([key(k) + ":" + item(mapping[k]) for k in sorted(mapping)]) + "}" if mapping else "{}"
            )
        item = self._value(field)
        if item is quote:
            return lambda items: "[" + ",".join(map(quote, items)) + "]" if items else "[]"
        return lambda items: "[" + ",".join([item(value) for value in items]) + "]" if items else "[]"

    def any(self, _: Descriptor) -> _Write:
        def write(message: Any) -> str:
            url = message.type_url
            if not url:
                if message.value:
                    raise WriteError("google.protobuf.Any: missing type URL")
                return "{}"
            embedded = _unpack(message, self._pools)
            if embedded is None:
                if self._keep_unknown_any:
                    return f'{{"@type":{quote(url)},"value":{_bytes(message.value)}}}'
                raise WriteError(f'google.protobuf.Any: unable to resolve "{url}": "not found"')
            text = self.write(embedded)
            if embedded.DESCRIPTOR.full_name in _SPECIAL:
                return f'{{"@type":{quote(url)},"value":{text}}}'
            return f'{{"@type":{quote(url)}{"," if text != "{}" else ""}{text[1:]}'

        return write

    def wrapper(self, descriptor: Descriptor) -> _Write:
        value = self._value(descriptor.fields_by_name["value"])
        return lambda message: value(message.value)

    def struct(self, descriptor: Descriptor) -> _Write:
        fields = self._repeated(descriptor.fields_by_name["fields"])
        return lambda message: fields(message.fields)

    def list_value(self, _: Descriptor) -> _Write:
        return lambda message: "[" + ",".join([self.write(value) for value in message.values]) + "]"

    def json_value(self, _: Descriptor) -> _Write:
        def write(message: Any) -> str:
            kind = message.WhichOneof("kind")
            if kind == "string_value":
                return quote(message.string_value)
            if kind == "number_value":
                if not math.isfinite(message.number_value):
                    raise WriteError(
                        f"google.protobuf.Value.number_value: {_double(message.number_value)[1:-1]} is not JSON"
                    )
                return _double(message.number_value)
            if kind == "bool_value":
                return "true" if message.bool_value else "false"
            if kind == "null_value":
                return "null"
            if kind is None:
                raise WriteError("google.protobuf.Value: none of the oneof fields is set")
            return self.write(getattr(message, kind))

        return write

    def timestamp(self, _: Descriptor) -> _Write:
        return lambda message: _moment(message, times.print_time)

    def duration(self, _: Descriptor) -> _Write:
        return lambda message: _moment(message, times.print_duration)

    def field_mask(self, _: Descriptor) -> _Write:
        return _mask


def _literal(text: str) -> str:
    """Text that an f-string gives back as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def _moment(message: Any, show: Callable[[int, int], str | None]) -> str:
    text = show(message.seconds, message.nanos)
    if text is None:
        raise WriteError(f"{message.DESCRIPTOR.full_name}: out of range: {message.seconds} s, {message.nanos} ns")
    return f'"{text}"'


def _mask(message: Any) -> str:
    printed = []
    for path in message.paths:
        camel = camel_path(path)
        if camel is None:
            invalid = (
                "irreversible value" if path and path.replace(".", "").replace("_", "").isalnum() else "invalid path"
            )
            raise WriteError(f"google.protobuf.FieldMask.paths contains {invalid}: {quoted(path)}"
                             if invalid == "invalid path" else
                             f"google.protobuf.FieldMask.paths contains {invalid} {quoted(path)}")  # fmt: skip
        printed.append(camel)
    return quote(",".join(printed))


def camel_path(path: str) -> str | None:
    """``thing.create_time`` as ``thing.createTime``; None where that cannot be undone."""
    if not path or not path.isascii() or not all(part.isidentifier() for part in path.split(".")):
        return None
    camel, upper = [], False
    for char in path:
        if char == "_":
            if upper:
                return None
            upper = True
        elif char.isupper() or (upper and not char.islower()):
            return None
        else:
            camel.append(char.upper() if upper else char)
            upper = False
    return None if upper else "".join(camel)


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


def _bytes(value: bytes) -> str:
    return f'"{b64encode(value).decode()}"'


def _double(value: float) -> str:
    """The shortest digits, an exponent from 1e21 and below 1e-6, as ECMAScript prints them."""
    if not math.isfinite(value):
        return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
    return _digits(repr(value))


def _digits(text: str) -> str:
    if text.endswith(".0"):
        return text[:-2]
    if "e" not in text:
        return text
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    if -7 < power < 21:
        return format(Decimal(text), "f")
    return f"{mantissa.removesuffix('.0')}e{power:+d}"


def _float(value: float) -> str:
    """As ``_double``, with the shortest digits that are the same 32-bit float."""
    if not math.isfinite(value):
        return _double(value)
    for precision in range(6, 10):
        text = f"{value:.{precision}g}"
        if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
            return _digits(repr(float(text)))
    return _digits(repr(value))


def _map_key(key: object) -> str:
    if isinstance(key, bool):
        return '"true"' if key else '"false"'
    return f'"{key}"'


class _Names(dict[int, str]):
    """Enum values as JSON: the name in quotes, or the number where there is no name."""

    def __missing__(self, number: int) -> str:
        return str(number)


def _enum(enum: EnumDescriptor) -> _Write:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda _: "null"
    # The first name of an alias wins.
    return _Names({value.number: f'"{value.name}"' for value in reversed(enum.values)}).__getitem__


_BY_TYPE: Final[dict[int, _Write]] = {
    _F.TYPE_STRING: quote,
    _F.TYPE_BOOL: lambda value: "true" if value else "false",
    _F.TYPE_BYTES: _bytes,
    _F.TYPE_FLOAT: _float,
    _F.TYPE_DOUBLE: _double,
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32, _F.TYPE_UINT32, _F.TYPE_FIXED32), str),
    **dict.fromkeys(_LONG, lambda value: f'"{value}"'),
}
_SPECIAL: Final[dict[str, Callable[[Writer, Descriptor], _Write]]] = {
    f"google.protobuf.{name}": special
    for name, special in {
        "Any": Writer.any,
        "Struct": Writer.struct,
        "Value": Writer.json_value,
        "ListValue": Writer.list_value,
        "Timestamp": Writer.timestamp,
        "Duration": Writer.duration,
        "FieldMask": Writer.field_mask,
        **dict.fromkeys(
            ("StringValue", "BytesValue", "BoolValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value",
             "FloatValue", "DoubleValue"), Writer.wrapper
        ),
    }.items()
}  # fmt: skip
