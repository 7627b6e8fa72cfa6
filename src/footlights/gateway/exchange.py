"""One HTTP request and its answer over ASGI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import uuid_utils

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from footlights.gateway.options import Options

HeaderList = list[tuple[bytes, bytes]]
FORM: Final = b"application/x-www-form-urlencoded"
_SOUND: Final = re.compile(rb"[!-~]{1,128}")
"""Printable ASCII and short enough to log."""
_EXPOSED: Final = (b"etag", b"location", b"retry-after", b"x-request-id")


class Exchange:
    """A request, and the answer to it, which is started once."""

    __slots__ = ("_options", "headers", "method", "path", "receive", "request_id", "scope", "send", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send, options: Options) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.method: str = scope["method"]
        self.path = _path(scope)
        # Later values lose, as with Go's Header.Get.
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.started = False
        self._options = options
        self.request_id = ""
        if options.strict:
            given = self.headers.get(b"x-request-id", b"")
            self.request_id = given.decode("ascii") if _SOUND.fullmatch(given) else str(uuid_utils.uuid4())

    @property
    def has_form(self) -> bool:
        """Whether method and content type say that the body is a form."""
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return content_type == FORM and self.method in ("POST", "PUT", "PATCH")

    @property
    def peer(self) -> str:
        """The address of the client; empty where the server does not know it."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def header(self, name: bytes) -> str | None:
        """Return the first value of a header, by lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin1")

    async def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, content_type: str) -> None:
        """Send a whole answer."""
        sent = [*headers]
        if content_type:
            sent.append(_JSON if content_type == "application/json" else typed(content_type))
        if status not in (204, 304):
            sent.append((b"content-length", b"%d" % len(body)))
        await self.send(self.head(status, sent))
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def start(self, status: int, headers: HeaderList) -> None:
        """Send the head of an answer with the headers that every answer has."""
        await self.send(self.head(status, headers))

    def head(self, status: int, headers: HeaderList) -> dict[str, Any]:
        """Return the head of the answer as a message, and count it as sent."""
        self.started = True
        if self.request_id:
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
        if self._options.cors_origins:
            headers += self.cors()
        return {"type": "http.response.start", "status": status, "headers": headers}

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; returns when the server takes more, which holds a stream back."""
        message: dict[str, Any] = {"type": "http.response.body", "body": body, "more_body": more}
        await self.send(message)

    def cors(self) -> HeaderList:
        """Return CORS headers for the request's origin, if it is allowed."""
        origin = self.headers.get(b"origin")
        allowed = self._options.cors_origins
        if origin is None:
            return []
        if "*" in allowed:
            # No cookie authorises anything here, so the wildcard is safe.
            found: HeaderList = [(b"access-control-allow-origin", b"*")]
        elif origin.decode("latin1") in allowed:
            found = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        else:
            return [(b"vary", b"origin")]
        exposed = b", ".join(dict.fromkeys((*_EXPOSED, *(name.encode() for name in self._options.expose_headers))))
        return [*found, (b"access-control-expose-headers", exposed)]


def _path(scope: Scope) -> str:
    """Return the path below the mount point."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def typed(content_type: str) -> tuple[bytes, bytes]:
    """Return a content-type header."""
    return b"content-type", content_type.encode("latin1", "replace")


_JSON: Final = typed("application/json")
