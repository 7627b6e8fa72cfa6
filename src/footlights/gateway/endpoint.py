"""One binding, ready to serve: how its requests are decoded and its answers encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory

from footlights.gateway.decode.body_reader import BodyReader
from footlights.gateway.decode.headers import HeaderFields
from footlights.gateway.decode.parameters import set_parameters, set_path, set_path_beside_body
from footlights.gateway.encode.writer import WriteError, Writer
from footlights.gateway.errors import INVALID_ARGUMENT, UNKNOWN, GatewayError
from footlights.gateway.reply import Replier
from footlights.gateway.routing.binding import HTTP_BODY, Binding, walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

    from footlights.gateway.options import Options
    from footlights.gateway.upstream.protocol import StreamMethod, UnaryMethod, Upstream


class Endpoint:
    """A binding with its message classes, its upstream method and its writer."""

    unary: UnaryMethod
    """Where the RPC has one response."""
    stream: StreamMethod
    """Where it has many."""

    def __init__(self, binding: Binding, upstream: Upstream, options: Options, writer: Writer) -> None:
        rpc = binding.rpc
        self.binding = binding
        self.replier = Replier(binding)
        self.client_streaming, self.server_streaming = bool(rpc.client_streaming), bool(rpc.server_streaming)
        self.added = ((b"cache-control", b"no-store"),) if binding.reply.no_store else ()
        """Headers of every answer."""
        self.is_marked = bool(self.added) or binding.deprecation is not None
        """Whether every answer has more headers than others."""
        self.headers = HeaderFields(binding, strict=options.strict)
        self._strict = options.strict
        self._request = message_factory.GetMessageClass(rpc.input_type)
        if rpc.server_streaming:
            self.stream = upstream.stream(rpc)
        else:
            self.unary = upstream.unary(rpc)
        body = binding.body
        self._body = BodyReader(binding, strict=options.strict)
        self.takes_body = bool(body)
        """Whether the rule maps the body to the request."""
        self.takes_parameters = body != "*" and not self.client_streaming
        """Whether query parameters are used."""
        self.checks_body = options.strict and binding.deprecation is None and not binding.reply.lenient_body
        """Whether a body that is not JSON, or that no field takes, is refused; deprecated paths stay as they were."""
        self._skip = [*(v.field_path for v in binding.template.variables), *([body] if body not in ("", "*") else ())]
        self._answer_field: FieldDescriptor | None = None
        answer_type: Descriptor | None = rpc.output_type
        if binding.response_body:
            self._answer_field = walk(rpc.output_type, binding.response_body)[0]
            answer_type = self._answer_field.message_type
        repeated = self._answer_field is not None and self._answer_field.is_repeated
        self.raw = answer_type is not None and answer_type.full_name == HTTP_BODY and not repeated
        self._write = (
            writer.for_field(self._answer_field) if self._answer_field is not None else writer.for_type(rpc.output_type)
        )

    def request(self, text: str, variables: Mapping[str, str], parameters: Mapping[str, Sequence[str]]) -> Message:
        """Return the request: the body first, path variables over it, then parameters.

        Raises:
            GatewayError: One of them does not fit the request.
        """
        request = self._request()
        if text:
            self._body.read(text, request)
        set_variable = set_path_beside_body if text and self._strict else set_path
        for variable, value in variables.items():
            set_variable(request, variable, value)
        if parameters:
            if self._strict and not self.takes_parameters:
                name = next(iter(parameters))
                raise GatewayError(
                    INVALID_ARGUMENT, f"{name} is not a known parameter; this call reads its body only.",
                    field=name, reason="UNKNOWN_FIELD",
                )  # fmt: skip
            set_parameters(request, parameters, skip=self._skip, strict=self._strict)
        return request

    def streamed(self, text: str) -> Message:
        """Return one message of a client stream, from one JSON value.

        Raises:
            GatewayError: The value is not such a message.
        """
        request = self._request()
        self._body.read(text, request)
        return request

    def encode(self, message: Message) -> tuple[bytes, str]:
        """Return the body of an answer and its content type.

        Raises:
            GatewayError: The message has no JSON form.
        """
        if self.raw:
            holder: Any = message if self._answer_field is None else getattr(message, self._answer_field.name)
            return holder.data, holder.content_type
        try:
            return self._write(message).encode("utf-8", "surrogatepass"), "application/json"
        except WriteError as error:
            raise GatewayError(UNKNOWN, f"the answer has no JSON: {error}", reason="ANSWER_NOT_JSON") from None
