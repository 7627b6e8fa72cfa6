"""A launch's secret: shows an application, or the agent in front of it, that a request comes from the front door.

The control plane makes one for each launch and keeps it sealed. The agent is sent it with the assignment and gives it
to the application in its session file. Whoever else reaches the port lacks it.

On the node itself the agent presents it in a header. Over the network nobody does, since nothing is encrypted there:
the front door asks for a challenge, by a request that proves nothing and is refused with one, and answers it with a
proof for one request, its method and its target. Who reads along learns nothing that opens the port again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

HEADER: Final = "Footlights-Launch-Secret"
"""The header of the agent's probes, which do not leave the node."""

PROOF: Final = "Footlights-Launch-Proof"
"""The header of every request of the front door: ``NONCE.MAC``."""

CHALLENGE: Final = "Footlights-Launch-Challenge"
"""The header, of an answer that refuses a request, with what is to be proved."""

MEMBER: Final = "FOOTLIGHTS_LAUNCH_SECRET"
"""The member of the session file; arguments are in lower case, so none has this name."""

_PREFIX: Final = "fls_"
_BYTES: Final = 32
_NONCES: Final = 1024
"""After so many proofs a challenge is replaced, so that what is kept of them is bounded."""


def new_secret() -> str:
    """Return a new secret; its prefix lets logs redact it."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def prove(secret: str, challenge: str, method: str, target: str) -> str:
    """Return the proof for one request; ``target`` is that of its first line: the path with the query."""
    nonce = secrets.token_urlsafe(12)
    return f"{nonce}.{_mac(secret, challenge, nonce, method, target)}"


class Proofs:
    """Checks proofs, each of which is good once. A challenge lives as long as this does, or for 1024 proofs."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._used: set[str] = set()
        self.challenge = secrets.token_urlsafe(18)
        """What is to be proved next."""

    def accept(self, proof: str, method: str, target: str) -> bool:
        """Whether a request comes from who has the secret, and for the first time. An empty secret proves nothing."""
        nonce, _, mac = proof.partition(".")
        wanted = _mac(self._secret, self.challenge, nonce, method, target)
        good = hmac.compare_digest(wanted.encode(), mac.encode("utf-8", "surrogateescape"))
        if not good or not self._secret or nonce in self._used:
            return False
        self._used.add(nonce)
        if len(self._used) >= _NONCES:
            self._used.clear()
            self.challenge = secrets.token_urlsafe(18)
        return True


def _mac(secret: str, challenge: str, nonce: str, method: str, target: str) -> str:
    text = "\0".join(("footlights.launch.v1", challenge, nonce, method, target))
    return hmac.new(secret.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
