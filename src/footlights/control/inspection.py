"""Who may read metrics, and why a process is not ready, where clients reach the same listener.

A client on this machine may, unless a proxy may have passed its request on: the proxy's address says nothing of the
client's. So a request is taken for one of this machine only if it has no header but those that clients themselves send,
and is not HTTP/1.0, which proxies use and clients no more. A proxy that adds no header is not noticed: then
``public_url`` must be set, or an admin listener.

The name in ``Host`` must be one of this machine as well: a page in a browser here can send requests to loopback, but
under a name of its own only. Every other client needs a token that holds ``metrics.read``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from footlights import errors
from footlights.http.scope import header
from footlights.ids import is_loopback

if TYPE_CHECKING:
    from footlights.control.call.authenticate import Authenticator

PERMISSION: Final = "metrics.read"
_OF_CLIENTS: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language authorization cache-control connection cookie "
    b"dnt host if-modified-since if-none-match pragma priority referer te traceparent tracestate "
    b"upgrade-insecure-requests user-agent x-prometheus-scrape-timeout-seconds x-request-id".split()
)
"""What Prometheus, browsers and programs send. Proxies have many names for what they add, and invent more."""
_OF_BROWSERS: Final = b"sec-"


class Inspectors:
    """Says which callers may look into this process."""

    def __init__(self, authenticator: Authenticator, public_url: str = "") -> None:
        """Create it; where ``public_url``, the origin that browsers see, is elsewhere, callers here may be a proxy."""
        self._authenticator = authenticator
        self._trusts_loopback = not public_url or is_loopback(urlsplit(public_url).hostname or "")

    async def check(self, scope: Any) -> None:
        """Raise Unauthenticated or PermissionDenied unless the caller may."""
        if self._is_local(scope):
            return
        if not (authorization := header(scope, b"authorization").decode("latin-1")):
            raise errors.Unauthenticated(
                "This is for clients on this machine and for operators. Send an operator's token in the header "
                "'Authorization: Bearer TOKEN', or ask at the address of the server's --admin-listen.",
                reason=errors.Reason.TOKEN_MISSING,
            )
        (await self._authenticator.caller(authorization)).require(PERMISSION)

    async def may(self, scope: Any) -> bool:
        """Return whether the caller may."""
        try:
            await self.check(scope)
        except errors.Error:
            return False
        return True

    def _is_local(self, scope: Any) -> bool:
        client = scope.get("client")
        if not self._trusts_loopback or not client or not is_loopback(client[0]):
            return False
        try:
            host = urlsplit("//" + header(scope, b"host").decode("latin-1")).hostname or ""
        except ValueError:
            return False
        if not is_loopback(host) or scope.get("http_version") == "1.0":
            return False
        return all(name in _OF_CLIENTS or name.startswith(_OF_BROWSERS) for name, _ in scope["headers"])
