"""JSON Schema of messages as requests give them: closed and optional."""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor

from footlights.gateway.openapi.schema import (
    LONG,
    UNSIGNED_LONG,
    Schemas,
    is_required,
    nullable,
)
from footlights.gateway.routing.field_options import field_options, is_output_only
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor

    from footlights.gateway.openapi.components import Schema

_QUERY_DURATION: Final = {
    "type": "string", "pattern": "^(0|[1-9][0-9]{0,5})(ms|s|m|h)$", "examples": ["90s", "1h"],
}  # fmt: skip
_QUERY: Final[dict[str, Schema]] = {
    "google.protobuf.Duration": _QUERY_DURATION,
    "google.protobuf.FieldMask": {"type": "string", "description": "Paths with commas between them."},
}


class RequestSchemas(Schemas):
    """Requests: closed in strict mode, without what only answers have, and nothing but REQUIRED members is required."""

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a member, with its comment and its rules; null is read as unset."""
        schema, about = self._ruled(field, self.whole(field))
        if is_required(field):
            return {**schema, **about}
        if "default" in about:
            # Beside the type itself and not around it: generators take a member with a default for one that is always
            # there, in requests too.
            default = about.pop("default")
            return {"anyOf": [{**schema, "default": default}, {"type": "null"}], **about}
        return {**nullable(schema), **about}

    def parameter(self, field: FieldDescriptor) -> Schema:
        """The schema of a parameter, with its comment and its rules."""
        schema, about = self._ruled(field, self._text(field))
        return {**schema, **about}

    def _text(self, field: FieldDescriptor) -> Schema:
        inner = field.message_type
        if field.is_repeated and inner is not None and inner.GetOptions().map_entry:
            # A bracket in a key would end the parameter's name.
            return {"propertyNames": {"pattern": r"^[^\[\]]*$"}, **self.whole(field)}
        if inner is None or field.is_repeated:
            return self.whole(field)
        if inner.full_name in _QUERY:
            return dict(_QUERY[inner.full_name])
        if inner.full_name.startswith("google.protobuf.") and "value" in inner.fields_by_name:
            return self.scalar(inner.fields_by_name["value"])
        return self.message(inner)

    def _ruled(self, field: FieldDescriptor, schema: Schema) -> tuple[Schema, Schema]:
        """The value with its bounds, and what is said beside it."""
        options = field_options(field)
        rules = options.Extensions[annotations_pb2.rules]
        about = self._about(field)
        if rules.HasField("maximum") and rules.clamp_maximum:
            about["description"] = f"{about.get('description', '')} Values above {rules.maximum} are lowered to it."
            about["description"] = about["description"].strip()
        if field_behavior_pb2.INPUT_ONLY in options.Extensions[field_behavior_pb2.field_behavior]:
            about["writeOnly"] = True
        if rules.default_value:
            about["default"] = json.loads(rules.default_value)
        if rules.example:
            about["examples"] = [json.loads(rules.example)]
        return _bounded(schema, field, rules), about

    def _refer(self, descriptor: Descriptor) -> Schema:
        return self.components.refer(descriptor.full_name, lambda: self.whole_object(descriptor), given=True)

    def whole_object(self, descriptor: Descriptor) -> Schema:
        """The schema of a message that is not a well-known type, in place."""
        fields = [field for field in descriptor.fields if not is_output_only(field)]
        schema: Schema = {"type": "object", "properties": {self.name(field): self.field(field) for field in fields}}
        if required := [self.name(field) for field in fields if is_required(field)]:
            schema["required"] = required
        if self._options.strict:
            schema["additionalProperties"] = False
        pairs = [
            {"not": {"required": [self.name(one), self.name(other)]}}
            for oneof in descriptor.oneofs
            for one, other in combinations(oneof.fields, 2)
        ]
        if pairs:
            schema["allOf"] = pairs
        return self._described(descriptor, schema)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        return self._known_values(enum)

    def _long(self, *, signed: bool) -> Schema:
        # Numbers are read as well, as far as JSON of others has them without loss.
        return {**(LONG if signed else UNSIGNED_LONG), "type": ["string", "integer"]}


def _bounded(schema: Schema, field: FieldDescriptor, rules: annotations_pb2.Rules) -> Schema:
    """A copy of a schema with a field's bounds."""
    schema = dict(schema)
    target = schema
    if schema.get("type") == "array":
        target = schema["items"] = dict(schema["items"])
    if rules.HasField("minimum"):
        # Without presence, zero means unset and is allowed.
        target["minimum"] = rules.minimum if field.has_presence or field.is_repeated else min(rules.minimum, 0)
    if rules.HasField("maximum") and not rules.clamp_maximum:
        target["maximum"] = rules.maximum
    if rules.allowed_values:
        # Without presence, the empty string means unset.
        target["enum"] = [*rules.allowed_values, *([] if field.has_presence or field.is_repeated else [""])]
    if rules.pattern:
        target["pattern"] = f"^(?:{rules.pattern})$"
    if rules.HasField("max_length"):
        target["maxLength"] = rules.max_length
    if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and is_required(field):
        # Without presence, the empty string means unset, and a required field must be set.
        target.setdefault("minLength", 1)
    if rules.HasField("max_items"):
        schema["maxItems" if schema.get("type") == "array" else "maxProperties"] = rules.max_items
    return schema
