"""Answers: their form on the wire, CORS, and errors as ``google.rpc.Status`` in JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf import json_format

from footlights.protocol.headers import field_names
from footlights.status import to_status

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.types import Scope, Send

    from footlights.errors import Error

_HTTP_STATUS: Final[Mapping[int, int]] = {3: 422, 5: 404, 6: 409, 7: 403, 8: 429, 9: 409, 10: 409, 14: 503, 16: 401}
"""By code. Bad arguments are 422 and bad state is 409: a player takes a 400 for a hint to try otherwise."""

_EXPOSED: Final = b"Location, Link, ETag, Retry-After, Accept-Post, Accept-Patch, WWW-Authenticate, X-Request-Id"
_METHODS: Final = b"OPTIONS, POST, PATCH, DELETE"
_REQUEST_HEADERS: Final = b"Authorization, Content-Type, If-Match, If-None-Match"


class Refusal(Exception):
    """An error with the HTTP status to give it where the code's own will not do."""

    def __init__(self, error: Error, http_status: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.http_status = http_status or _HTTP_STATUS.get(error.code, 500)
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    async def __call__(self, send: Send, *, websocket: bool = False) -> None:
        """Send it; as the denial of a WebSocket handshake (an ASGI extension) where ``websocket``."""
        prefix = "websocket.http.response" if websocket else "http.response"
        headers = [*self.headers, (b"cache-control", b"no-store")]
        if self.status != 204:
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": f"{prefix}.start", "status": self.status, "headers": headers})
        await send({"type": f"{prefix}.body", "body": self.body})


def refused(refusal: Refusal) -> Answer:
    """The answer that says a refusal: a ``google.rpc.Status`` with its ``ErrorInfo``."""
    error = refusal.error
    body = json_format.MessageToDict(to_status(error), preserving_proto_field_name=True)
    headers = [(b"content-type", b"application/json")]
    if refusal.http_status == 401:
        # RFC 6750 section 3: no error code where no credential was presented.
        hint = b"" if error.reason == "GRANT_MISSING" else b', error="invalid_token"'
        headers.append((b"www-authenticate", b'Bearer realm="footlights"' + hint))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    return Answer(refusal.http_status, tuple(headers), json.dumps(body, ensure_ascii=False).encode())


class Cors:
    """Says which origins may read the answers. No cookie ever authorises, so any may by default."""

    def __init__(self, allow_origin: str | Collection[str]) -> None:
        """Take ``"*"`` for every origin, else the origins that may."""
        self._origins = None if allow_origin == "*" else _origins(allow_origin)

    def headers(self, scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
        """The headers for any answer to this request."""
        return (*self._allowed(scope), (b"access-control-expose-headers", _EXPOSED))

    def preflight(self, scope: Scope) -> Answer:
        """The answer to OPTIONS, with and without a browser's preflight (WHEP, section 4.1)."""
        wanted = field_names(header(scope, b"access-control-request-headers")) or _REQUEST_HEADERS
        return Answer(
            204,
            (
                *self._allowed(scope),
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", wanted),
                (b"access-control-max-age", b"600"),
                (b"accept-post", b"application/sdp"),
                (b"allow", _METHODS),
            ),
        )

    def _allowed(self, scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
        if self._origins is None:
            return ((b"access-control-allow-origin", b"*"),)
        origin = header(scope, b"origin")
        allowed = ((b"access-control-allow-origin", origin),) if origin and origin in self._origins else ()
        return (*allowed, (b"vary", b"Origin"))


def _origins(allow_origin: str | Collection[str]) -> frozenset[bytes]:
    return frozenset(text.encode() for text in ([allow_origin] if isinstance(allow_origin, str) else allow_origin))


def header(scope: Scope, wanted: bytes) -> bytes:
    """The first header of this name (lower case) of a request; empty where there is none."""
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), b"")
