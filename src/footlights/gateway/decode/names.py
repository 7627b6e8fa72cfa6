"""Looking fields up by the names that requests may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

_names: dict[Descriptor, dict[str, FieldDescriptor]] = {}


def names(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Fields by every name that JSON and query strings may use: the proto name, and the JSON name, which wins."""
    found = _names.get(descriptor)
    if found is None:
        found = {field.name: field for field in descriptor.fields}
        found.update((field.json_name, field) for field in descriptor.fields)
        _names[descriptor] = found
    return found


def json_name(field: FieldDescriptor) -> str:
    """The JSON name: lowerCamelCase, or what was set by hand."""
    return str(field.json_name)


def proto_name(field: FieldDescriptor) -> str:
    """The proto name."""
    return str(field.name)


def own_name(field: FieldDescriptor) -> str:
    """The JSON name where it was set by hand, else the proto name."""
    head, *rest = field.name.split("_")
    default = head + "".join(part[:1].upper() + part[1:] for part in rest)
    return str(field.name if field.json_name == default else field.json_name)


def descriptor_of(message: Message) -> Descriptor:
    """The descriptor of a message, under the one type that the stubs have for it elsewhere."""
    return message.DESCRIPTOR  # type: ignore[return-value]  # upb's class beside the public one
