"""One binding, ready to serve: how its requests are decoded and its answers encoded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import message_factory

from footlights.gateway.decode.codec import fill
from footlights.gateway.decode.fields import set_parameters, set_path
from footlights.gateway.decode.jsontext import first_value, skip_space
from footlights.gateway.decode.mask import implied_paths, mask_field
from footlights.gateway.decode.reader import KIND, BodyError, read
from footlights.gateway.encode.writer import WriteError, Writer
from footlights.gateway.errors import INVALID_ARGUMENT, UNKNOWN, Refusal
from footlights.gateway.reply import Replier
from footlights.gateway.routing.binding import HTTP_BODY, Binding, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

    from footlights.gateway.options import Options
    from footlights.gateway.upstream.protocol import StreamMethod, UnaryMethod, Upstream

_GO_TYPES: Final = {"float": "float32", "double": "float64", "sint32": "int32", "sfixed32": "int32",
                    "fixed32": "uint32", "sint64": "int64", "sfixed64": "int64", "fixed64": "uint64"}  # fmt: skip
_JSON_KINDS: Final = {"{": "object", "[": "array", '"': "string", "t": "bool", "f": "bool"}


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
        self._strict = options.strict
        self._request = message_factory.GetMessageClass(rpc.input_type)
        if rpc.server_streaming:
            self.stream = upstream.stream(rpc)
        else:
            self.unary = upstream.unary(rpc)
        body = binding.body
        self._body_field: FieldDescriptor | None = walk(rpc.input_type, body)[0] if body not in ("", "*") else None
        self._mask_field = mask_field(binding)
        # The rest of a request is set after the body, so a body that fills a field may be retried as a whole.
        self._fills = self._filler()
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

    @property
    def takes_body(self) -> bool:
        """Whether the rule maps the body to the request."""
        return bool(self.binding.body)

    @property
    def takes_parameters(self) -> bool:
        """Whether query parameters are used; with ``body: "*"`` they are not."""
        return self.binding.body != "*" and not self.client_streaming

    def request(
        self, text: str, variables: Mapping[str, str], parameters: Mapping[str, Sequence[str]], last_event_id: str = ""
    ) -> Message:
        """Return the request: the body first, path variables over it, then parameters.

        Raises:
            Refusal: One of them does not fit the request.
        """
        request = self._request()
        if text:
            self._read_body(request, text)
        for variable, value in variables.items():
            set_path(request, variable, value)
        if parameters:
            if self._strict and not self.takes_parameters:
                name = next(iter(parameters))
                raise Refusal(
                    INVALID_ARGUMENT, name, plain=f"there is no parameter {name!r}; this call takes its body only",
                    field=name, reason="UNKNOWN_PARAMETER",
                )  # fmt: skip
            set_parameters(request, parameters, skip=self._skip, strict=self._strict)
        if last_event_id:
            self.replier.resume(request, last_event_id)
        return request

    def streamed(self, text: str) -> Message:
        """Return one message of a client stream, from one JSON value.

        Raises:
            Refusal: The value is not such a message.
        """
        request = self._request()
        if not fill(text, request):
            self._read(request, text)
        return request

    def encode(self, message: Message) -> tuple[bytes, str]:
        """Return the body of an answer and its content type.

        Raises:
            Refusal: The message has no JSON form.
        """
        if self.raw:
            holder: Any = message if self._answer_field is None else getattr(message, self._answer_field.name)
            return holder.data, holder.content_type
        try:
            return self._write(message).encode("utf-8", "surrogatepass"), "application/json"
        except WriteError as error:
            raise Refusal(
                UNKNOWN, f"proto: {error}", plain=f"the answer has no JSON: {error}", reason="ANSWER_NOT_JSON"
            ) from None

    def _filler(self) -> Callable[[str, Message], bool] | None:
        """Return the fast decoder for bodies of this binding, if there is one."""
        field = self._body_field
        if field is None:
            return fill if self.binding.body else None
        if field.message_type is None or field.is_repeated or self._mask_field is not None:
            return None
        name = field.name

        def fill_member(text: str, request: Message) -> bool:
            member = getattr(request, name)
            member.SetInParent()
            if fill(text, member):
                return True
            request.ClearField(name)
            return False

        return fill_member

    def _read_body(self, request: Message, text: str) -> None:
        if self._fills is not None and self._fills(text, request):
            return
        place = first_value(text)
        if place is None:
            return
        begin, end = place
        if self._strict and (after := skip_space(text, end)) < len(text):
            raise Refusal(
                INVALID_ARGUMENT, "trailing data", reason="INVALID_JSON",
                plain=f"more follows the JSON value in the body, at character {after + 1}; send one value",
            )  # fmt: skip
        value = text[begin:end]
        field = self._body_field
        if field is None:
            self._read(request, value)
        elif field.message_type is not None and not field.is_repeated:
            member = getattr(request, field.name)
            member.SetInParent()
            self._read(member, value)
            mask = self._mask_field
            if mask is not None and not getattr(request, mask.name).paths:
                getattr(request, mask.name).paths.extend(implied_paths(value, field.message_type))
        else:
            self._read_field(request, field, value)

    def _read_field(self, request: Message, field: FieldDescriptor, value: str) -> None:
        """A body that is a scalar, list or map field: read as the one member of an object."""
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        kind = _JSON_KINDS.get(value[0], "number")
        if field.is_repeated and value != "null" and kind != ("object" if is_map else "array"):
            go_type = "map[string]jsontext.Value" if is_map else "[]jsontext.Value"
            raise self._bad_body(
                f"json: cannot unmarshal {kind} into Go value of type {go_type}",
                f"the body wants {'an object' if is_map else 'an array'}, not {value[:100]}",
            )
        try:
            read(f'{{"{field.json_name}":{value}}}', request, ignore_unknown=not self._strict)
        except BodyError as error:
            reference = error.reference
            if field.message_type is None and field.enum_type is None and not field.is_repeated:
                name = KIND[field.type]
                reference = f"json: cannot unmarshal {kind} into Go value of type {_GO_TYPES.get(name, name)}"
            raise self._bad_body(reference, error.plain) from None

    def _read(self, message: Message, text: str) -> None:
        try:
            read(text, message, ignore_unknown=not self._strict)
        except BodyError as error:
            raise self._bad_body(error.reference, error.plain, error.field) from None

    def _bad_body(self, reference: str, plain: str, field: str = "") -> Refusal:
        known = re.search(r"unknown field|duplicate field", reference)
        reason = {"unknown field": "UNKNOWN_MEMBER", "duplicate field": "DUPLICATE_MEMBER"}.get(
            known.group() if known else "", "INVALID_MEMBER"
        )
        return Refusal(
            INVALID_ARGUMENT, reference, plain=plain, field=field or self.binding.body.strip("*"), reason=reason
        )
