"""Checks requests against the rules in their descriptors, and fills in the defaults from there.

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
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from footlights.errors import InvalidArgument
from footlights.http.v1 import annotations_pb2

Check = Callable[[Message, str], None]
"""Checks one message, given its path in the request; may lower or fill a field."""


@cache
def checker(descriptor: Descriptor) -> Callable[[Message], None]:
    """Return what checks the requests of a type: fills defaults, lowers what may be lowered, refuses the rest.

    It raises InvalidArgument, which names the field by its path, its value and the fix.
    """
    checks = tuple(_compile(descriptor, frozenset()))

    def check(request: Message) -> None:
        # First what no field may hold, so that no check below meets a value that its type cannot mean.
        _well_formed(request, "")
        for each in checks:
            each(request, "")

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


def _name(field: FieldDescriptor, path: str) -> str:
    """Return the name by which clients know a field: its JSON name where that was set by hand."""
    default = re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), field.name)
    return path + (field.json_name if field.json_name != default else field.name)


def _required(field: FieldDescriptor) -> Check:
    def check(message: Message, path: str) -> None:
        given = message.HasField(field.name) if field.has_presence else bool(getattr(message, field.name))
        if not given:
            raise InvalidArgument(_name(field, path), "is required.", reason="FIELD_REQUIRED")

    return check


def _nested(field: FieldDescriptor, checks: tuple[Check, ...]) -> Check:
    def check(message: Message, path: str) -> None:
        if field.is_repeated:
            for index, item in enumerate(getattr(message, field.name)):
                for inner in checks:
                    inner(item, f"{_name(field, path)}[{index}].")
        elif message.HasField(field.name):
            for inner in checks:
                inner(getattr(message, field.name), f"{_name(field, path)}.")

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
        yield _size(field, rules.max_length, "characters", "TOO_LONG")
    if rules.HasField("max_items"):
        yield _size(field, rules.max_items, "items", "TOO_MANY")


def _default(field: FieldDescriptor, text: str) -> Check:
    assert field.containing_type is not None
    value = json.loads(text)
    holder = message_factory.GetMessageClass(field.containing_type)()
    json_format.ParseDict({field.json_name: value}, holder)

    def check(message: Message, _path: str) -> None:
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

    def check(message: Message, path: str) -> None:
        value: Any = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            return
        if least is not None and value < least:
            raise InvalidArgument(
                _name(field, path), f"must be at least {least} (got {value}).{fix}", reason="OUT_OF_RANGE"
            )
        if most is not None and value > most:
            if not rules.clamp_maximum:
                raise InvalidArgument(
                    _name(field, path), f"must be at most {most} (got {value}).{fix}", reason="OUT_OF_RANGE"
                )
            setattr(message, field.name, most)

    return check


def _allowed(field: FieldDescriptor, allowed: tuple[str, ...]) -> Check:
    def check(message: Message, path: str) -> None:
        value = getattr(message, field.name)
        if value and value not in allowed:
            raise InvalidArgument(
                _name(field, path),
                f"unknown value {value!r}; choose from {', '.join(allowed)}.",
                reason="NOT_ALLOWED",
                metadata={"value": value},
            )

    return check


def _pattern(field: FieldDescriptor, pattern: re.Pattern[str]) -> Check:
    def check(message: Message, path: str) -> None:
        value = getattr(message, field.name)
        if value and not pattern.fullmatch(value):
            raise InvalidArgument(
                _name(field, path), f"{value!r} does not match {pattern.pattern}.", metadata={"value": value}
            )

    return check


def _size(field: FieldDescriptor, most: int, unit: str, reason: str) -> Check:
    def check(message: Message, path: str) -> None:
        size = len(getattr(message, field.name))
        if size > most:
            raise InvalidArgument(_name(field, path), f"has {size} {unit}. Give at most {most}.", reason=reason)

    return check


_TIMES = {"google.protobuf.Duration": (-315_576_000_000, 315_576_000_000),
          "google.protobuf.Timestamp": (-62_135_596_800, 253_402_300_799)}  # fmt: skip
"""The range of seconds that duration.proto and timestamp.proto allow."""


def _well_formed(message: Message, path: str) -> None:
    """Refuse what protobuf accepts and no field allows: unknown enum numbers, impossible times, NUL in text."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for text in value if field.is_repeated else (value,):
                _no_nul(field, path, text)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            for number in value if field.is_repeated else (value,):
                _known(field, path, number)
        elif field.message_type is None:
            continue
        elif field.message_type.GetOptions().map_entry:
            for key, item in value.items():
                for text in (key, item):
                    if isinstance(text, str):
                        _no_nul(field, path, text)
        elif field.message_type.full_name in _TIMES:
            _possible(field, path, value)
        elif not field.message_type.full_name.startswith("google."):
            for index, item in enumerate(value if field.is_repeated else (value,)):
                _well_formed(item, _name(field, path) + (f"[{index}]." if field.is_repeated else "."))


def _no_nul(field: FieldDescriptor, path: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgument(_name(field, path), f"{text[:100]!r} contains a NUL character. Remove it.")


def _known(field: FieldDescriptor, path: str, number: int) -> None:
    assert field.enum_type is not None
    if number not in field.enum_type.values_by_number:
        names = ", ".join(value.name for value in field.enum_type.values if value.number)
        raise InvalidArgument(_name(field, path), f"unknown value {number}; choose from {names}.", reason="NOT_ALLOWED")


def _possible(field: FieldDescriptor, path: str, time: Any) -> None:
    assert field.message_type is not None
    least, most = _TIMES[field.message_type.full_name]
    # A duration's two parts have one sign; a timestamp's nanoseconds count forward only.
    backward = field.message_type.name == "Duration" and time.seconds <= 0
    nanos = range(-999_999_999 if backward else 0, 1 if time.seconds < 0 and backward else 1_000_000_000)
    if not least <= time.seconds <= most or time.nanos not in nanos:
        raise InvalidArgument(
            _name(field, path),
            f"{time.seconds} seconds and {time.nanos} nanoseconds are not a valid {field.message_type.name.lower()}.",
            reason="OUT_OF_RANGE",
        )
