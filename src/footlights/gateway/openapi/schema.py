"""JSON Schema of messages, as the gateway reads and writes them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions

from footlights.gateway.decode.json_scalars import RANGES
from footlights.gateway.decode.names import own_name
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.gateway.options import Options

Schema = dict[str, Any]
_F = FieldDescriptor
_LONG: Final = {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,17})$"}
_UNSIGNED_LONG: Final = {"type": "string", "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,18})$"}
_DURATION: Final = {"type": "string", "pattern": r"^-?(0|[1-9][0-9]{0,10})(\.[0-9]{1,9})?s$", "examples": ["3600s"]}
_QUERY_DURATION: Final = {
    "type": "string", "pattern": "^(0|[1-9][0-9]{0,5})(ms|s|m|h)$", "examples": ["90s", "1h"],
}  # fmt: skip
_PATH: Final = r"[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)*"
_QUERY: Final[dict[str, Schema]] = {
    "google.protobuf.Duration": _QUERY_DURATION,
    "google.protobuf.FieldMask": {"type": "string", "pattern": f"^{_PATH}(,{_PATH})*$"},
}
_TIME: Final = {"type": "string", "format": "date-time", "examples": ["2026-11-23T10:15:00Z"]}
_WELL_KNOWN: Final[dict[str, Schema]] = {
    "Timestamp": _TIME,
    "Duration": _DURATION,
    "FieldMask": {"type": "string", "pattern": "^([a-z][a-zA-Z]*(\\.[a-z][a-zA-Z]*)*(,[a-z][a-zA-Z]*)*)?$"},
    "Struct": {"type": "object", "additionalProperties": True},
    "Value": {},
    "ListValue": {"type": "array", "items": {}},
    "Empty": {"type": "object", "additionalProperties": False},
    "Any": {
        "type": "object", "required": ["@type"], "additionalProperties": True,
        "properties": {"@type": {"type": "string", "description": "The URL of the type."}},
    },
}  # fmt: skip


class Schemas:
    """Schemas by reference; what is referred to is collected under ``components``."""

    def __init__(self, options: Options, comments: Mapping[str, str]) -> None:
        self.components: dict[str, Schema] = {}
        self._options, self._comments = options, comments
        self._names: dict[str, str] = {}

    def name(self, field: FieldDescriptor) -> str:
        """The member's or parameter's name."""
        return own_name(field) if self._options.use_proto_names else str(field.json_name)

    def message(self, descriptor: Descriptor) -> Schema:
        """The schema of a message: in place for well-known types, by reference for all others."""
        package, _, simple = descriptor.full_name.rpartition(".")
        if package == "google.protobuf":
            if simple in _WELL_KNOWN:
                return dict(_WELL_KNOWN[simple])
            if simple.endswith("Value"):
                return self.nullable(self.scalar(descriptor.fields_by_name["value"]))
        return self._refer(descriptor.full_name, lambda: self._object(descriptor))

    def field(self, field: FieldDescriptor, *, query: bool = False) -> Schema:
        """The schema of a field with its comment and its rules."""
        inner = field.message_type
        if field.is_repeated and inner is not None and inner.GetOptions().map_entry:
            value = self._single(inner.fields_by_name["value"], query=query)
            schema: Schema = {"type": "object", "additionalProperties": value}
            if query:
                # A bracket in a key would end the parameter's name.
                schema["propertyNames"] = {"pattern": r"^[^\[\]]*$"}
            key = inner.fields_by_name["key"]
            if key.type == _F.TYPE_BOOL:
                schema["propertyNames"] = {"enum": ["true", "false"]}
            elif key.type != _F.TYPE_STRING:
                schema["propertyNames"] = {"pattern": "^-?(0|[1-9][0-9]{0,8})$"}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, query=query)}
        else:
            schema = self._single(field, query=query)
        schema = self._ruled(field, schema)
        # Unset messages are printed as null, and null is read as unset for every field.
        may_be_null = (inner is not None and not field.is_repeated) or not schema.get("readOnly")
        if query or self.is_required(field) or not may_be_null:
            return schema
        outside: Schema = {
            key: schema.pop(key) for key in ("description", "readOnly", "default", "examples") if key in schema
        }
        return {**self.nullable(schema), **outside}

    def scalar(self, field: FieldDescriptor) -> Schema:
        """The schema of a scalar or enum."""
        if field.enum_type is not None:
            enum = field.enum_type
            return self._refer(enum.full_name, lambda: self._enum(enum))
        if field.type in RANGES:
            low, high = RANGES[field.type]
            if high > 2**32:
                return dict(_LONG if low else _UNSIGNED_LONG)
            return {"type": "integer", "format": "int32" if low else "uint32", "minimum": low, "maximum": high}
        found: dict[int, Schema] = {
            _F.TYPE_BOOL: {"type": "boolean"},
            _F.TYPE_STRING: {"type": "string"},
            _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})*$"},
            _F.TYPE_FLOAT: {"type": "number", "format": "float", "minimum": -3.4e38, "maximum": 3.4e38},
        }
        return found.get(field.type, {"type": "number", "format": "double"})

    def _single(self, field: FieldDescriptor, *, query: bool) -> Schema:
        inner = field.message_type
        if inner is None:
            return self.scalar(field)
        if query:
            if inner.full_name in _QUERY:
                return dict(_QUERY[inner.full_name])
            if inner.full_name.startswith("google.protobuf.") and "value" in inner.fields_by_name:
                return self.scalar(inner.fields_by_name["value"])
        return self.message(inner)

    def _ruled(self, field: FieldDescriptor, schema: Schema) -> Schema:
        schema = dict(schema)
        options = FieldOptions.FromString(field.GetOptions().SerializeToString())
        text = self._comments.get(field.full_name, "")
        behaviors = options.Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.OUTPUT_ONLY in behaviors:
            schema["readOnly"] = True
        if field_behavior_pb2.INPUT_ONLY in behaviors:
            schema["writeOnly"] = True
        if options.deprecated:
            schema["deprecated"] = True
        rules = options.Extensions[annotations_pb2.rules]
        _add_bounds(schema, field, rules, is_required=field_behavior_pb2.REQUIRED in behaviors)
        if rules.HasField("maximum") and rules.clamp_maximum:
            text += f" Values above {rules.maximum} are lowered to it."
        if text:
            schema["description"] = text.strip()
        return schema

    def is_required(self, field: FieldDescriptor) -> bool:
        """Whether a request must have the field."""
        options = FieldOptions.FromString(field.GetOptions().SerializeToString())
        return field_behavior_pb2.REQUIRED in options.Extensions[field_behavior_pb2.field_behavior]

    def _object(self, descriptor: Descriptor) -> Schema:
        schema: Schema = {
            "type": "object",
            "properties": {self.name(field): self.field(field) for field in descriptor.fields},
        }
        required = [self.name(field) for field in descriptor.fields if self.is_required(field)]
        if required:
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
        if descriptor.full_name in self._comments:
            schema["description"] = self._comments[descriptor.full_name]
        return schema

    def _enum(self, enum: EnumDescriptor) -> Schema:
        lines = [self._comments.get(enum.full_name, "")]
        lines += [
            f"- `{value.name}`: {self._comments[value_name]}"
            for value in enum.values
            if (value_name := f"{enum.full_name}.{value.name}") in self._comments
        ]
        schema: Schema = {"type": "string", "enum": [value.name for value in enum.values]}
        if text := "\n".join(line for line in lines if line):
            schema["description"] = text
        return schema

    def _refer(self, full_name: str, build: Any) -> Schema:
        name = self._component(full_name)
        if name not in self.components:
            self.components[name] = {}  # so that a type which contains itself ends here
            self.components[name] = build()
        return {"$ref": f"#/components/schemas/{name}"}

    def _component(self, full_name: str) -> str:
        """The shortest unique end of a full name that starts with a type."""
        found = self._names.get(full_name)
        if found is None:
            parts = full_name.split(".")
            first = next((i for i, part in enumerate(parts) if re.match("[A-Z]", part)), len(parts) - 1)
            found = ".".join(parts[first:])
            if found in self._names.values():
                found = full_name
            self._names[full_name] = found
        return found

    def nullable(self, schema: Schema) -> Schema:
        """A schema that also allows null."""
        if "$ref" in schema:
            return {"anyOf": [schema, {"type": "null"}]}
        if "enum" in schema or not isinstance(schema.get("type"), str):
            return {"anyOf": [schema, {"type": "null"}]} if schema else schema
        return {**schema, "type": [schema["type"], "null"]}


def _add_bounds(schema: Schema, field: FieldDescriptor, rules: annotations_pb2.Rules, *, is_required: bool) -> None:
    """Add the default, examples and bounds of a field to its schema."""
    if rules.default_value:
        schema["default"] = json.loads(rules.default_value)
    if rules.example:
        schema["examples"] = [json.loads(rules.example)]
    target = schema["items"] if schema.get("type") == "array" else schema
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
    if field.type == _F.TYPE_STRING and not field.is_repeated and is_required:
        # Without presence, the empty string means unset, and a required field must be set.
        target.setdefault("minLength", 1)
    if rules.HasField("max_items"):
        schema["maxItems" if schema.get("type") == "array" else "maxProperties"] = rules.max_items
