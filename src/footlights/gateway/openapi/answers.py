"""The answers of an operation: statuses, headers, media types and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.rpc import error_details_pb2, status_pb2

from footlights.gateway.openapi.schema import header_of
from footlights.gateway.routing.binding import HTTP_BODY, Binding, walk

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from footlights.gateway.openapi.answer_schema import AnswerSchemas
    from footlights.gateway.openapi.components import Schema
    from footlights.gateway.options import Options

DETAILS: Final = tuple(
    error_details_pb2.DESCRIPTOR.message_types_by_name[name]
    for name in ("ErrorInfo", "BadRequest", "RetryInfo", "ResourceInfo")
)
"""The usual details of an error."""
_REPLAYED: Final = "Idempotency-Replayed"
_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "`no-store`: the answer has a secret.",
    "Deprecation": "Since when the path is deprecated (RFC 9745): `@1796083200`.",
    "ETag": "The `etag` of the answer, in quotes.",
    "Link": 'The path to use instead, with `rel="successor-version"`.',
    "Location": "The path of the result.",
    "Retry-After": "Seconds until the call should be repeated.",
    "Sunset": "From when the path may be missing (RFC 8594).",
    "WWW-Authenticate": "`Bearer`.",
    "X-Request-Id": "The id of the request in the server's log: the client's own, or a new one.",
    _REPLAYED: "`true`: the answer of an earlier request with the same `Idempotency-Key`; nothing was done again.",
}
_ERRORS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "401": ("Unauthenticated", "The request has no valid token.", ("WWW-Authenticate",)),
    "412": ("PreconditionFailed", "The resource has changed since: its `etag` is not that of `If-Match`.", ()),
    "429": ("ResourceExhausted", "A quota or a limit is used up.", ("Retry-After",)),
    "503": ("Unavailable", "The server cannot answer now; try again later.", ("Retry-After",)),
}
"""The errors that have a status of their own in the document: name, description, headers."""


class OperationAnswers:
    """The responses of operations, and the components that they share."""

    def __init__(self, schemas: AnswerSchemas, options: Options, texts: Mapping[str, str], *, bearer: bool) -> None:
        self._schemas, self._options, self._texts, self._bearer = schemas, options, texts, bearer
        self.headers: Schema = {}
        self.responses: Schema = {"Error": self._failure("The error, as a google.rpc.Status.", ())}

    def of(self, binding: Binding, taken: Collection[str]) -> Schema:
        """The responses of a binding.

        Args:
            binding: the binding.
            taken: the request headers that it takes.
        """
        rpc, reply = binding.rpc, binding.reply
        field = walk(rpc.output_type, binding.response_body)[0] if binding.response_body else None
        message = rpc.output_type if field is None else field.message_type
        text = self._texts.get(message.full_name, "OK.") if message is not None else "OK."
        answer: Schema = {"description": text}
        if headers := self._headers(binding, message, taken):
            answer["headers"] = headers
        if not reply.empty_body:
            answer["content"] = self._content(binding, field, message)
        created = reply.created and binding.deprecation is None
        responses: Schema = {"204" if reply.empty_body else "201" if created else "200": answer}
        if reply.HasField("accepted"):
            values = " or ".join(f"`{value}`" for value in reply.accepted.values)
            responses["202"] = {**answer, "description": f"Accepted: `{reply.accepted.field}` is still {values}."}
        for status, (name, description, error_headers) in _ERRORS.items():
            if self._may_fail(status, taken):
                self.responses.setdefault(name, self._failure(description, error_headers))
                responses[status] = {"$ref": f"#/components/responses/{name}"}
        responses["default"] = {"$ref": "#/components/responses/Error"}
        return responses

    def _may_fail(self, status: str, taken: Collection[str]) -> bool:
        if status == "401":
            return self._bearer
        return self._options.strict and (status != "412" or "If-Match" in taken)

    def _headers(self, binding: Binding, message: Descriptor | None, taken: Collection[str]) -> Schema:
        names = []
        if message is not None and not binding.rpc.server_streaming:
            names = [header for field in message.fields if (header := header_of(field))]
        if binding.reply.location:
            names.append("Location")
        if binding.reply.no_store:
            names.append("Cache-Control")
        if "Idempotency-Key" in taken and _REPLAYED.lower() in self._options.expose_headers:
            names.append(_REPLAYED)
        if binding.deprecation is not None:
            names += [name.decode().capitalize() for name, _ in binding.deprecation.dates]
            names += ["Link"] if binding.deprecation.successor is not None else []
        return self._refer_headers(names)

    def _refer_headers(self, names: Collection[str]) -> Schema:
        found: Schema = {}
        for name in (*names, *(["X-Request-Id"] if self._options.strict else [])):
            header: Schema = {"schema": {"type": "string"}}
            if name in _HEADERS:
                header["description"] = _HEADERS[name]
            self.headers.setdefault(name, header)
            found[name] = {"$ref": f"#/components/headers/{name}"}
        return found

    # Bodies

    def _content(self, binding: Binding, field: FieldDescriptor | None, message: Descriptor | None) -> Schema:
        if message is not None and message.full_name == HTTP_BODY:
            return {"*/*": {"schema": {}}}
        if field is None:
            schema = self._schemas.message(binding.rpc.output_type)
        elif message is not None and not field.is_repeated:
            # Unset, it is answered as an empty message.
            schema = self._schemas.message(message)
        else:
            schema = self._schemas.field(field)
        if not binding.rpc.server_streaming:
            return {"application/json": {"schema": schema}}
        line = {
            "type": "object", "properties": {"result": schema, "error": self.status()},
            "description": "One line: a message, or at the end the error that the stream failed with.",
        }  # fmt: skip
        lines = "application/x-ndjson" if self._options.strict else "application/json"
        events = {"type": "string", "description": self._events(binding)}
        return {lines: {"schema": line}, "text/event-stream": {"schema": events}}

    def _events(self, binding: Binding) -> str:
        """What Server-Sent Events hold, which JSON Schema cannot say."""
        reply = binding.reply
        data = "the same message" if self._options.strict else "the same line"
        parts = [f"Server-Sent Events: `data` is {data} in JSON"]
        if reply.event_id:
            parts.append(f"`id` is its `{reply.event_id}`")
        if reply.event_type:
            enum = walk(binding.rpc.output_type, reply.event_type)[-1].enum_type
            names = [f"`{value.name.lower()}`" for value in enum.values if value.number] if enum is not None else []
            known = f" ({', '.join(names)}; others may be added)" if names else ""
            parts.append(f"`event` is its `{reply.event_type}` in lower case{known}")
        return f"{', '.join(parts)}. A stream that fails ends with the event `error`, a google.rpc.Status."

    # Errors

    def status(self) -> Schema:
        """The schema of an error's body."""
        reference = self._schemas.message(status_pb2.Status.DESCRIPTOR)
        status = self._schemas.components.resolve(reference)
        properties = status["properties"]
        if "description" not in properties["message"]:
            properties["code"]["description"] = "The number of a google.rpc.Code."
            properties["message"]["description"] = "What is wrong, for a developer."
            if self._options.name_status:
                properties["status"] = {"type": "string", "description": "The name of `code`: `NOT_FOUND`."}
                status["required"].append("status")
            properties["details"] = {"type": "array", "items": self._detail()}
        return reference

    def _detail(self) -> Schema:
        """A detail by its ``@type``: the usual ones in full, any other one as an open object."""
        known, urls = [], []
        for descriptor in DETAILS:
            reference = self._schemas.message(descriptor)
            urls.append(f"type.googleapis.com/{descriptor.full_name}")
            whole = self._schemas.components.resolve(reference)
            whole["properties"] = {"@type": {"const": urls[-1]}, **whole["properties"]}
            whole["required"] = ["@type", *whole.get("required", ())]
            known.append(reference)
        other = {
            "type": "object", "required": ["@type"], "additionalProperties": True,
            "properties": {"@type": {"type": "string", "not": {"enum": urls}}},
        }  # fmt: skip
        return {"anyOf": [*known, other]}

    def _failure(self, description: str, headers: Collection[str]) -> Schema:
        response: Schema = {"description": description}
        if found := self._refer_headers(headers):
            response["headers"] = found
        return {**response, "content": {"application/json": {"schema": self.status()}}}
