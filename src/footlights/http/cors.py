"""Cross-origin resource sharing: which pages may read our answers from a browser.

Nothing of ours is authorised by cookie, so a wildcard origin gives nothing away but what needs no credentials at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Header = tuple[bytes, bytes]

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A field name (RFC 9110, section 5.6.2)."""


class Cors:
    """CORS headers for the origins that may read answers.

    Args:
        origins: the origins; ``"*"`` among them allows every one, and none at all means no CORS.
        expose: the response headers that pages may read.
        request_headers: the request headers that are allowed where a preflight names none.
    """

    def __init__(self, origins: Collection[str], *, expose: Iterable[str], request_headers: Iterable[str]) -> None:
        self._allows_all = "*" in origins
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)
        self.is_enabled = bool(self._origins)
        """Whether any origin is allowed."""
        self._expose: Header = (b"access-control-expose-headers", ", ".join(expose).encode("latin-1"))
        self._request_headers = ", ".join(request_headers).encode("latin-1")

    def headers(self, origin: bytes | None) -> tuple[Header, ...]:
        """The headers of any answer to a request from ``origin``; None or empty where the request has none."""
        if not self._origins:
            return ()
        if self._allows_all:
            return (_ANY_ORIGIN, self._expose)
        if origin and origin in self._origins:
            return ((b"access-control-allow-origin", origin), _VARY_ORIGIN, self._expose)
        return (_VARY_ORIGIN,)

    def is_foreign(self, origin: bytes | None, host: bytes | None) -> bool:
        """Whether a request is from a page that may not call: one of neither the server's own origin nor these.

        A browser sends it all the same, and only keeps the answer from the page: matters where nothing else authorises.
        """
        if not origin or self._allows_all or origin in self._origins:
            return False
        return origin.partition(b"://")[2] != (host or b"")

    def preflight(self, methods: Iterable[str], requested: bytes) -> tuple[Header, ...]:
        """The headers of the answer to a preflight, besides those of any answer.

        Args:
            methods: what the resource can do.
            requested: the value of ``Access-Control-Request-Headers``. What in it is no field name is left out, since
                a client's bytes must not come back as they are.
        """
        names = (name.strip(b" \t") for name in requested.split(b","))
        allowed = b", ".join(name for name in names if _TOKEN.fullmatch(name))
        return (
            (b"access-control-allow-methods", ", ".join(methods).encode("latin-1")),
            (b"access-control-allow-headers", allowed or self._request_headers),
            (b"access-control-max-age", b"600"),
            (b"vary", b"access-control-request-headers"),
        )


_ANY_ORIGIN: Final[Header] = (b"access-control-allow-origin", b"*")
_VARY_ORIGIN: Final[Header] = (b"vary", b"origin")
