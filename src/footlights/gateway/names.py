"""Looking fields up by the names that requests may use."""

from __future__ import annotations

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


def descriptor_of(message: Message) -> Descriptor:
    """The descriptor of a message, under the one type that the stubs have for it elsewhere."""
    return message.DESCRIPTOR  # type: ignore[return-value]  # upb's class beside the public one
