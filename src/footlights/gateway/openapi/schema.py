"""JSON Schema of messages: what is the same in requests and answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from footlights.gateway.decode.json_scalars import RANGES
from footlights.gateway.decode.names import own_name
from footlights.gateway.routing.field_options import field_options
from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.gateway.openapi.components import Components, Schema
    from footlights.gateway.options import Options

_F = FieldDescriptor
LONG: Final = {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,17})$"}
UNSIGNED_LONG: Final = {"type": "string", "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,18})$"}
_DURATION: Final = {"type": "string", "pattern": r"^-?(0|[1-9][0-9]{0,10})(\.[0-9]{1,9})?s$", "examples": ["3600s"]}
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


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request must have the field."""
    return field_behavior_pb2.REQUIRED in field_options(field).Extensions[field_behavior_pb2.field_behavior]


def header_of(field: FieldDescriptor) -> str:
    """The HTTP header that also carries the field; empty where none does."""
    return str(field_options(field).Extensions[annotations_pb2.rules].header)
