"""Time-limited credentials for TURN relays, as for coturn's ``use-auth-secret``.

The convention is that of "A REST API For Access To TURN Services" (draft-uberti-behave-turn-rest): the user name is
``EXPIRY:NAME``, with the expiry in seconds since 1970, and the password is the base64 of HMAC-SHA1 over it with the
secret that the relay and this control plane share. Nothing is stored, and the relay makes no request to verify it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credential:
    """One user's credential for a relay; its members are named as in WebRTC's ``RTCIceServer``."""

    urls: tuple[str, ...]
    username: str
    credential: str = field(repr=False)


class Relays:
    """Issues credentials for one set of relays."""

    def __init__(self, urls: Sequence[str], secret: bytes, ttl_s: float) -> None:
        self._urls, self._secret = tuple(urls), secret
        self.ttl_s = ttl_s
        """How long a credential is valid, in seconds."""

    def issue(self, session_id: str, now: datetime) -> Credential:
        """Return a credential for ``session_id``, a viewer's or the application's, valid from ``now`` (aware)."""
        username = f"{int((now + timedelta(seconds=self.ttl_s)).timestamp())}:{session_id}"
        # Relays verify with SHA-1; HMAC-SHA1 is not affected by its known weaknesses.
        digest = hmac.digest(self._secret, username.encode(), hashlib.sha1)
        return Credential(self._urls, username, base64.b64encode(digest).decode())


def of(urls: Sequence[str], secret_file: Path | None, ttl_s: float) -> Relays | None:
    """Return the issuer for these settings; None if there is no relay.

    Raises InvalidArgument where the secret cannot be read, or is empty; names ``turn_secret_file``.
    """
    if not urls or secret_file is None:
        return None
    try:
        secret = secret_file.read_bytes().strip()
    except OSError as error:
        raise InvalidArgument("turn_secret_file", f"cannot read {secret_file}: {error.strerror}.") from error
    if not secret:
        raise InvalidArgument(
            "turn_secret_file",
            f"{secret_file} is empty; write the relay's static-auth-secret to it: openssl rand -hex 32",
        )
    return Relays(urls, secret, ttl_s)
