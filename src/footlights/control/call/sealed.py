"""Texts that clients keep and give back, page tokens and cursors: opaque, and made by nobody else.

They are sealed by AES-SIV (RFC 5297), which needs no nonce: one key may seal as many as a cluster ever sends.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from google.protobuf.message import Message

from footlights.http.v1 import annotations_pb2

if TYPE_CHECKING:
    from collections.abc import Collection

    from google.protobuf.descriptor import FieldDescriptor

    from footlights.auth.secrets import Keys

_VERSION: Final = 1
"""The first byte. A later version that must be told from this one has another."""


class Sealer:
    """Seals JSON values; every replica with the same cluster key opens them."""

    def __init__(self, keys: Keys) -> None:
        """Use keys of 32 bytes."""
        self._keys = keys

    def seal(self, kind: str, content: Any) -> str:
        """Return a value as a text, good for one kind of use."""
        plain = json.dumps(content, separators=(",", ":")).encode()
        sealed = bytes([_VERSION]) + AESSIV(self._keys()[0]).encrypt(plain, [_bound(kind)])
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, kind: str, text: str) -> Any | None:
        """Return what was sealed for this kind of use; None where the text is none of ours, or of another version."""
        try:
            sealed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            if sealed[:1] != bytes([_VERSION]):
                return None
        except (binascii.Error, UnicodeEncodeError):
            return None
        for key in self._keys():
            with contextlib.suppress(InvalidTag):
                return json.loads(AESSIV(key).decrypt(sealed[1:], [_bound(kind)]))
        return None


def digest(request: Message, *, without: Collection[str] = ()) -> str:
    """Return what differs between requests that ask for different things.

    It is made of the members that are set, except those that have their default, by their names: one that a later
    release adds, and nobody sets, changes nothing.
    """
    asked = {
        field.name: sorted({_text(each) for each in (value if field.is_repeated else [value])})
        for field, value in request.ListFields()
        if field.name not in without and value != _default(field)
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    return value.SerializeToString(deterministic=True).hex() if isinstance(value, Message) else str(value)


def _default(field: FieldDescriptor) -> Any:
    text = field.GetOptions().Extensions[annotations_pb2.rules].default_value
    return json.loads(text) if text else None


def _bound(kind: str) -> bytes:
    return f"{kind}.{_VERSION}".encode()
