"""The reply option: status, Location, empty body and event id of an answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from footlights.gateway.decode.parameters import set_path
from footlights.gateway.routing.binding import Binding, BindingError, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

_PLACE: Final = re.compile(r"\{([^{}]*)\}")


class Replier:
    """The reply option of one RPC, resolved against its messages."""

    def __init__(self, binding: Binding) -> None:
        reply, answer = binding.reply, binding.rpc.output_type
        self.empty_body = reply.empty_body
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
        self._last_event_id = reply.last_event_id_field
        self.is_plain = self._accepted is None and not self.empty_body and self._location == [""]
        """Every answer is 200 without a Location."""

    def status(self, message: Message) -> int:
        """Return 200, 202 while the accepted condition holds, or 204 for an empty body."""
        if self._accepted is not None and self._accepted[0](message) in self._accepted[1]:
            return 202
        return 204 if self.empty_body else 200

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
