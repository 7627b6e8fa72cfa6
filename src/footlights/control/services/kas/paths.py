"""Where REST serves Kit App Streaming: at the root, below ``/applications``, and below a prefix of the operator's."""

from __future__ import annotations

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
        path: str = scope["path"]
        for prefix in self._prefixes:
            rest = path.removeprefix(prefix)
            if path.startswith(prefix) and any(rest == own or rest.startswith(f"{own}/") for own in _OWN):
                raw = scope.get("raw_path") or path.encode()
                return scope if not prefix else {**scope, "path": rest, "raw_path": raw.removeprefix(prefix.encode())}
        return None
