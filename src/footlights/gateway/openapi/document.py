"""The OpenAPI document: operations from bindings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.rpc import error_details_pb2, status_pb2

from footlights.gateway.openapi.comments import comments
from footlights.gateway.openapi.schema import Schema, Schemas
from footlights.gateway.routing.binding import HTTP_BODY, Binding, routes, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor

    from footlights.gateway.options import Options

_MAX_DEPTH: Final = 3
_BOUNDS: Final = frozenset(("minLength", "maxLength", "pattern", "enum"))
_DETAILS: Final = tuple(
    error_details_pb2.DESCRIPTOR.message_types_by_name[name]
    for name in ("ErrorInfo", "BadRequest", "RetryInfo", "ResourceInfo")
)
"""The usual details of an error."""
_QUERY_MESSAGES: Final = frozenset(("Timestamp", "Duration", "FieldMask"))


@dataclass(frozen=True, slots=True)
class Info:
    """The parts of the document that descriptors do not hold."""

    title: str
    version: str
    description: str = ""
    servers: tuple[str, ...] = ()
    bearer: bool = False
    """Whether calls are authorised by a bearer token."""


def document(
    services: Sequence[ServiceDescriptor | str], options: Options, info: Info, *, descriptor_set: bytes = b""
) -> dict[str, Any]:
    """The OpenAPI document of what a gateway with these options serves.

    Args:
        services: as the gateway's.
        options: as the gateway's.
        info: title, version, security.
        descriptor_set: a FileDescriptorSet with source info, for comments.
    """
    return _Document(routes(services, options), options, info, comments(descriptor_set)).build()


class _Document:
    def __init__(self, bindings: Sequence[Binding], options: Options, info: Info, texts: Mapping[str, str]) -> None:
        self._bindings, self._options, self._info, self._texts = bindings, options, info, texts
        self._schemas = Schemas(options, texts)
        self._ids: set[str] = set()

    def build(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        tags: dict[str, Schema] = {}
        for binding in self._bindings:
            path, parameters = self._path(binding)
            method = binding.http_method.lower()
            if method in ("get", "put", "post", "delete", "options", "head", "patch", "trace"):
                # The binding declared last wins, as in the router.
                paths.setdefault(path, {})[method] = self._operation(binding, parameters)
            service = binding.rpc.containing_service
            tags[service.name] = {"name": service.name}
            if service.full_name in self._texts:
                tags[service.name]["description"] = self._texts[service.full_name]
        about: Schema = {"title": self._info.title, "version": self._info.version}
        if self._info.description:
            about["description"] = self._info.description
        built: dict[str, Any] = {"openapi": "3.1.0", "info": about}
        if self._info.servers:
            built["servers"] = [{"url": url} for url in self._info.servers]
        self._status()
        components: Schema = {"schemas": dict(sorted(self._schemas.components.items()))}
        components["responses"] = {"Error": self._error()}
        if self._info.bearer:
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            built["security"] = [{"bearer": []}]
        return {**built, "tags": list(tags.values()), "paths": paths, "components": components}

    # Paths

    def _path(self, binding: Binding) -> tuple[str, list[Schema]]:
        """The path with a place for each wildcard, and its parameters."""
        template = binding.template
        parts = list(template.segments)
        parameters: list[Schema] = []
        for variable in template.variables:
            field = walk(binding.rpc.input_type, variable.field_path)[-1]
            wild = [i for i in range(variable.start, variable.end) if parts[i] in ("*", "**")]
            for count, index in enumerate(wild):
                # Tools take names without dots, and paths that differ only in names are the same path.
                short = variable.field_path.rpartition(".")[2]
                if sum(v.field_path.rpartition(".")[2] == short for v in template.variables) > 1:
                    short = variable.field_path.replace(".", "_")
                name = short if len(wild) == 1 else f"{short}_{count + 1}"
                deep = parts[index] == "**"
                parts[index] = "{" + name + "}"
                whole = len(wild) == 1 and variable.end - variable.start == 1 and not field.is_repeated
                schema = dict(self._schemas.field(field, query=True)) if whole else {"type": "string"}
                text = schema.pop("description", "")
                if schema.get("type") == "string" and not schema.keys() & {"enum", "pattern", "format"}:
                    # Dots alone are taken out of paths by clients before they send them.
                    schema["pattern"] = "^.*[^/.].*$" if deep else "^[^/]*[^/.][^/]*$"
                parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
                if text:
                    parameters[-1]["description"] = text
        for index, part in enumerate(parts):
            if part in ("*", "**"):
                parts[index] = f"{{segment_{index + 1}}}"
                parameters.append(
                    {"name": f"segment_{index + 1}", "in": "path", "required": True, "schema": {"type": "string"}}
                )
        return "/" + "/".join(parts) + (f":{template.verb}" if template.verb else ""), parameters

    # Operations

    def _operation(self, binding: Binding, parameters: list[Schema]) -> Schema:
        rpc = binding.rpc
        text = self._texts.get(rpc.full_name, "")
        operation: Schema = {"operationId": self._id(binding), "tags": [rpc.containing_service.name]}
        if text:
            operation["summary"] = re.split(r"(?<=[.:;])\s", text, maxsplit=1)[0].rstrip(".:;")
            operation["description"] = text
        if rpc.GetOptions().deprecated:
            operation["deprecated"] = True
        parameters = [*parameters]
        if binding.body != "*" and not rpc.client_streaming:
            taken = {variable.field_path for variable in binding.template.variables} | {binding.body}
            parameters += self._query(rpc.input_type, "", taken, 0)
        if rpc.server_streaming and binding.reply.last_event_id_field:
            field = walk(rpc.input_type, binding.reply.last_event_id_field)[-1]
            parameters.append({
                "name": "Last-Event-ID", "in": "header", "schema": self._schemas.field(field, query=True),
                "description": "The id of the last event received; the stream continues after it.",
            })  # fmt: skip
        if parameters:
            operation["parameters"] = parameters
        if binding.body:
            operation["requestBody"] = self._body(binding)
        operation["responses"] = self._responses(binding)
        return operation

    def _id(self, binding: Binding) -> str:
        base = f"{binding.rpc.containing_service.name}_{binding.rpc.name}"
        found, count = base, 1
        while found in self._ids:
            count += 1
            found = f"{base}_{count}"
        self._ids.add(found)
        return found

    def _query(self, message: Descriptor, prefix: str, taken: set[str], depth: int) -> Iterator[Schema]:
        for field in message.fields:
            path = prefix + field.name
            if path in taken:
                continue
            name = self._query_name(message, prefix, field)
            inner = field.message_type
            if inner is None or inner.full_name.rpartition(".")[0] == "google.protobuf":
                if inner is None or inner.name in _QUERY_MESSAGES or inner.name.endswith("Value"):
                    yield self._parameter(field, name)
            elif inner.GetOptions().map_entry:
                if inner.fields_by_name["value"].message_type is None:
                    yield {**self._parameter(field, name), "style": "deepObject", "explode": True}
            elif not field.is_repeated and depth < _MAX_DEPTH:
                yield from self._query(inner, path + ".", taken, depth + 1)

    def _query_name(self, message: Descriptor, prefix: str, field: FieldDescriptor) -> str:
        return prefix + self._schemas.name(field)

    def _parameter(self, field: FieldDescriptor, name: str) -> Schema:
        schema = self._schemas.field(field, query=True)
        schema.pop("readOnly", None)
        parameter: Schema = {"name": name, "in": "query", "schema": schema}
        if text := schema.pop("description", ""):
            parameter["description"] = text
        if self._schemas.is_required(field):
            parameter["required"] = True
        return parameter

    def _body(self, binding: Binding) -> Schema:
        rpc = binding.rpc
        taken = [variable.field_path for variable in binding.template.variables]
        if binding.body == "*":
            schema = self._without(rpc.input_type, taken)
        else:
            field = walk(rpc.input_type, binding.body)[0]
            inside = [path.partition(".")[2] for path in taken if path.startswith(binding.body + ".")]
            if inside and field.message_type is not None:
                schema = self._without(field.message_type, inside, keep=True)
            else:
                schema = self._schemas.field(field)
            if "anyOf" in schema:
                schema = schema["anyOf"][0]
        if rpc.client_streaming:
            text = "JSON values one after another; each is one message."
            return {"required": False, "description": text, "content": {"application/x-ndjson": {"schema": schema}}}
        # An empty body is an empty message, so only members that are required make the body so.
        target = self._resolve(schema)
        return {"required": bool(target.get("required")), "content": {"application/json": {"schema": schema}}}

    def _without(self, message: Descriptor, taken: Sequence[str], *, keep: bool = False) -> Schema:
        """The schema of a request whose path variables need not be given in the body again.

        Args:
            message: the message.
            taken: field paths.
            keep: allow the fields in the body all the same; the path overwrites them.
        """
        whole = self._schemas.message(message)
        if not taken or "$ref" not in whole:
            return whole
        schema = dict(self._resolve(whole))
        properties, required = dict(schema["properties"]), list(schema.get("required", ()))
        for top in dict.fromkeys(path.partition(".")[0] for path in taken):
            field = message.fields_by_name[top]
            name = self._schemas.name(field)
            if name in required:
                required.remove(name)
            if top in taken and not keep:
                del properties[name]
            elif top in taken:
                # Any value is allowed here, since the path overwrites it.
                rest = properties[name].items()
                loose = {key: value for key, value in rest if key not in _BOUNDS}
                properties[name] = self._schemas.nullable(loose)
            elif field.message_type is not None:
                # The path sets a part of the message, so the body need not have it.
                inside = [path.partition(".")[2] for path in taken if path.startswith(top + ".")]
                properties[name] = self._schemas.nullable(self._without(field.message_type, inside, keep=True))
        schema["properties"] = properties
        schema.pop("required", None)
        if required:
            schema["required"] = required
        return schema

    def _resolve(self, schema: Schema) -> Schema:
        reference = schema.get("$ref", "")
        return self._schemas.components[reference.rpartition("/")[2]] if reference else schema

    # Answers

    def _responses(self, binding: Binding) -> Schema:
        rpc, reply = binding.rpc, binding.reply
        field = walk(rpc.output_type, binding.response_body)[0] if binding.response_body else None
        answer = field.message_type if field is not None else rpc.output_type
        schema = self._schemas.message(rpc.output_type) if field is None else self._schemas.field(field)
        content: Schema = {"application/json": {"schema": schema}}
        if answer is not None and answer.full_name == HTTP_BODY:
            content = {"*/*": {"schema": {}}}
        elif rpc.server_streaming:
            line = {"type": "object", "properties": {"result": schema, "error": self._status()}}
            lines = "application/x-ndjson" if self._options.strict else "application/json"
            content = {lines: {"schema": line}, "text/event-stream": {"schema": {"type": "string"}}}
        text = self._texts.get(answer.full_name, "OK.") if answer is not None else "OK."
        responses: Schema = {}
        headers: Schema = {}
        if reply.location:
            headers["Location"] = {"schema": {"type": "string"}, "description": "The path of the result."}
        plain: Schema = {"description": text} if reply.empty_body else {"description": text, "content": content}
        if headers:
            plain["headers"] = headers
        responses["204" if reply.empty_body else "200"] = plain
        if reply.HasField("accepted"):
            values = " or ".join(f"`{value}`" for value in reply.accepted.values)
            responses["202"] = {**plain, "description": f"Accepted: `{reply.accepted.field}` is still {values}."}
        responses["default"] = {"$ref": "#/components/responses/Error"}
        return responses

    def _status(self) -> Schema:
        reference = self._schemas.message(status_pb2.Status.DESCRIPTOR)
        properties = self._resolve(reference)["properties"]
        if properties["code"].get("description") is None:
            properties["code"]["description"] = "The number of a google.rpc.Code."
            properties["details"] = {"type": "array", "items": self._detail()}
        return reference

    def _detail(self) -> Schema:
        """A detail by its ``@type``: the usual ones in full, any other one as an open object."""
        known, urls = [], []
        for descriptor in _DETAILS:
            reference = self._schemas.message(descriptor)
            urls.append(f"type.googleapis.com/{descriptor.full_name}")
            whole = self._resolve(reference)
            whole["properties"] = {"@type": {"const": urls[-1]}, **whole["properties"]}
            whole["required"] = ["@type", *whole.get("required", ())]
            known.append(reference)
        other = {
            "type": "object", "required": ["@type"], "additionalProperties": True,
            "properties": {"@type": {"type": "string", "not": {"enum": urls}}},
        }  # fmt: skip
        return {"anyOf": [*known, other]}

    def _error(self) -> Schema:
        return {
            "description": "The error, as a google.rpc.Status.",
            "content": {"application/json": {"schema": self._status()}},
        }
