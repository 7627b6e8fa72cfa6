"""The request of an operation: its path, its parameters and its body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from footlights.gateway.decode.headers import ENTITY_TAGS
from footlights.gateway.openapi.schema import header_of, is_required, nullable
from footlights.gateway.routing.binding import Binding, walk
from footlights.gateway.routing.field_options import is_output_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from footlights.gateway.openapi.components import Schema
    from footlights.gateway.openapi.request_schema import RequestSchemas
    from footlights.gateway.options import Options

_MAX_DEPTH: Final = 3
_BOUNDS: Final = frozenset(("minLength", "maxLength", "pattern", "enum"))
_QUERY_MESSAGES: Final = frozenset(("Timestamp", "Duration", "FieldMask"))
_REQUEST_ID: Final = {
    "name": "X-Request-Id", "in": "header", "schema": {"type": "string"},
    "description": "An id of the client's own for the request, to find it in the server's log.",
}  # fmt: skip


class OperationRequests:
    """The requests of operations, and the parameters that they share."""

    def __init__(self, schemas: RequestSchemas, options: Options) -> None:
        self._schemas, self._options = schemas, options
        self.parameters: dict[str, Schema] = {}

    # Paths

    def path(self, binding: Binding) -> tuple[str, list[Schema]]:
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
                schema = self._schemas.parameter(field) if whole else {"type": "string"}
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

    # Parameters

    def query(self, binding: Binding) -> Iterator[Schema]:
        """The query parameters."""
        if binding.body != "*" and not binding.rpc.client_streaming:
            taken = {variable.field_path for variable in binding.template.variables} | {binding.body}
            yield from self._query(binding.rpc.input_type, "", taken, 0)

    def headers(self, binding: Binding) -> dict[str, Schema]:
        """The header parameters, by the header's name."""
        found = {}
        for field in binding.rpc.input_type.fields:
            if header := header_of(field):
                found[header] = self._shared(header, self._header(field, header))
        if binding.rpc.server_streaming and binding.reply.last_event_id_field:
            field = walk(binding.rpc.input_type, binding.reply.last_event_id_field)[-1]
            schema = self._schemas.parameter(field)
            schema.pop("description", None)
            found["Last-Event-ID"] = {
                "name": "Last-Event-ID", "in": "header", "schema": schema,
                "description": "The id of the last event received; the stream continues after it.",
            }  # fmt: skip
        if self._options.strict:
            found["X-Request-Id"] = self._shared("X-Request-Id", dict(_REQUEST_ID))
        return found

    def _header(self, field: FieldDescriptor, header: str) -> Schema:
        schema = self._schemas.parameter(field)
        text = [schema.pop("description", ""), f"The same as `{self._schemas.name(field)}`."]
        if header.lower().encode() in ENTITY_TAGS:
            # Quoted here and bare in the field, whose bounds are not the header's.
            schema = {"type": "string", "pattern": r'^([*]|"[!#-~]+")$', "examples": ['"1a2b"']}
            text.append("In quotes, as in `ETag`, or `*`.")
        else:
            schema.setdefault("pattern", "^[!-~]([ -~]*[!-~])?$")
        schema.pop("deprecated", None)
        return {"name": header, "in": "header", "schema": schema, "description": " ".join(filter(None, text))}

    def _shared(self, name: str, parameter: Schema) -> Schema:
        """A reference to a parameter; the parameter itself if another one has its name."""
        same = self.parameters.setdefault(name, parameter) == parameter
        return {"$ref": f"#/components/parameters/{name}"} if same else parameter

    def _query(self, message: Descriptor, prefix: str, taken: set[str], depth: int) -> Iterator[Schema]:
        for field in message.fields:
            path = prefix + field.name
            if path in taken:
                continue
            name = prefix + self._schemas.name(field)
            inner = field.message_type
            if inner is None or inner.full_name.rpartition(".")[0] == "google.protobuf":
                if inner is None or inner.name in _QUERY_MESSAGES or inner.name.endswith("Value"):
                    yield self._parameter(field, name)
            elif inner.GetOptions().map_entry:
                if inner.fields_by_name["value"].message_type is None:
                    yield {**self._parameter(field, name), "style": "deepObject", "explode": True}
            elif not field.is_repeated and depth < _MAX_DEPTH:
                yield from self._query(inner, path + ".", taken, depth + 1)

    def _parameter(self, field: FieldDescriptor, name: str) -> Schema:
        schema = self._schemas.parameter(field)
        parameter: Schema = {"name": name, "in": "query", "schema": schema}
        if text := schema.pop("description", ""):
            parameter["description"] = text
        if schema.pop("deprecated", False):
            parameter["deprecated"] = True
        if is_required(field):
            parameter["required"] = True
        return parameter

    # Bodies

    def body(self, binding: Binding) -> Schema:
        """The body of a binding that has one."""
        rpc = binding.rpc
        taken = [variable.field_path for variable in binding.template.variables]
        if binding.body == "*":
            schema = self._without(rpc.input_type, taken)
        else:
            field = walk(rpc.input_type, binding.body)[0]
            inside = [path.partition(".")[2] for path in taken if path.startswith(binding.body + ".")]
            if field.message_type is not None and not field.is_repeated:
                schema = self._without(field.message_type, inside, keep=True)
            else:
                schema = self._schemas.whole(field)
        if rpc.client_streaming:
            text = "JSON values one after another; each is one message."
            return {"required": False, "description": text, "content": {"application/x-ndjson": {"schema": schema}}}
        # An empty body is an empty message, so only members that are required make the body so.
        target = self._schemas.components.resolve(schema)
        return {"required": bool(target.get("required")), "content": {"application/json": {"schema": schema}}}

    def _without(self, message: Descriptor, taken: Sequence[str], *, keep: bool = False) -> Schema:
        """The schema of a request whose path variables need not be given in the body again.

        Args:
            message: the message.
            taken: field paths.
            keep: allow the fields in the body all the same.
        """
        tops = {top: message.fields_by_name[top] for top in dict.fromkeys(path.partition(".")[0] for path in taken)}
        tops = {top: field for top, field in tops.items() if not is_output_only(field)}
        if not tops:
            return self._schemas.message(message)
        schema = self._schemas.whole_object(message)
        properties, required = schema["properties"], schema.get("required", [])
        for top, field in tops.items():
            name = self._schemas.name(field)
            if name in required:
                required.remove(name)
            if top in taken and not keep:
                del properties[name]
            elif top in taken:
                # The path has it; a value that differs is not one that fits or does not fit a schema.
                loose = {key: value for key, value in properties[name].items() if key not in _BOUNDS}
                properties[name] = nullable(loose)
            elif field.message_type is not None:
                # The path sets a part of the message, so the body need not have it.
                inside = [path.partition(".")[2] for path in taken if path.startswith(top + ".")]
                properties[name] = nullable(self._without(field.message_type, inside, keep=True))
        if not required:
            schema.pop("required", None)
        return schema
