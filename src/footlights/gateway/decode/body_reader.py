"""The body of a request to one binding, read into the request message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from footlights.gateway.decode.json_scalars import MemberError
from footlights.gateway.decode.json_text import MAX_DEPTH, has_more, parse_first
from footlights.gateway.decode.mask import implied_paths, mask_field
from footlights.gateway.decode.message_reader import LENIENT, STRICT
from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError
from footlights.gateway.routing.binding import Binding, walk

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

    from footlights.gateway.decode.message_reader import Fill


class BodyReader:
    """Reads bodies as a binding's ``body`` rule determines: into the whole request, or into one field of it."""

    def __init__(self, binding: Binding, *, strict: bool) -> None:
        self._strict = strict
        reader = STRICT if strict else LENIENT
        is_field = binding.body not in ("", "*")
        self._name = binding.body if is_field else ""
        self._field: FieldDescriptor | None = walk(binding.rpc.input_type, binding.body)[0] if is_field else None
        inner = None if self._field is None or self._field.is_repeated else self._field.message_type
        self._inner: tuple[Descriptor, Fill] | None = None if inner is None else (inner, reader.for_type(inner))
        self._read_request = reader.for_type(binding.rpc.input_type)
        self._mask_field = mask_field(binding)
        # What the path names is not to be changed, also where a body repeats it.
        prefix, variables = binding.body + ".", binding.template.variables if strict else ()
        self._not_masked = frozenset(
            variable.field_path.removeprefix(prefix) for variable in variables if variable.field_path.startswith(prefix)
        )

    def read(self, text: str, request: Message) -> None:
        """Fill an empty request from a body; a blank body leaves it as it is.

        Raises:
            GatewayError: the body is no JSON, or not what the rule wants.
        """
        parsed = parse_first(text)
        if parsed is None:
            return
        value, end = parsed
        if end != len(text) and self._strict and has_more(text, end):
            raise GatewayError(
                INVALID_ARGUMENT,
                f"the body must be one JSON value: more follows it at character {end + 1}.",
                reason="INVALID_JSON",
            )
        try:
            self._fill(request, value)
        except MemberError as error:
            subject = error.field or self._name or "the body"
            field = error.field or self._name or "body"
            if self._inner is not None and error.field:
                field = f"{self._name}.{field}"
            raise GatewayError(
                INVALID_ARGUMENT, f"{subject} {error.problem}", field=field, reason=error.reason
            ) from None

    def _fill(self, request: Message, value: Any) -> None:
        field = self._field
        if field is None:
            self._read_request(request, value, MAX_DEPTH - 1)
        elif self._inner is None:
            self._read_request(request, {field.json_name: value}, MAX_DEPTH - 1)
        else:
            member = getattr(request, field.name)
            member.SetInParent()
            descriptor, fill = self._inner
            fill(member, value, MAX_DEPTH - 1)
            mask = self._mask_field
            if mask is not None and not getattr(request, mask.name).paths:
                paths = implied_paths(value, descriptor)
                getattr(request, mask.name).paths.extend(path for path in paths if path not in self._not_masked)
