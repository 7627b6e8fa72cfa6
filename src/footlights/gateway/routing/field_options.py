"""The options of fields, whichever pool their descriptors are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import FieldOptions

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor


def field_options(field: FieldDescriptor) -> FieldOptions:
    """A field's options, with the extensions of this process."""
    # Through bytes: descriptors of another pool carry options of that pool's classes.
    return FieldOptions.FromString(field.GetOptions().SerializeToString())


def is_output_only(field: FieldDescriptor) -> bool:
    """Whether only answers have the field; in a request it is without effect."""
    return field_behavior_pb2.OUTPUT_ONLY in field_options(field).Extensions[field_behavior_pb2.field_behavior]
