"""Who may read metrics, and why a process is not ready, where clients reach the same listener.

A client on this machine may, unless a proxy seems to have passed its request on: the proxy's address says nothing of
the client's. The name in ``Host`` must be one of this machine as well: a page in a browser here can send requests to
loopback, but under a name of its own only. Every other client needs a token that holds ``metrics.read``.
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
_OF_PROXIES: Final = frozenset((b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"))


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
        return is_loopback(host) and not any(name in _OF_PROXIES for name, _ in scope["headers"])
