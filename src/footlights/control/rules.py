"""Requests held against the rules in their own descriptors, and filled with the defaults that stand there.

``google.api.field_behavior`` says what is required (AIP-203), ``footlights.http.v1.rules`` what is allowed. The same
options are what the OpenAPI document shows, so that the document cannot promise what the server does not keep.
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
"""Checks one message whose path in the request is given; may lower or fill a field."""


def apply(request: Message) -> None:
    """Fill the defaults of a request, lower what may be lowered, and refuse what breaks a rule.

    Raises:
        InvalidArgument: names the field by its path, its value and the fix.
    """
    for check in _checks(request.DESCRIPTOR):
        check(request, "")


@cache
def _checks(descriptor: Descriptor) -> tuple[Check, ...]:
    return tuple(_compile(descriptor, frozenset({descriptor.full_name})))


def _compile(descriptor: Descriptor, above: frozenset[str]) -> Iterator[Check]:
    for field in descriptor.fields:
        behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.REQUIRED in behaviors:
            yield _required(field)
        rules = field.GetOptions().Extensions[annotations_pb2.rules]
        if rules.ByteSize():
            yield from _rules(field, rules)
        child = field.message_type
        if child is None or child.GetOptions().map_entry or child.full_name.startswith("google."):
            continue
        if child.full_name not in above and (nested := tuple(_compile(child, above | {child.full_name}))):
            yield _nested(field, nested)


def _name(field: FieldDescriptor, path: str) -> str:
    """The name by which a client knows the field: the published one where it has one of its own."""
    default = re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), field.name)
    return path + (field.json_name if field.json_name != default else field.name)


def _required(field: FieldDescriptor) -> Check:
    def check(message: Message, path: str) -> None:
        given = message.HasField(field.name) if field.has_presence else bool(getattr(message, field.name))
        if not given:
            raise InvalidArgument(
                _name(field, path), "is required and missing. Give it a value.", reason="FIELD_REQUIRED"
            )

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


def _rules(field: FieldDescriptor, rules: annotations_pb2.Rules) -> Iterator[Check]:
    if rules.default_value:
        yield _default(field, rules.default_value)
    if rules.HasField("minimum") or rules.HasField("maximum"):
        yield _bounds(field, rules)
    if rules.allowed_values:
        yield _allowed(field, tuple(rules.allowed_values))
    if rules.pattern:
        yield _pattern(field, re.compile(rules.pattern))
    if rules.HasField("max_length"):
        yield _length(field, rules.max_length)
    if rules.HasField("max_items"):
        yield _items(field, rules.max_items)


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
    advice = (
        f"Give a number from {least} to {most}" if least is not None and most is not None else "Give another number"
    )
    if rules.default_value:
        advice += f", or leave it out for {rules.default_value}"

    def check(message: Message, path: str) -> None:
        value: Any = getattr(message, field.name)
        if least is not None and value < least:
            raise InvalidArgument(
                _name(field, path), f"{value} is below the least, {least}. {advice}.", reason="OUT_OF_RANGE"
            )
        if most is not None and value > most:
            if not rules.clamp_maximum:
                raise InvalidArgument(
                    _name(field, path), f"{value} is above the greatest, {most}. {advice}.", reason="OUT_OF_RANGE"
                )
            setattr(message, field.name, most)

    return check


def _allowed(field: FieldDescriptor, allowed: tuple[str, ...]) -> Check:
    def check(message: Message, path: str) -> None:
        value = getattr(message, field.name)
        if value and value not in allowed:
            raise InvalidArgument(
                _name(field, path),
                f"{value!r} is not one of its values. Give {' or '.join(allowed)}.",
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


def _length(field: FieldDescriptor, most: int) -> Check:
    def check(message: Message, path: str) -> None:
        if len(getattr(message, field.name)) > most:
            raise InvalidArgument(
                _name(field, path),
                f"has {len(getattr(message, field.name))} characters. Give at most {most}.",
                reason="TOO_LONG",
            )

    return check


def _items(field: FieldDescriptor, most: int) -> Check:
    def check(message: Message, path: str) -> None:
        if len(getattr(message, field.name)) > most:
            raise InvalidArgument(
                _name(field, path),
                f"has {len(getattr(message, field.name))} items. Give at most {most}.",
                reason="TOO_MANY",
            )

    return check
