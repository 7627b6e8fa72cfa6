"""Text to fields: path variables, and query or form parameters.

Path variables at the top level go through the reference's ``convert.go`` (integers in base 0, ``3s`` durations, lists
split at commas); dotted ones and parameters go through its ``query.go`` (base 10, Go durations, one item a value).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from footlights.gateway.decode import times
from footlights.gateway.decode.names import descriptor_of, names, own_name
from footlights.gateway.decode.reader import BodyError, read_text
from footlights.gateway.decode.scalars import parse_scalar
from footlights.gateway.errors import INVALID_ARGUMENT, Malformed, Refusal, go_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

_MAP_KEY: Final = re.compile(r"(.*)\[(.*)\]", re.DOTALL)
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("String", "Bytes", "Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double")
)


def refuse(message: str, *, plain: str, field: str, reason: str = "INVALID_PARAMETER") -> Refusal:
    """INVALID_ARGUMENT about a parameter."""
    return Refusal(INVALID_ARGUMENT, message, plain=plain, field=field, reason=reason)


def set_path(message: Message, variable: str, text: str) -> None:
    """Set the field that a path variable names; what was there is replaced.

    Raises:
        Refusal: the text is no such value.
    """
    try:
        if "." in variable:
            _set_query(message, variable, variable.split("."), [text], strict=False)
        else:
            _convert(message, names(descriptor_of(message))[variable], text)
    except (Refusal, Malformed) as error:
        reference = error.message if isinstance(error, Refusal) else error.reference
        wanted = f"wants {error.wanted}" if isinstance(error, Malformed) else error.plain
        raise refuse(
            f"type mismatch, parameter: {variable}, error: {reference}",
            plain=f"{variable} in the path: {wanted}, not {go_quote(text)}" if isinstance(error, Malformed) else wanted,
            field=variable,
        ) from None


def set_parameters(
    message: Message, parameters: Mapping[str, Sequence[str]], *, skip: Sequence[str], strict: bool
) -> None:
    """Set fields from query or form parameters by dotted path, map keys as ``labels[key]``.

    Args:
        skip: field paths whose value came from elsewhere: keys that name them or lie under them are ignored, or in
            strict mode refused.
        strict: refuse names that are unknown.

    Raises:
        Refusal: a value that is no such value, a path that leads nowhere, two values for one field.
    """
    for key, values in parameters.items():
        path, values = key, list(values)
        found = _MAP_KEY.fullmatch(key)
        if found is not None:
            path, values = found.group(1), [found.group(2), *values]
        parts = path.split(".")
        normal = _normal(descriptor_of(message), parts)
        if any(normal == taken or normal.startswith(taken + ".") for taken in skip):
            if strict:
                raise refuse(key, plain=f"{key} is already given in the path or the body; leave it out", field=key)
            continue
        _set_query(message, key, parts, values, strict=strict)


def _normal(descriptor: Descriptor, parts: Sequence[str]) -> str:
    """The path in proto names as far as it is known."""
    out = []
    at: Descriptor | None = descriptor
    for part in parts:
        field = names(at).get(part) if at is not None else None
        out.append(field.name if field is not None else part)
        at = field.message_type if field is not None else None
    return ".".join(out)


def _set_query(message: Message, key: str, parts: list[str], values: list[str], *, strict: bool) -> None:
    field: FieldDescriptor | None = None
    for index, part in enumerate(parts):
        field = names(descriptor_of(message)).get(part)
        if field is None:
            if strict:
                known = ", ".join(sorted({own_name(f) for f in descriptor_of(message).fields}))
                raise refuse(
                    part, plain=f"there is no parameter {go_quote(key)}; known names here: {known}", field=key,
                    reason="UNKNOWN_PARAMETER",
                )  # fmt: skip
            return
        oneof = field.containing_oneof
        if oneof is not None and not _is_synthetic(field):
            taken = message.WhichOneof(oneof.name)
            # Two sub-fields of one message member of a oneof are fine.
            if taken is not None and (field.message_type is None or taken != field.name):
                raise refuse(
                    f'field already set for oneof "{oneof.name}"',
                    plain=f"{key}: only one of {', '.join(own_name(f) for f in oneof.fields)} may be given", field=key,
                )  # fmt: skip
        if index == len(parts) - 1:
            break
        if field.message_type is None or field.is_repeated:
            raise refuse(
                f'invalid path: "{field.name}" is not a message',
                plain=f"{key}: {part!r} is not a message, so nothing lies under it", field=key,
            )  # fmt: skip
        member = getattr(message, field.name)
        member.SetInParent()
        message = member
    assert field is not None
    _populate(message, field, key, values)


def _is_synthetic(field: FieldDescriptor) -> bool:
    oneof = field.containing_oneof
    return oneof is not None and len(oneof.fields) == 1 and oneof.name == "_" + field.name


def _populate(message: Message, field: FieldDescriptor, key: str, values: list[str]) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _populate_map(message, field, key, values)
    elif field.is_repeated:
        container = getattr(message, field.name)
        for value in values:
            with_add = container.add() if field.message_type is not None else None
            parsed = _parse("list", field, key, value, with_add)
            if with_add is None:
                container.append(parsed)
    elif len(values) > 1:
        raise refuse(
            f'too many values for field "{field.name}": {", ".join(values)}',
            plain=f"{key} is given {len(values)} times ({', '.join(values)}); give it once", field=key,
        )  # fmt: skip
    elif field.message_type is not None:
        member = getattr(message, field.name)
        member.Clear()
        member.SetInParent()
        _parse("field", field, key, values[0], member)
    else:
        setattr(message, field.name, _parse("field", field, key, values[0], None))


def _populate_map(message: Message, field: FieldDescriptor, key: str, values: list[str]) -> None:
    assert field.message_type is not None
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    if len(values) != 2:
        name = field.full_name
        raise refuse(
            f'more than one value provided for key "{values[0]}" in map "{name}"',
            plain=f"{key}: give each key of the map once, as {field.json_name}[key]=value", field=key,
        )  # fmt: skip
    container = getattr(message, field.name)
    map_key = _parse("map key", key_field, key, values[0], None, shown=field.name)
    if value_field.message_type is not None:
        _parse("map value", value_field, key, values[1], container[map_key], shown=field.name)
    else:
        container[map_key] = _parse("map value", value_field, key, values[1], None, shown=field.name)


def _parse(what: str, field: FieldDescriptor, key: str, text: str, into: Message | None, *, shown: str = "") -> Any:
    """One value of a field: returned, or merged into ``into`` where it is a message."""
    try:
        if into is None:
            return parse_scalar(field, text)
        return _parse_message(into, text)
    except (Malformed, BodyError) as error:
        wanted = f"wants {error.wanted}, not {go_quote(text)}" if isinstance(error, Malformed) else error.plain
        raise refuse(
            f'parsing {what} "{shown or field.name}": {error.reference}', plain=f"{key}: {wanted}", field=key
        ) from None


def _parse_message(message: Any, text: str) -> None:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        seconds, nanos = times.parse_time(text)
        if seconds < times.MIN_SECONDS:
            raise Malformed(f"{text} before 0001-01-01", times.A_TIME)
        message.seconds, message.nanos = seconds, nanos
    elif name == "google.protobuf.Duration":
        total = times.parse_go_duration(text)
        sign = -1 if total < 0 else 1
        message.seconds, message.nanos = (sign * part for part in divmod(abs(total), 10**9))
    elif name in _WRAPPERS:
        message.value = parse_scalar(message.DESCRIPTOR.fields_by_name["value"], text)
    elif name == "google.protobuf.FieldMask":
        message.paths.extend(text.split(","))
    elif name in ("google.protobuf.Value", "google.protobuf.Struct"):
        read_text(message, text, ignore_unknown=True)
    else:
        raise Malformed(f'unsupported message type: "{name}"', "its members one by one, as name.member=value")


def _convert(message: Message, field: FieldDescriptor, text: str) -> None:
    if field.is_repeated:
        container = getattr(message, field.name)
        del container[:]
        for item in text.split(","):
            if field.message_type is not None:
                _convert_message(container.add(), item)
            else:
                container.append(parse_scalar(field, item, base0=True))
    elif field.message_type is not None:
        member = getattr(message, field.name)
        member.Clear()
        member.SetInParent()
        _convert_message(member, text)
    else:
        setattr(message, field.name, parse_scalar(field, text, base0=True))


def _convert_message(message: Any, text: str) -> None:
    name = message.DESCRIPTOR.full_name
    parse: Callable[[str], tuple[int, int] | None]
    if name in _WRAPPERS:
        message.value = parse_scalar(message.DESCRIPTOR.fields_by_name["value"], text, base0=True)
        return
    if name == "google.protobuf.FieldMask":
        message.paths.extend(text.split(","))
        return
    if name == "google.protobuf.Timestamp":
        parse, wanted = times.parse_json_time, times.A_TIME
    else:
        parse, wanted = times.parse_json_duration, times.A_DURATION
    text = text.strip('"')
    parsed = parse(text)
    if parsed is None or not times.in_range(name, *parsed):
        raise Malformed(f"proto: (line 1:1): invalid {name} value {go_quote(text)}", wanted)
    message.seconds, message.nanos = parsed
