"""Invitations: one-time codes that let the agent of one node in.

A code is ``fle_<id>_<secret><crc>``, in the form of a token. It is shown once and never sent: agent and control plane
prove to each other that they know it, by a keyed digest over what they say. So an enrollment is safe over a connection
whose other end is not known yet. The secret has 192 random bits; the store has the key that follows from it, sealed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, NamedTuple

from footlights.auth import tokens

if TYPE_CHECKING:
    from footlights.auth.tokens import Minted

PREFIX: Final = "fle_"


class Invitation(NamedTuple):
    """What both sides know."""

    invitation_id: str
    key: bytes
    """Proves the knowledge of the code."""


def code(minted: Minted) -> str:
    """Return a code made of the random parts of a token that is used for nothing else."""
    return PREFIX + minted.text.removeprefix("fl_")


def parse(text: str) -> Invitation | None:
    """Parse a code; None if it is malformed or has a typo."""
    if not text.startswith(PREFIX):
        return None
    presented = tokens.parse("fl_" + text.removeprefix(PREFIX))
    if presented is None:
        return None
    key = hashlib.sha256(f"footlights.invitation.v1\0{presented.token_id}\0{presented.secret}".encode()).digest()
    return Invitation(presented.token_id, key)


def request_proof(key: bytes, invitation_id: str, node: str, signing_request: bytes) -> bytes:
    """Return what an agent proves its request with."""
    return _proof(key, b"request", invitation_id.encode(), node.encode(), signing_request)


def answer_proof(key: bytes, certificate: bytes, request: bytes) -> bytes:
    """Return what the control plane proves its answer with; ``request`` is the proof of the request."""
    return _proof(key, b"answer", certificate, request)


def _proof(key: bytes, *parts: bytes) -> bytes:
    # With their lengths, so that no two sequences of parts are the same bytes.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, message, hashlib.sha256)
