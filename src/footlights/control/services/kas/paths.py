"""Where REST serves Kit App Streaming: at the root, below ``/applications``, and below a prefix of the operator's."""

from __future__ import annotations

import re
from typing import Any, Final

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
