"""JSON values to messages: one function a message type, compiled from its descriptor.

What is accepted is what protojson accepts. Of a message with a hundred fields only the members that are there cost
anything: a table of setters by name is made once, so reading is a dictionary look-up and a call per member.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from footlights.gateway.decode import well_known
from footlights.gateway.decode.json_scalars import RANGES, Convert, MemberError, converter, mismatch
from footlights.gateway.decode.json_text import MAX_DEPTH, RepeatedMembers, has_more, parse_first, too_deep
from footlights.gateway.decode.names import descriptor_of, own_name

if TYPE_CHECKING:
    from collections.abc import Container

    from google.protobuf.message import Message

_F = FieldDescriptor
Fill = Callable[[Any, Any, int], None]
"""Fills a message from a JSON value; the third argument is how many levels of messages may lie inside it."""
_Entry = tuple[Fill, int | None, str | None, bool]
"""A setter, the number of a field that has two names, its oneof, and whether it takes null."""
_TAKES_NULL: Final = ("google.protobuf.Value", "google.protobuf.NullValue")
_INTEGER_KEY: Final = re.compile(r"[+-]?[0-9]{1,400}")


class MessageReader:
    """Compiled readers; where unknown members and enum names are not ignored, they are refused."""

    def __init__(self, *, ignore_unknown: bool) -> None:
        self.ignore_unknown = ignore_unknown
        self._compiled: dict[Descriptor, Fill] = {}

    def read(self, value: object, message: Message) -> None:
        """Fill an empty message from a JSON value; after an error it holds a part of it.

        Raises:
            MemberError: the value is not that message.
            GatewayError: it has too many levels.
        """
        self.for_type(descriptor_of(message))(message, value, MAX_DEPTH - 1)

    def read_text(self, text: str, message: Message) -> None:
        """Fill an empty message from a text that must be one JSON value and nothing else.

        Raises:
            MemberError: the text is no JSON, or the value is not that message.
            GatewayError: the text is not JSON, or has too many levels.
        """
        parsed = parse_first(text)
        if parsed is None:
            raise MemberError("must be a JSON value (got an empty text).")
        value, end = parsed
        if has_more(text, end):
            raise MemberError("must be one JSON value (more follows it).")
        self.read(value, message)

    def for_type(self, descriptor: Descriptor) -> Fill:
        """The function that fills messages of a type."""
        found = self._compiled.get(descriptor)
        if found is None:
            special = well_known.READERS.get(descriptor.full_name)
            found = special(self, descriptor) if special is not None else self._compile(descriptor)
            self._compiled[descriptor] = found
        return found

    def _compile(self, descriptor: Descriptor) -> Fill:
        by_name: dict[str, _Entry] = {}
        by_json_name: dict[str, _Entry] = {}
        for field in descriptor.fields:
            # Only a field with two names can be given twice: the same name twice has been found in the text.
            number = field.number if field.name != field.json_name else None
            oneof = field.containing_oneof.name if field.containing_oneof is not None else None
            entry = self._setter(field), number, oneof, takes_null(field)
            by_name[field.name] = entry
            by_json_name[field.json_name] = entry
        table = by_name | by_json_name
        lookup, ignore_unknown = table.get, self.ignore_unknown

        def fill(message: Any, value: Any, levels: int) -> None:
            if type(value) is not dict:
                check_object(value, table)
            given: set[int | str] | tuple[()] = ()
            for name, item in value.items():
                entry = lookup(name)
                if entry is None:
                    if ignore_unknown:
                        continue
                    raise _unknown(descriptor, name)
                set_field, number, oneof, nullable = entry
                if number is not None:
                    if number in given:
                        raise given_twice(name)
                    given = {*given, number}
                if item is None and not nullable:
                    continue
                if oneof is not None:
                    if oneof in given:
                        raise _second_of_oneof(descriptor, name, oneof)
                    given = {*given, oneof}
                try:
                    set_field(message, item, levels)
                except MemberError as error:
                    error.path.insert(0, name)
                    raise

        return fill

    def _setter(self, field: FieldDescriptor) -> Fill:
        name, inner = field.name, field.message_type
        if field.is_repeated:
            set_items = self.for_map(inner) if inner is not None and _is_map(inner) else self.for_list(field)
            return lambda message, value, levels: set_items(getattr(message, name), value, levels)
        if inner is not None:
            fill_inner = self.late(inner)

            def set_message(message: Any, value: Any, levels: int) -> None:
                if levels < 1:
                    raise too_deep()
                member = getattr(message, name)
                member.SetInParent()
                fill_inner(member, value, levels - 1)

            return set_message
        if field.type == _F.TYPE_STRING:

            def set_string(message: Any, value: Any, _: int) -> None:
                if type(value) is not str:
                    raise mismatch("a string", value)
                setattr(message, name, value)

            return set_string
        convert = converter(field, ignore_unknown=self.ignore_unknown)

        def set_scalar(message: Any, value: Any, _: int) -> None:
            converted = convert(value)
            if converted is not None:
                setattr(message, name, converted)

        return set_scalar

    def for_list(self, field: FieldDescriptor) -> Fill:
        """The function that fills the container of a repeated field."""
        if field.message_type is not None:
            fill_inner = self.late(field.message_type)

            def add_messages(container: Any, value: Any, levels: int) -> None:
                _check_array(value)
                if levels < 1 and value:
                    raise too_deep()
                for item in value:
                    try:
                        fill_inner(container.add(), item, levels - 1)
                    except MemberError as error:
                        error.path.insert(0, f"[{len(container) - 1}]")
                        raise

            return add_messages
        convert = converter(field, ignore_unknown=self.ignore_unknown)
        may_skip = field.enum_type is not None

        def add_scalars(container: Any, value: Any, _: int) -> None:
            _check_array(value)
            try:
                items = [convert(item) for item in value]
            except MemberError:
                raise _at_index(convert, value) from None
            container.extend([item for item in items if item is not None] if may_skip else items)

        return add_scalars

    def for_map(self, entry: Descriptor) -> Fill:
        """The function that fills the container of a map field."""
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        convert_key = None if key_field.type == _F.TYPE_STRING else _map_key(key_field)
        inner = value_field.message_type
        fill_inner = self.late(inner) if inner is not None else None
        convert = converter(value_field, ignore_unknown=self.ignore_unknown) if inner is None else None
        depth = 1 if inner is None else 2  # an entry is a message, too

        def set_entries(container: Any, value: Any, levels: int) -> None:
            if type(value) is not dict:
                check_object(value)
            if levels < depth and value:
                raise too_deep()
            for name, item in value.items():
                try:
                    key = name
                    if convert_key is not None:
                        key = convert_key(name)
                        if key in container:
                            raise MemberError("is given twice; give it once.", reason="DUPLICATE_MEMBER")
                    if fill_inner is not None:
                        fill_inner(container[key], item, levels - depth)
                    elif convert is not None and (converted := convert(item)) is not None:
                        container[key] = converted
                except MemberError as error:
                    error.path.insert(0, name)
                    raise

        return set_entries

    def late(self, descriptor: Descriptor) -> Fill:
        """The reader of a type, found at the first use, because types may contain themselves."""
        found: list[Fill] = []

        def fill_late(message: Any, value: Any, levels: int) -> None:
            if not found:
                found.append(self.for_type(descriptor))
            found[0](message, value, levels)

        return fill_late


STRICT: Final = MessageReader(ignore_unknown=False)
LENIENT: Final = MessageReader(ignore_unknown=True)


def check_object(value: object, known: Container[str] | None = None) -> None:
    """Refuse what is not an object, and one that gives a member twice.

    Args:
        value: the JSON value.
        known: the members that may not be given twice; without it, none may.

    Raises:
        MemberError: either is the case.
    """
    if not isinstance(value, dict):
        raise mismatch("an object", value)
    if isinstance(value, RepeatedMembers):
        for name in sorted(value.names):
            if known is None or name in known:
                raise given_twice(name)


def given_twice(name: str) -> MemberError:
    """The error for a member that is given more than once."""
    return MemberError("is given twice; give it once.", reason="DUPLICATE_MEMBER", path=[name])


def takes_null(field: FieldDescriptor) -> bool:
    """Whether null is a value of the field, and not the same as leaving it out."""
    inner = field.enum_type or field.message_type
    return not field.is_repeated and inner is not None and inner.full_name in _TAKES_NULL


def _check_array(value: object) -> None:
    if type(value) is not list:
        raise mismatch("an array", value)


def _at_index(convert: Convert, values: list[Any]) -> MemberError:
    """The error of the first value that cannot be converted."""
    for index, value in enumerate(values):
        try:
            convert(value)
        except MemberError as error:
            error.path.insert(0, f"[{index}]")
            return error
    raise AssertionError("the values have just been refused")


def _map_key(field: FieldDescriptor) -> Convert:
    if field.type == _F.TYPE_BOOL:

        def to_bool(name: str) -> bool:
            if name not in ("true", "false"):
                raise MemberError("must be a key that is true or false.")
            return name == "true"

        return to_bool
    low, high = RANGES[field.type]

    def to_integer(name: str) -> int:
        if _INTEGER_KEY.fullmatch(name) and not (low == 0 and name[0] in "+-") and low <= int(name) <= high:
            return int(name)
        raise MemberError(f"must be a key that is an integer from {low} to {high}.")

    return to_integer


def _unknown(descriptor: Descriptor, name: str) -> MemberError:
    known = ", ".join(sorted({own_name(field) for field in descriptor.fields})) or "none"
    return MemberError(f"is not a known member; choose from {known}.", reason="UNKNOWN_FIELD", path=[name])


def _second_of_oneof(descriptor: Descriptor, name: str, oneof: str) -> MemberError:
    members = ", ".join(own_name(field) for field in descriptor.oneofs_by_name[oneof].fields)
    return MemberError(f"cannot be given together with another of {members}; give only one of them.", path=[name])


def _is_map(descriptor: Descriptor) -> bool:
    return bool(descriptor.GetOptions().map_entry)
