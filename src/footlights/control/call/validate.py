"""Checks requests against their descriptors and the rules in them, and fills in the defaults from there.

What the server does not understand is refused: fields and enum values that it does not know, over gRPC as over REST,
where the gateway's JSON reader refuses them. The messages between servers and of agents are read leniently: there the
other side may be one release ahead.

``google.api.field_behavior`` says what is required (AIP-203), ``footlights.http.v1.rules`` what is allowed. The OpenAPI
document is made from the same options, so it shows exactly what the server enforces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from footlights.errors import InvalidArgument, Reason
from footlights.http.v1 import annotations_pb2

Found = list[InvalidArgument]
"""What was found in a request, to be refused all at once."""

Check = Callable[[Message, str, Found], None]
"""Checks one message, given its path in the request; may lower or fill a field."""

Walk = Callable[[Any, str, Found], None]
"""Checks the value of a field, or a message."""

_MAX_UNKNOWN = 10
"""Unknown fields of one message that are named."""


@cache
def checker(descriptor: Descriptor, *, strict: bool = True) -> Callable[[Message], None]:
    """Return what checks the requests of a type: fills defaults, lowers what may be lowered, refuses the rest.

    It raises InvalidArgument with all that it finds: each field by its path, its value and the fix. Where it is not
    ``strict``, unknown fields and unknown values of enums pass.
    """
    checks, walk = tuple(_compile(descriptor, frozenset())), _walk(descriptor, strict)

    def check(request: Message) -> None:
        found: Found = []
        walk(request, "", found)
        for each in checks:
            each(request, "", found)
        if found:
            raise InvalidArgument.joined(found)

    return check


def _compile(descriptor: Descriptor, above: frozenset[str]) -> Iterator[Check]:
    within = above | {descriptor.full_name}
    for field in descriptor.fields:
        behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.REQUIRED in behaviors:
            yield _required(field)
        rules = field.GetOptions().Extensions[annotations_pb2.rules]
        if rules.ByteSize():
            # Defaults fill the request itself, never a resource inside it: a profile overrides exactly the fields
            # that it sets.
            yield from _rules(field, rules, defaults=not above)
        child = field.message_type
        if child is None or child.GetOptions().map_entry or child.full_name.startswith("google."):
            continue
        if child.full_name not in within and (nested := tuple(_compile(child, within))):
            yield _nested(field, nested)


def _name(field: FieldDescriptor) -> str:
    """Return the name by which clients know a field: its JSON name where that was set by hand."""
    default = re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), field.name)
    return str(field.json_name if field.json_name != default else field.name)


def _required(field: FieldDescriptor) -> Check:
    name = _name(field)

    def check(message: Message, path: str, found: Found) -> None:
        given = message.HasField(field.name) if field.has_presence else bool(getattr(message, field.name))
        if not given:
            found.append(InvalidArgument(path + name, "is required.", reason=Reason.FIELD_REQUIRED))

    return check


def _nested(field: FieldDescriptor, checks: tuple[Check, ...]) -> Check:
    name = _name(field)

    def check(message: Message, path: str, found: Found) -> None:
        if field.is_repeated:
            for index, item in enumerate(getattr(message, field.name)):
                for inner in checks:
                    inner(item, f"{path}{name}[{index}].", found)
        elif message.HasField(field.name):
            for inner in checks:
                inner(getattr(message, field.name), f"{path}{name}.", found)

    return check


def _rules(field: FieldDescriptor, rules: annotations_pb2.Rules, *, defaults: bool) -> Iterator[Check]:
    if rules.default_value and defaults:
        yield _default(field, rules.default_value)
    if rules.HasField("minimum") or rules.HasField("maximum"):
        yield _bounds(field, rules)
    if rules.allowed_values:
        yield _allowed(field, tuple(rules.allowed_values))
    if rules.pattern:
        yield _pattern(field, re.compile(rules.pattern))
    if rules.HasField("max_length"):
        yield _size(field, rules.max_length, "characters", Reason.TOO_LONG)
    if rules.HasField("max_bytes") and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        yield _bytes(field, rules.max_bytes)
    if rules.HasField("max_items"):
        yield _size(field, rules.max_items, "items", Reason.TOO_MANY)


def _default(field: FieldDescriptor, text: str) -> Check:
    assert field.containing_type is not None
    value = json.loads(text)
    holder = message_factory.GetMessageClass(field.containing_type)()
    json_format.ParseDict({field.json_name: value}, holder)

    def check(message: Message, _path: str, _found: Found) -> None:
        absent = not message.HasField(field.name) if field.has_presence else not getattr(message, field.name)
        if not absent:
            return
        if field.message_type is not None:
            getattr(message, field.name).CopyFrom(getattr(holder, field.name))
        else:
            setattr(message, field.name, getattr(holder, field.name))

    return check


def _bounds(field: FieldDescriptor, rules: annotations_pb2.Rules) -> Check:
    least = rules.minimum if rules.HasField("minimum") else None
    most = rules.maximum if rules.HasField("maximum") else None
    fix = f" Leave it out for {rules.default_value}." if rules.default_value else ""
    name, clamp = _name(field), rules.clamp_maximum

    def check(message: Message, path: str, found: Found) -> None:
        value: Any = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            return
        if least is not None and value < least:
            problem = f"must be at least {least} (got {value}).{fix}"
        elif most is not None and value > most and not clamp:
            problem = f"must be at most {most} (got {value}).{fix}"
        else:
            if most is not None and value > most:
                setattr(message, field.name, most)
            return
        found.append(InvalidArgument(path + name, problem, reason=Reason.OUT_OF_RANGE))

    return check


def _allowed(field: FieldDescriptor, allowed: tuple[str, ...]) -> Check:
    name = _name(field)

    def check(message: Message, path: str, found: Found) -> None:
        value = getattr(message, field.name)
        if value and value not in allowed:
            problem = f"unknown value {value!r}; choose from {', '.join(allowed)}."
            found.append(InvalidArgument(path + name, problem, reason=Reason.NOT_ALLOWED, metadata={"value": value}))

    return check


def _pattern(field: FieldDescriptor, pattern: re.Pattern[str]) -> Check:
    name = _name(field)

    def check(message: Message, path: str, found: Found) -> None:
        value = getattr(message, field.name)
        if value and not pattern.fullmatch(value):
            problem = f"{value!r} does not match {pattern.pattern}."
            found.append(
                InvalidArgument(path + name, problem, reason=Reason.PATTERN_MISMATCH, metadata={"value": value})
            )

    return check


def _size(field: FieldDescriptor, most: int, unit: str, reason: Reason) -> Check:
    name = _name(field)

    def check(message: Message, path: str, found: Found) -> None:
        size = len(getattr(message, field.name))
        if size > most:
            found.append(InvalidArgument(path + name, f"has {size} {unit}. Give at most {most}.", reason=reason))

    return check


def _bytes(field: FieldDescriptor, most: int) -> Check:
    name, text = _name(field), field.type == FieldDescriptor.TYPE_STRING

    def check(message: Message, path: str, found: Found) -> None:
        values = getattr(message, field.name) if field.is_repeated else (getattr(message, field.name),)
        for value in values:
            size = len(value.encode() if text else value)
            if size > most:
                problem = f"has {size} bytes. Give at most {most}."
                found.append(InvalidArgument(path + name, problem, reason=Reason.TOO_LONG))

    return check


_TIMES = {"google.protobuf.Duration": (-315_576_000_000, 315_576_000_000),
          "google.protobuf.Timestamp": (-62_135_596_800, 253_402_300_799)}  # fmt: skip
"""The range of seconds that duration.proto and timestamp.proto allow."""

_OPEN = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any")
"""Messages that hold anything."""


@cache
def _walk(descriptor: Descriptor, strict: bool) -> Walk:
    """Return what refuses what protobuf accepts and no field allows.

    Unknown fields and enum numbers, impossible times, and NUL in text.
    """
    values = {field.number: check for field in descriptor.fields if (check := _value(field, strict)) is not None}

    def walk(message: Message, path: str, found: Found) -> None:
        # Both calls cost 100 to 300 ns: this runs for every message of every request.
        if strict and len(UnknownFieldSet(message)):
            _refuse_unknown(message, path, found)
        for field, value in message.ListFields():
            each = values.get(field.number)
            if each is not None:
                each(value, path, found)

    return walk


def _value(field: FieldDescriptor, strict: bool) -> Walk | None:
    """Return what checks the value of a field; None where every value is fine."""
    name, inner = _name(field), field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return _entries(name, inner, strict)
    check = _single(field, name, strict)
    if check is not None and field.is_repeated:
        return lambda values, path, found: _each(check, values, path, found)
    if check is not None or inner is None or inner.full_name in _OPEN:
        return check

    # A message's walk is looked up for each request, because messages may contain their own type.
    def message(value: Message, path: str, found: Found) -> None:
        _walk(inner, strict)(value, f"{path}{name}.", found)

    def messages(values: Any, path: str, found: Found) -> None:
        walk = _walk(inner, strict)
        for index, value in enumerate(values):
            walk(value, f"{path}{name}[{index}].", found)

    return messages if field.is_repeated else message


def _entries(name: str, entry: Descriptor, strict: bool) -> Walk:
    """Return what checks a map."""
    field = entry.fields_by_name["value"]
    inner, no_nul = field.message_type, _no_nul(name)
    check = _single(field, name, strict)

    def entries(given: Any, path: str, found: Found) -> None:
        for key, value in given.items():
            if isinstance(key, str):
                no_nul(key, path, found)
            if check is not None:
                check(value, path, found)
            elif inner is not None and inner.full_name not in _OPEN:
                _walk(inner, strict)(value, f"{path}{name}[{key}].", found)

    return entries


def _each(check: Walk, values: Any, path: str, found: Found) -> None:
    for value in values:
        check(value, path, found)


def _single(field: FieldDescriptor, name: str, strict: bool) -> Walk | None:
    """Return what checks one text, enum or time; None for all else."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _no_nul(name)
    if field.enum_type is not None:
        return _known(field.enum_type, name) if strict else None
    if field.message_type is not None and field.message_type.full_name in _TIMES:
        return _possible(field.message_type, name)
    return None


def _refuse_unknown(message: Message, path: str, found: Found) -> None:
    known = ", ".join(_name(field) for field in message.DESCRIPTOR.fields)  # type: ignore[arg-type]
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[index].field_number for index in range(len(unknown))})
    for number in numbers[:_MAX_UNKNOWN]:
        problem = f"the field with number {number} is not known to this server; leave it out, or upgrade the server."
        found.append(InvalidArgument(f"{path}{number}", f"{problem} Known: {known}.", reason=Reason.UNKNOWN_FIELD))


def _no_nul(name: str) -> Walk:
    def check(text: str, path: str, found: Found) -> None:
        if "\0" in text:
            # Without the text: it may be a secret.
            found.append(InvalidArgument(path + name, "the text contains a NUL character. Remove it."))

    return check


def _known(enum: EnumDescriptor, name: str) -> Walk:
    names = ", ".join(value.name for value in enum.values if value.number)
    numbers = frozenset(enum.values_by_number)

    def check(number: int, path: str, found: Found) -> None:
        if number not in numbers:
            problem = f"unknown value {number}; choose from {names}."
            found.append(InvalidArgument(path + name, problem, reason=Reason.UNKNOWN_VALUE))

    return check


def _possible(descriptor: Descriptor, name: str) -> Walk:
    least, most = _TIMES[descriptor.full_name]
    kind = descriptor.name.lower()
    signed = kind == "duration"

    def check(time: Any, path: str, found: Found) -> None:
        # A duration's two parts have one sign; a timestamp's nanoseconds count forward only.
        backward = signed and time.seconds <= 0
        nanos = range(-999_999_999 if backward else 0, 1 if time.seconds < 0 and backward else 1_000_000_000)
        if not least <= time.seconds <= most or time.nanos not in nanos:
            problem = f"{time.seconds} seconds and {time.nanos} nanoseconds are not a valid {kind}."
            found.append(InvalidArgument(path + name, problem, reason=Reason.OUT_OF_RANGE))

    return check
