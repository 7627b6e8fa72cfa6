"""How a stream of messages becomes bytes: lines of JSON, raw bodies, or Server-Sent Events."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from footlights.gateway.endpoint import Endpoint


class Lines:
    """grpc-gateway's framing: ``{"result": …}`` a line, ``{"error": …}`` at the end, HttpBody as raw bytes."""

    def __init__(self, endpoint: Endpoint, *, strict: bool) -> None:
        self._endpoint = endpoint
        # Of raw bodies the first message determines it.
        self.content_type = "" if endpoint.raw else "application/x-ndjson" if strict else "application/json"
        # A blank before the next object is JSON for every reader of lines; an empty line is not.
        self.keepalive = b"" if endpoint.raw else b" "

    def message(self, message: Message) -> tuple[bytes, str]:
        """Return the bytes that carry a message, and their content type."""
        body, content_type = self._endpoint.encode(message)
        if self._endpoint.raw:
            return body + b"\n", content_type
        return b'{"result":' + body + b"}\n", self.content_type

    def error(self, status: bytes) -> bytes:
        """Return the bytes that carry the status of a stream that failed after its first message."""
        return b'{"error":' + status + b"}\n"


class Events:
    """Server-Sent Events: ``id`` and ``event`` from the reply option, the message as ``data``.

    A failure is ``event: error``. Strict mode sends the bare message, the default dialect ``{"result": …}`` as its
    lines do.
    """

    content_type = "text/event-stream"
    keepalive = b": keep-alive\n\n"

    def __init__(self, endpoint: Endpoint, *, strict: bool) -> None:
        self._endpoint, self._strict = endpoint, strict

    def message(self, message: Message) -> tuple[bytes, str]:
        """Return the bytes that carry a message, and their content type."""
        body, _ = self._endpoint.encode(message)
        if not self._strict and not self._endpoint.raw:
            body = b'{"result":' + body + b"}"
        replier = self._endpoint.replier
        event_id, event_type = replier.event_id(message), replier.event_type(message)
        head = b"" if event_id is None else b"id: " + _one_line(event_id) + b"\n"
        if event_type:
            head += b"event: " + _one_line(event_type) + b"\n"
        return head + _data(body), self.content_type

    def error(self, status: bytes) -> bytes:
        """Return the bytes that carry the status of a stream that failed after its first message."""
        return b"event: error\n" + _data(status)


def _data(body: bytes) -> bytes:
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


def _one_line(text: str) -> bytes:
    # NUL in an id makes browsers drop it (WHATWG HTML, 9.2.6).
    return text.replace("\r", "").replace("\n", "").replace("\0", "").encode()
