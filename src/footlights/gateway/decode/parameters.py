"""Text to fields: path variables, and query or form parameters.

grpc-gateway has two parsers, and both are followed. Path variables at the top level allow integers in base 0, ``3s``
durations and lists split at commas (``convert.go``); dotted ones and parameters allow base 10, Go durations and one
item a value (``query.go``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from footlights.gateway import times
from footlights.gateway.decode.json_scalars import MemberError
from footlights.gateway.decode.message_reader import LENIENT
from footlights.gateway.decode.names import descriptor_of, names, own_name
from footlights.gateway.decode.text_scalars import parse_scalar
from footlights.gateway.decode.well_known import WRAPPERS
from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError, Malformed, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

_FIELD_MASK: Final = "google.protobuf.FieldMask"
_MAP_KEY: Final = re.compile(r"(.*)\[(.*)\]", re.DOTALL)


def set_path(message: Message, variable: str, text: str) -> None:
    """Set the field that a path variable names; what was there is replaced.

    Raises:
        GatewayError: the text is no such value.
    """
    if "." in variable:
        _set_dotted(message, variable, variable.split("."), [text], strict=False)
        return
    try:
        _convert(message, names(descriptor_of(message))[variable], text)
    except Malformed as error:
        problem = f"must be {error.wanted} (got {quoted(text)} in the path)."
        raise _refused(variable, problem, error.reason) from None


def set_path_beside_body(message: Message, variable: str, text: str) -> None:
    """As ``set_path``, of a message that a body has been read into, which must not have another value there.

    Raises:
        GatewayError: the text is no such value, or another one than the body's.
    """
    given = _given(message, variable)
    set_path(message, variable, text)
    if given is not None and given != _given(message, variable):
        raise GatewayError(
            INVALID_ARGUMENT,
            f"{variable} in the body differs from {quoted(text)} in the path; give the same value, or leave it out.",
            field=variable,
            reason="VALUE_CONFLICT",
        )


def _given(message: Message, path: str) -> Any:
    """A copy of the value at a path of proto names; None where there is none, or a default without presence."""
    *passed, last = path.split(".")
    for name in passed:
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    field = names(descriptor_of(message))[last]
    if field.has_presence and not message.HasField(last):
        return None
    value = getattr(message, last)
    if field.is_repeated:
        return list(value) or None
    if field.message_type is not None:
        return value.__deepcopy__({})
    return value if value or field.has_presence else None


def set_parameters(
    message: Message, parameters: Mapping[str, Sequence[str]], *, skip: Sequence[str], strict: bool
) -> None:
    """Set fields from query or form parameters by dotted path, map keys as ``labels[key]``.

    Args:
        message: the request.
        parameters: values by key.
        skip: field paths whose value came from elsewhere: keys that name them or lie under them are ignored, or in
            strict mode refused where they differ.
        strict: refuse unknown names.

    Raises:
        GatewayError: a value that is no such value, a path that leads nowhere, two values for one field.
    """
    for key, given in parameters.items():
        found = _MAP_KEY.fullmatch(key)
        path, map_key = (found.group(1), [found.group(2)]) if found is not None else (key, [])
        values, parts = [*map_key, *given], path.split(".")
        normal = _proto_path(descriptor_of(message), parts)
        if any(normal == taken or normal.startswith(taken + ".") for taken in skip):
            if strict and not _is_there(message, key, parts, values, normal):
                raise _refused(key, "is already given in the path or the body; leave it out of the query.")
            continue
        _set_dotted(message, key, parts, values, strict=strict)


def _is_there(message: Message, key: str, parts: list[str], values: list[str], path: str) -> bool:
    """Whether a message has what a parameter would set."""
    asked: Any = type(message)()
    there: Any = message
    _set_dotted(asked, key, parts, values, strict=True)
    for name in path.split("."):
        asked, there = getattr(asked, name), getattr(there, name)
    if isinstance(asked, Mapping):
        return all(item in there and there[item] == value for item, value in asked.items())
    return bool(asked == there)


def _refused(key: str, problem: str, reason: str = "") -> GatewayError:
    return GatewayError(INVALID_ARGUMENT, f"{key} {problem}", field=key, reason=reason or "INVALID_PARAMETER")


def _proto_path(descriptor: Descriptor, parts: Sequence[str]) -> str:
    """The path in proto names, as far as it is known."""
    out = []
    at: Descriptor | None = descriptor
    for part in parts:
        field = names(at).get(part) if at is not None else None
        out.append(field.name if field is not None else part)
        at = field.message_type if field is not None else None
    return ".".join(out)


def _set_dotted(message: Message, key: str, parts: list[str], values: list[str], *, strict: bool) -> None:
    for index, part in enumerate(parts):
        field = names(descriptor_of(message)).get(part)
        if field is None:
            if strict:
                known = ", ".join(sorted({own_name(f) for f in descriptor_of(message).fields}))
                raise _refused(key, f"is not a known parameter; choose from {known}.", "UNKNOWN_FIELD")
            return
        _check_oneof(message, field, key)
        if index == len(parts) - 1:
            _populate(message, field, key, values)
            if strict and field.message_type is not None and field.message_type.full_name == _FIELD_MASK:
                _check_mask(getattr(message, field.name), key, values)
            return
        if field.message_type is None or field.is_repeated:
            raise _refused(key, f"has no members under {quoted(part)}, which is not a message.")
        member = getattr(message, field.name)
        member.SetInParent()
        message = member


def _check_mask(mask: Any, key: str, values: list[str]) -> None:
    if not all(mask.paths):
        raise _refused(key, f"must be names of members, separated by commas (got {quoted(values[0])}).")


def _check_oneof(message: Message, field: FieldDescriptor, key: str) -> None:
    oneof = field.containing_oneof
    if oneof is None or (len(oneof.fields) == 1 and oneof.name == "_" + field.name):
        return
    taken = message.WhichOneof(oneof.name)
    # Two sub-fields of one message member of a oneof are fine.
    if taken is not None and (field.message_type is None or taken != field.name):
        members = ", ".join(own_name(f) for f in oneof.fields)
        raise _refused(key, f"cannot be given together with another of {members}; give only one of them.")


def _populate(message: Message, field: FieldDescriptor, key: str, values: list[str]) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _populate_map(message, field, key, values)
    elif field.is_repeated:
        container = getattr(message, field.name)
        for value in values:
            if field.message_type is not None:
                _parse(field, key, value, container.add())
            else:
                container.append(_parse(field, key, value, None))
    elif len(values) > 1:
        raise _refused(key, f"is given {len(values)} times ({quoted(', '.join(values))}); give it once.")
    elif field.message_type is not None:
        member = getattr(message, field.name)
        member.Clear()
        member.SetInParent()
        _parse(field, key, values[0], member)
    else:
        setattr(message, field.name, _parse(field, key, values[0], None))


def _populate_map(message: Message, field: FieldDescriptor, key: str, values: list[str]) -> None:
    assert field.message_type is not None
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    if len(values) != 2:
        raise _refused(key, f"must give each key of the map once, as {field.json_name}[key]=value.")
    container = getattr(message, field.name)
    map_key = _parse(key_field, key, values[0], None)
    if value_field.message_type is not None:
        _parse(value_field, key, values[1], container[map_key])
    else:
        container[map_key] = _parse(value_field, key, values[1], None)


def _parse(field: FieldDescriptor, key: str, text: str, into: Message | None) -> Any:
    """One value of a field: returned, or merged into ``into`` where it is a message."""
    try:
        if into is None:
            return parse_scalar(field, text)
        return _parse_message(into, text)
    except Malformed as error:
        raise _refused(key, f"must be {error.wanted} (got {quoted(text)}).", error.reason) from None
    except MemberError as error:
        raise _refused(key, f"{error.field + ' ' if error.field else ''}{error.problem}") from None
    except GatewayError as error:
        raise _refused(key, f"must be a JSON value: {error.message}") from None


def _parse_message(message: Any, text: str) -> None:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        message.seconds, message.nanos = _in_range(name, times.parse_time(text), times.A_TIME)
    elif name == "google.protobuf.Duration":
        total = times.parse_go_duration(text)
        sign = -1 if total < 0 else 1
        message.seconds, message.nanos = (sign * part for part in divmod(abs(total), 10**9))
    elif name in WRAPPERS:
        message.value = parse_scalar(message.DESCRIPTOR.fields_by_name["value"], text)
    elif name == _FIELD_MASK:
        message.paths.extend(text.split(","))
    elif name in ("google.protobuf.Value", "google.protobuf.Struct"):
        LENIENT.read_text(text, message)
    else:
        raise Malformed("given member by member, as name.member=value")


def _in_range(name: str, parsed: tuple[int, int] | None, wanted: str) -> tuple[int, int]:
    if parsed is None or not times.in_range(name, *parsed):
        raise Malformed(wanted)
    return parsed


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
    if name in WRAPPERS:
        message.value = parse_scalar(message.DESCRIPTOR.fields_by_name["value"], text, base0=True)
    elif name == _FIELD_MASK:
        message.paths.extend(text.split(","))
    else:
        parse, wanted = times.parse_json_duration, times.A_DURATION
        if name == "google.protobuf.Timestamp":
            parse, wanted = times.parse_json_time, times.A_TIME
        message.seconds, message.nanos = _in_range(name, parse(text.strip('"')), wanted)
