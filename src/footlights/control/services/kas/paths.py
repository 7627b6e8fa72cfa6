"""Where REST serves Kit App Streaming, at the root, below ``/applications``, and below a prefix; and to which pages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from footlights.http.cors import Cors
from footlights.http.scope import header

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

_OWN: Final = ("/streaming/stream", "/cfg/apps")
_USUAL: Final = "/applications"
"""The root path of the original's manager of applications."""


class KasPaths:
    """Says which requests are Kit App Streaming's."""

    def __init__(self, prefix: str = "") -> None:
        self._prefixes = tuple(dict.fromkeys(("", _USUAL, prefix.rstrip("/"))))

    def rewritten(self, scope: dict[str, Any]) -> dict[str, Any] | None:
        """Return the scope of a request as the gateway knows its path; None for one that is not ours."""
        if scope["type"] != "http":
            return None
        path, raw = scope["path"], scope.get("raw_path") or scope["path"].encode()
        for prefix in self._prefixes:
            # With a slash too many where a server's address was typed in with one at its end.
            rest = re.sub(r"^/{2,}", "/", path.removeprefix(prefix))
            if path.startswith(prefix) and any(rest == own or rest.startswith(f"{own}/") for own in _OWN):
                below = re.sub(rb"^/{2,}", b"/", raw.removeprefix(prefix.encode()))
                return scope if rest == path else {**scope, "path": rest, "raw_path": below}
        return None


def for_pages_of(origins: Collection[str], app: ASGIApp) -> ASGIApp:
    """Return the application for requests without a token of these origins' pages alone, and of what is no page."""
    cors = Cors(origins, expose=(), request_headers=())

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        foreign = cors.is_foreign(header(scope, b"origin"), header(scope, b"host"))
        if not foreign or header(scope, b"authorization") or scope["method"] == "OPTIONS":
            await app(scope, receive, send)
            return
        why = "Pages of this origin may not call without a token: the server's --cors-origins names those that may."
        body = json.dumps({"detail": why}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return guarded
