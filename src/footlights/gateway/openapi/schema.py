"""JSON Schema of messages: closed and optional as requests give them, open and complete as answers have them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from itertools import combinations
from typing import TYPE_CHECKING, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions

from footlights.gateway.decode.json_scalars import RANGES
from footlights.gateway.decode.names import own_name
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.gateway.openapi.components import Components, Schema
    from footlights.gateway.options import Options

_F = FieldDescriptor
_LONG: Final = {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,17})$"}
_UNSIGNED_LONG: Final = {"type": "string", "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,18})$"}
_DURATION: Final = {"type": "string", "pattern": r"^-?(0|[1-9][0-9]{0,10})(\.[0-9]{1,9})?s$", "examples": ["3600s"]}
_QUERY_DURATION: Final = {
    "type": "string", "pattern": "^(0|[1-9][0-9]{0,5})(ms|s|m|h)$", "examples": ["90s", "1h"],
}  # fmt: skip
_QUERY: Final[dict[str, Schema]] = {
    "google.protobuf.Duration": _QUERY_DURATION,
    "google.protobuf.FieldMask": {"type": "string", "description": "Paths with commas between them."},
}
_TIME: Final = {"type": "string", "format": "date-time", "examples": ["2026-11-23T10:15:00Z"]}
_WELL_KNOWN: Final[dict[str, Schema]] = {
    "Timestamp": _TIME,
    "Duration": _DURATION,
    "FieldMask": {"type": "string", "pattern": "^([a-z][a-zA-Z]*(\\.[a-z][a-zA-Z]*)*(,[a-z][a-zA-Z]*)*)?$"},
    "Struct": {"type": "object", "additionalProperties": True},
    "Value": {},
    "ListValue": {"type": "array", "items": {}},
    "Any": {
        "type": "object", "required": ["@type"], "additionalProperties": True,
        "properties": {"@type": {"type": "string", "description": "The URL of the type."}},
    },
}  # fmt: skip


class Schemas(ABC):
    """Schemas of one direction."""

    def __init__(self, components: Components, options: Options, comments: Mapping[str, str]) -> None:
        self.components = components
        self._options, self._comments = options, comments

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
                return nullable(self.scalar(descriptor.fields_by_name["value"]))
        return self._refer(descriptor)

    @abstractmethod
    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a member, with its comment."""

    def scalar(self, field: FieldDescriptor) -> Schema:
        """The schema of a scalar or enum."""
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type in RANGES:
            low, high = RANGES[field.type]
            if high > 2**32:
                return self._long(signed=bool(low))
            return {"type": "integer", "format": "int32" if low else "uint32", "minimum": low, "maximum": high}
        found: dict[int, Schema] = {
            _F.TYPE_BOOL: {"type": "boolean"},
            _F.TYPE_STRING: {"type": "string"},
            _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})*$"},
            _F.TYPE_FLOAT: {"type": "number", "format": "float", "minimum": -3.4e38, "maximum": 3.4e38},
        }
        return found.get(field.type, {"type": "number", "format": "double"})

    def whole(self, field: FieldDescriptor) -> Schema:
        """The schema of a field's value, without what its options say of it."""
        inner = field.message_type
        if field.is_repeated and inner is not None and inner.GetOptions().map_entry:
            schema: Schema = {"type": "object", "additionalProperties": self._single(inner.fields_by_name["value"])}
            key = inner.fields_by_name["key"]
            if key.type == _F.TYPE_BOOL:
                schema["propertyNames"] = {"enum": ["true", "false"]}
            elif key.type != _F.TYPE_STRING:
                schema["propertyNames"] = {"pattern": "^-?(0|[1-9][0-9]{0,8})$"}
            return schema
        return {"type": "array", "items": self._single(field)} if field.is_repeated else self._single(field)

    def _single(self, field: FieldDescriptor) -> Schema:
        return self.scalar(field) if field.message_type is None else self.message(field.message_type)

    def _about(self, field: FieldDescriptor) -> Schema:
        """What is said beside the value."""
        schema: Schema = {}
        if text := self._comments.get(field.full_name, ""):
            schema["description"] = text
        if field_options(field).deprecated:
            schema["deprecated"] = True
        return schema

    @abstractmethod
    def _refer(self, descriptor: Descriptor) -> Schema: ...

    @abstractmethod
    def _enum(self, enum: EnumDescriptor) -> Schema: ...

    @abstractmethod
    def _long(self, *, signed: bool) -> Schema: ...

    def _described(self, descriptor: Descriptor, schema: Schema) -> Schema:
        if descriptor.full_name in self._comments:
            schema["description"] = self._comments[descriptor.full_name]
        return schema

    def _known_values(self, enum: EnumDescriptor) -> Schema:
        """The values of an enum that are known today."""

        def build() -> Schema:
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

        return self.components.refer(enum.full_name, build)


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
        options = field_options(field)
        if field_behavior_pb2.OUTPUT_ONLY in options.Extensions[field_behavior_pb2.field_behavior]:
            schema["readOnly"] = True
        if example := options.Extensions[annotations_pb2.rules].example:
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
        return {**(_LONG if signed else _UNSIGNED_LONG), "pattern": "^-?[0-9]+$" if signed else "^[0-9]+$"}


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
        return {**(_LONG if signed else _UNSIGNED_LONG), "type": ["string", "integer"]}


def nullable(schema: Schema) -> Schema:
    """A schema that also allows null."""
    if not schema:
        return schema
    if "anyOf" in schema and schema.keys() == {"anyOf"}:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema or "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return schema if "null" in types else {**schema, "type": [*types, "null"]}


def field_options(field: FieldDescriptor) -> FieldOptions:
    """A field's options, with the extensions of this process."""
    # Through bytes: descriptors of another pool carry options of that pool's classes.
    return FieldOptions.FromString(field.GetOptions().SerializeToString())


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request must have the field."""
    return field_behavior_pb2.REQUIRED in field_options(field).Extensions[field_behavior_pb2.field_behavior]


def is_output_only(field: FieldDescriptor) -> bool:
    """Whether only answers have the field; in a request it is without effect."""
    return field_behavior_pb2.OUTPUT_ONLY in field_options(field).Extensions[field_behavior_pb2.field_behavior]


def header_of(field: FieldDescriptor) -> str:
    """The HTTP header that also carries the field; empty where none does."""
    return str(field_options(field).Extensions[annotations_pb2.rules].header)


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
    if field.type == _F.TYPE_STRING and not field.is_repeated and is_required(field):
        # Without presence, the empty string means unset, and a required field must be set.
        target.setdefault("minLength", 1)
    if rules.HasField("max_items"):
        schema["maxItems" if schema.get("type") == "array" else "maxProperties"] = rules.max_items
    return schema
