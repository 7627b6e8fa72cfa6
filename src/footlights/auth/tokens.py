"""API tokens: ``fl_<token_id>_<secret><crc>``.

The prefix can be searched for (secret scanners, ``redaction``), the id finds the row, and the CRC detects a typo or a
truncated copy without a look-up. The secret has 192 random bits, so a keyed digest is sufficient at rest: a slow hash
would protect only secrets that can be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.auth.secrets import Keys

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""Base62, so that a double click in a terminal selects a whole token."""

_ID_BYTES, _ID_CHARS = 9, 13
_SECRET_BYTES, _SECRET_CHARS = 24, 33
_CRC_CHARS = 6
_TOKEN: Final = re.compile(
    rf"fl_([0-9A-Za-z]{{{_ID_CHARS}}})_([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_CRC_CHARS}}})"
)


class Minted(NamedTuple):
    """A new token."""

    text: str
    """The whole token, for its holder; shown once."""
    token_id: str
    """Its id, 13 characters; public."""
    secret: str
    """The secret part, 33 characters."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as a caller presented it: well formed, not yet verified."""

    token_id: str
    secret: str = field(repr=False)


def mint(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> Minted:
    """Create a token from 33 random bytes."""
    token_id = _base62(random_bytes(_ID_BYTES), _ID_CHARS)
    secret = _base62(random_bytes(_SECRET_BYTES), _SECRET_CHARS)
    return Minted(f"fl_{token_id}_{secret}{_crc(token_id, secret)}", token_id, secret)


def mint_for(key: bytes, subject: str, request_id: str, token_id: str | None = None) -> Minted:
    """Create the token that a caller's request asks for, or return the one that it created, by its id.

    Its secret is computed and not drawn, so that a repeated request gets it again although it is stored nowhere. It is
    a secret from anyone who lacks the key or the request id; a digest of the request id is all that the database has.
    """
    token_id = token_id or _base62(secrets.token_bytes(_ID_BYTES), _ID_CHARS)
    # What digest() is given never begins with a bracket.
    bound = json.dumps(["secret", token_id, subject, request_id]).encode()
    secret = _base62(hmac.digest(key, bound, hashlib.sha256)[:_SECRET_BYTES], _SECRET_CHARS)
    return Minted(f"fl_{token_id}_{secret}{_crc(token_id, secret)}", token_id, secret)


def parse(text: str) -> Presented | None:
    """Parse a token; None if it is malformed or has a typo."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    token_id, secret, crc = match.groups()
    return Presented(token_id, secret) if crc == _crc(token_id, secret) else None


def digest(presented: Presented, key: bytes) -> bytes:
    """Return the digest to store: HMAC-SHA256 over id and secret, 32 bytes. The id keeps rows from being swapped."""
    return hmac.digest(key, f"{presented.token_id}_{presented.secret}".encode(), hashlib.sha256)


def matches(presented: Presented, key: bytes, stored: bytes) -> bool:
    """Return whether ``stored`` is the digest of this token, in constant time."""
    return hmac.compare_digest(digest(presented, key), stored)


def replica_proofs(keys: Keys) -> list[str]:
    """Return what replicas of one control plane take from each other, first what they present.

    ``keys`` are derived for this use.
    """
    return [f"flp_{hmac.digest(key, b'replica', hashlib.sha256).hex()}" for key in keys()]


def _crc(token_id: str, secret: str) -> str:
    return _base62(zlib.crc32(f"{token_id}_{secret}".encode()).to_bytes(4, "big"), _CRC_CHARS)


def _base62(data: bytes, width: int) -> str:
    number = int.from_bytes(data, "big")
    digits = []
    for _ in range(width):
        number, rest = divmod(number, 62)
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits))
