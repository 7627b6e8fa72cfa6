"""One HTTP request and its answer over ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from footlights.http.cors import Cors
from footlights.http.request_ids import request_id
from footlights.http.scope import path_below_mount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Message, Receive, Scope, Send

    from footlights.gateway.options import Options

Header = tuple[bytes, bytes]
HeaderList = list[Header]
FORM: Final = b"application/x-www-form-urlencoded"
_EXPOSED: Final = ("deprecation", "etag", "link", "location", "retry-after", "sunset", "x-request-id")


class Exchange:
    """A request, and the answer to it, which is started once."""

    __slots__ = ("_cors", "added", "headers", "method", "path", "receive", "request_id", "scope", "send", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send, cors: Cors, *, with_id: bool) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = path_below_mount(scope) if scope.get("root_path") else scope["path"]
        # The first value of a name counts, as with Go's Header.Get.
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.started = False
        self.added: tuple[Header, ...] = ()
        """Headers of any answer, because of where the request goes."""
        self._cors = cors
        self.request_id = request_id(self.headers.get(b"x-request-id", b"")) if with_id else ""

    @property
    def has_form(self) -> bool:
        """Whether method and content type say that the body is a form."""
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return content_type == FORM and self.method in ("POST", "PUT", "PATCH")

    @property
    def has_body(self) -> bool:
        """Whether the headers announce a body."""
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    def header(self, name: bytes) -> str | None:
        """Return the first value of a header, by lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin1")

    async def answer(self, status: int, headers: HeaderList, body: bytes, content_type: str) -> None:
        """Send a whole answer, with these headers and those that every answer has."""
        if content_type:
            headers.append(_JSON if content_type == "application/json" else typed(content_type))
        if status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        await self.send(self._head(status, headers))
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def start(self, status: int, headers: HeaderList) -> None:
        """Send the head of an answer with the headers that every answer has."""
        await self.send(self._head(status, headers))

    def _head(self, status: int, headers: HeaderList) -> Message:
        self.started = True
        if self.request_id:
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
        if self.added:
            headers += self.added
        if self._cors.is_enabled:
            headers += self._cors.headers(self.headers.get(b"origin"))
        return {"type": "http.response.start", "status": status, "headers": headers}

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; returns when the server takes more, which holds a stream back."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer_preflight(self, methods: Sequence[str]) -> None:
        """Answer a CORS preflight: 204 with the methods of the path, or 404 where it has none."""
        requested = self.headers.get(b"access-control-request-headers", b"")
        headers = list(self._cors.preflight(methods, requested)) if methods else []
        await self.answer(204 if methods else 404, headers, b"", "")


def cors_of(options: Options) -> Cors:
    """Return the CORS headers of a gateway's answers."""
    names = dict.fromkeys((*_EXPOSED, *options.expose_headers))
    return Cors(options.cors_origins, expose=names, request_headers=("authorization", "content-type"))


def typed(content_type: str) -> tuple[bytes, bytes]:
    """Return a content-type header."""
    return b"content-type", content_type.encode("latin1", "replace")


_JSON: Final = typed("application/json")
