"""What an answer has beside its message: status, Location, ETag, and the id and type of an event."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from footlights.gateway.decode.headers import ENTITY_TAG, ENTITY_TAGS, PRINTABLE, fields_by_header
from footlights.gateway.decode.parameters import set_path
from footlights.gateway.routing.binding import Binding, BindingError, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

_PLACE: Final = re.compile(r"\{([^{}]*)\}")


class Replier:
    """The reply option of one RPC, and the header rules of its answer, resolved against its messages."""

    def __init__(self, binding: Binding) -> None:
        reply, answer = binding.reply, binding.rpc.output_type
        self.empty_body = reply.empty_body
        # Who uses a deprecated path expects what it has always answered.
        is_created = reply.created and binding.deprecation is None
        self._status = 201 if is_created else 204 if self.empty_body else 200
        self._accepted: tuple[Callable[[Message], str], frozenset[str]] | None = None
        if reply.HasField("accepted"):
            self._accepted = getter(answer, reply.accepted.field), frozenset(reply.accepted.values)
        self._location: list[str | Callable[[Message], str]] = []
        for index, part in enumerate(_PLACE.split(reply.location)):
            try:
                self._location.append(getter(answer, part) if index % 2 else part)
            except BindingError as error:
                raise BindingError(f"{binding}: location: {error}") from error
        self._event_id = getter(answer, reply.event_id) if reply.event_id else None
        self._event_type = _event_type(answer, reply.event_type) if reply.event_type else None
        self._last_event_id = reply.last_event_id_field
        self._headers = _header_getters(binding)
        self.is_plain = self._accepted is None and self._status == 200 and self._location == [""] and not self._headers
        """Every answer is 200 without headers of its own."""

    def status(self, message: Message) -> int:
        """Return 202 while the accepted condition holds, else 201 where it creates, 204 for an empty body, or 200."""
        if self._accepted is not None and self._accepted[0](message) in self._accepted[1]:
            return 202
        return self._status

    def location(self, message: Message) -> str | None:
        """Return the Location header; None without a template or while a field in it is empty."""
        if self._location == [""]:
            return None
        parts = []
        for part in self._location:
            if isinstance(part, str):
                parts.append(part)
                continue
            value = part(message)
            if not value:
                return None
            parts.append(quote(value, safe=""))
        return "".join(parts)

    def headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        """Return the headers that carry fields of the answered message, where they have values."""
        found = []
        for name, read in self._headers:
            value = read(message).encode("utf-8", "replace")
            if name in ENTITY_TAGS:
                if ENTITY_TAG.fullmatch(value):
                    found.append((name, b'"' + value + b'"'))
            elif PRINTABLE.fullmatch(value):
                found.append((name, value))
        return found

    def event_type(self, message: Message) -> str | None:
        """Return the type of the event that carries the message; None or empty where it has none."""
        return None if self._event_type is None else self._event_type(message)

    def event_id(self, message: Message) -> str | None:
        """Return the id of the event that carries the message."""
        return None if self._event_id is None else self._event_id(message)

    def resume(self, request: Message, last_event_id: str) -> None:
        """Put a client's Last-Event-ID into the request.

        Raises:
            GatewayError: It is not a value of that field.
        """
        if self._last_event_id and last_event_id:
            set_path(request, self._last_event_id, last_event_id)


def _header_getters(binding: Binding) -> tuple[tuple[bytes, Callable[[Message], str]], ...]:
    """What reads the fields that headers carry, of the message that the body is."""
    answer, prefix = binding.rpc.output_type, ""
    if binding.response_body:
        field = walk(answer, binding.response_body)[0]
        if field.message_type is None or field.is_repeated:
            return ()
        answer, prefix = field.message_type, binding.response_body + "."
    if binding.rpc.server_streaming:
        return ()
    return tuple(
        (name, getter(binding.rpc.output_type, prefix + field.name)) for name, field in fields_by_header(answer).items()
    )


def _event_type(message: Descriptor, path: str) -> Callable[[Message], str]:
    last = walk(message, path)[-1]
    if last.is_repeated or (last.enum_type is None and last.type != last.TYPE_STRING):
        raise BindingError(f"event_type {path!r} must be an enum or a string of {message.full_name}")
    read = getter(message, path)
    zero = last.enum_type.values_by_number.get(0) if last.enum_type is not None else None
    unspecified = "" if zero is None else zero.name

    def event_type(event: Message) -> str:
        name = read(event)
        return "" if name == unspecified else name.lower()

    return event_type


def getter(message: Descriptor, path: str) -> Callable[[Message], str]:
    """Return a function that reads a scalar field by path and prints it as JSON, without quotes."""
    fields: list[FieldDescriptor] = walk(message, path)
    last = fields[-1]
    if last.message_type is not None or last.is_repeated:
        raise BindingError(f"{path!r} is not a scalar field of {message.full_name}")
    numbers = {value.number: value.name for value in last.enum_type.values} if last.enum_type is not None else None
    steps = [field.name for field in fields]

    def read(at: Any) -> str:
        for step in steps:
            at = getattr(at, step)
        if numbers is not None:
            return numbers.get(at, str(at))
        return str(at).lower() if isinstance(at, bool) else str(at)

    return read
