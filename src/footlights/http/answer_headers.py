"""Headers that every answer has: what is said is what it says it is, is kept by no cache, and is asked for by TLS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_App = Callable[..., Awaitable[Any]]

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final = (b"cache-control", b"no-store")
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")


def with_safe_headers(app: _App, *, tls_only: bool) -> _App:
    """Return ``app`` with safe headers on each answer that does not set them itself.

    Args:
        app: an ASGI application.
        tls_only: whether browsers shall use TLS for this host only, for a year (RFC 6797).
    """
    added = (_NOSNIFF, _NO_STORE, _HSTS) if tls_only else (_NOSNIFF, _NO_STORE)

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                message["headers"] = [*headers, *(header for header in added if header[0] not in names)]
            await send(message)

        await app(scope, receive, sending if scope["type"] == "http" else send)

    return wrapped
