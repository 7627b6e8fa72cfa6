"""JSON Schema of messages as answers have them: open and complete."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from footlights.gateway.openapi.schema import LONG, UNSIGNED_LONG, Schemas, nullable
from footlights.gateway.routing.field_options import field_options, is_output_only
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

    from footlights.gateway.openapi.components import Schema


class AnswerSchemas(Schemas):
    """Answers: the members that the gateway always prints are required, others and new enum values may be added.

    Bounds are those of requests, so an answer has none.
    """

    def scalar(self, field: FieldDescriptor) -> Schema:
        """The schema of a scalar or enum."""
        schema = super().scalar(field)
        return {key: value for key, value in schema.items() if key not in ("minimum", "maximum")}

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a member, with its comment."""
        schema = self.whole(field)
        if field.message_type is not None and not field.is_repeated and field.containing_oneof is None:
            schema = nullable(schema)
        schema |= self._about(field)
        if is_output_only(field):
            schema["readOnly"] = True
        if example := field_options(field).Extensions[annotations_pb2.rules].example:
            schema["examples"] = [json.loads(example)]
        return schema

    def _refer(self, descriptor: Descriptor) -> Schema:
        return self.components.refer(descriptor.full_name, lambda: self._object(descriptor))

    def _object(self, descriptor: Descriptor) -> Schema:
        schema: Schema = {"type": "object", "properties": {self.name(f): self.field(f) for f in descriptor.fields}}
        # Members of a oneof, and optional ones, are printed only when they are set.
        if required := [self.name(field) for field in descriptor.fields if field.containing_oneof is None]:
            schema["required"] = required
        return self._described(descriptor, schema)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        # Generators know an enum beside a string as an enum that grows.
        return {"anyOf": [self._known_values(enum), {"type": "string"}]}

    def _long(self, *, signed: bool) -> Schema:
        return {**(LONG if signed else UNSIGNED_LONG), "pattern": "^-?[0-9]+$" if signed else "^[0-9]+$"}
