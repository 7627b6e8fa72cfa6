"""Texts that clients keep and give back, page tokens and cursors: opaque, and made by nobody else."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final

from footlights.errors import Internal

if TYPE_CHECKING:
    from footlights.auth.secrets import Box

_VERSION: Final = 1
"""The first byte. A later version that must be told from this one has another."""


class Sealer:
    """Seals JSON values; every replica with the same cluster key opens them."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def seal(self, kind: str, content: Any) -> str:
        """Return a value as a text, good for one kind of use."""
        plain = json.dumps(content, separators=(",", ":")).encode()
        sealed = bytes([_VERSION]) + self._box.seal(plain, _bound(kind))
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, kind: str, text: str) -> Any | None:
        """Return what was sealed for this kind of use; None where the text is none of ours, or of another version."""
        try:
            sealed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            if sealed[:1] != bytes([_VERSION]):
                return None
            return json.loads(self._box.open(sealed[1:], _bound(kind)))
        except (binascii.Error, UnicodeEncodeError, Internal):
            return None


def _bound(kind: str) -> bytes:
    return f"{kind}.{_VERSION}".encode()
