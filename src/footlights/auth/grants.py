"""Grants: permission for one viewer to connect to one session, for a short time.

A grant is ``flg_`` and one base64url word (no padding, no dot), so that it fits a header, a query and a WebSocket
subprotocol (RFC 6455 requires RFC 7230 token characters there). The word is HMAC-SHA256 over the claims, then the
claims as JSON. Nothing is stored: any front door with the cluster key can verify any grant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from footlights.errors import Reason, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "flg_"
_MAC_BYTES: Final = 32
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Grant:
    """The claims of a grant."""

    session_id: str
    subject: str
    expire_time: datetime
    """Aware, UTC, whole milliseconds."""
    nonce: str
    """Sixteen URL-safe characters, different in every grant; a WHEP resource is bound to it."""


class Grants:
    """Mints and verifies grants under one key."""

    def __init__(self, key: bytes, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Use ``key`` for grants only: ``ClusterKey.derive("grants")``."""
        self._key = key
        self._random_bytes = random_bytes

    def mint(self, session_id: str, subject: str, ttl_s: float, now: datetime) -> str:
        """Return a grant for ``session_id``, valid for ``ttl_s`` seconds from ``now`` (aware)."""
        expire_ms = int((now + timedelta(seconds=ttl_s)).timestamp() * 1000)
        claims = [session_id, subject, expire_ms, _encode(self._random_bytes(12))]
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return PREFIX + _encode(self._mac(payload) + payload)

    def verify(self, text: str, now: datetime) -> Grant:
        """Return the claims of the grant in ``text``.

        Raises Unauthenticated: ``GRANT_INVALID`` for what is no grant of this cluster, ``GRANT_EXPIRED``.
        """
        grant = self.read(text)
        if now >= grant.expire_time:
            raise Unauthenticated(
                f"The grant expired at {grant.expire_time.isoformat(timespec='seconds')}: "
                "request a new one with POST /v1/sessions/{session_id}:connect.",
                reason=Reason.GRANT_EXPIRED,
                metadata={"session_id": grant.session_id, "expire_time": grant.expire_time.isoformat()},
            )
        return grant

    def read(self, text: str) -> Grant:
        """Return the claims of the grant in ``text``, even if it has expired: for closing what was opened with it.

        Raises Unauthenticated (``GRANT_INVALID``) for what is no grant of this cluster.
        """
        if not text.startswith(PREFIX) or len(text) > _LONGEST:
            raise _invalid()
        word = text.removeprefix(PREFIX)
        try:
            blob = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _invalid() from None
        mac, payload = blob[:_MAC_BYTES], blob[_MAC_BYTES:]
        # The word is compared too: base64 can encode the same bytes in several ways, and only one is a grant.
        if not hmac.compare_digest(mac, self._mac(payload)) or _encode(blob) != word:
            raise _invalid()
        session_id, subject, expire_ms, nonce = json.loads(payload)
        seconds, milliseconds = divmod(expire_ms, 1000)
        expire_time = datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=milliseconds)
        return Grant(session_id, subject, expire_time, nonce)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, b"footlights.grant.v1\0" + payload, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        "The grant is invalid for this control plane: request one with POST /v1/sessions/{session_id}:connect. "
        "API tokens do not open a session's stream.",
        reason=Reason.GRANT_INVALID,
    )
