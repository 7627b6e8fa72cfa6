"""Grants: permission for one viewer to connect to one session, for a short time.

A grant is ``flg_`` and one base64url word (no padding, no dot), so that it fits a header, a query and a WebSocket
subprotocol (RFC 6455 requires RFC 7230 token characters there). The word is HMAC-SHA256 over the claims, then the
claims as JSON. Nothing is stored: any front door with the cluster key can verify any grant.

Its age is bounded by who verifies it: one that was issued more than `MAX_TTL_S` ago, or is valid for longer than that,
is refused whoever signed it and whatever expiry it has.
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

from footlights import ids
from footlights.errors import Reason, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.auth.secrets import Keys

PREFIX: Final = "flg_"
_MAC_BYTES: Final = 32
MAX_TTL_S: Final = 86_400.0
"""The longest that any grant is valid, in seconds."""

_LONGEST: Final = 4096
_RANDOM_BYTES: Final = 12
_TIME_BYTES: Final = 6
_CLOCK_SLACK_S: Final = 60.0
"""How far the clocks of two replicas may be apart."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The claims of a grant."""

    session_id: str
    subject: str
    expire_time: datetime
    """Aware, UTC, whole milliseconds."""
    nonce: str
    """URL-safe characters, different in every grant; a WHEP resource is bound to it."""
    issue_time: datetime | None = None
    """None in a grant of the release before."""

    @property
    def viewer_id(self) -> str:
        """The id of the viewer that uses it: no secret, and never taken for an option of a command."""
        return ids.viewer_id(self.nonce)


class Grants:
    """Mints grants under the current key and verifies those of all keys."""

    def __init__(self, keys: Keys, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Use ``keys`` for grants only: ``ClusterKey.keys("grants")``."""
        self._keys = keys
        self._random_bytes = random_bytes

    def mint(self, session_id: str, subject: str, ttl_s: float, now: datetime) -> str:
        """Return a grant for ``session_id``, valid for ``ttl_s`` seconds from ``now`` (aware)."""
        expire_ms = int((now + timedelta(seconds=ttl_s)).timestamp() * 1000)
        # The moment of issue is in the nonce: the release before takes exactly these four claims.
        issued = int(now.timestamp() * 1000).to_bytes(_TIME_BYTES, "big")
        claims = [session_id, subject, expire_ms, _encode(self._random_bytes(_RANDOM_BYTES) + issued)]
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return PREFIX + _encode(_mac(self._keys()[0], payload) + payload)

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
        # Signed with a stolen key, or by a server whose clock or settings are wrong.
        latest = now + timedelta(seconds=MAX_TTL_S + _CLOCK_SLACK_S)
        issued = grant.issue_time
        if grant.expire_time > latest or (
            issued is not None
            and not now - timedelta(seconds=MAX_TTL_S) <= issued <= now + timedelta(seconds=_CLOCK_SLACK_S)
        ):
            raise _invalid()
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
        known = [hmac.compare_digest(mac, _mac(key, payload)) for key in self._keys()]
        if not any(known) or _encode(blob) != word:
            raise _invalid()
        session_id, subject, expire_ms, nonce = json.loads(payload)
        return Grant(session_id, subject, _moment(expire_ms), nonce, _issue_time(nonce))


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, b"footlights.grant.v1\0" + payload, hashlib.sha256)


def _issue_time(nonce: str) -> datetime | None:
    """Return when a grant with this nonce was issued; None for the shorter nonce of the release before."""
    try:
        data = base64.urlsafe_b64decode(nonce)
    except ValueError:
        raise _invalid() from None
    return _moment(int.from_bytes(data[_RANDOM_BYTES:], "big")) if len(data) > _RANDOM_BYTES else None


def _moment(milliseconds: int) -> datetime:
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=rest)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        "The grant is invalid for this control plane: request one with POST /v1/sessions/{session_id}:connect. "
        "API tokens do not open a session's stream.",
        reason=Reason.GRANT_INVALID,
    )
