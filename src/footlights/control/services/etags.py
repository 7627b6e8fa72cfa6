"""ETags: what a resource is now, in a few characters, so that a change can be bound to what its caller has read.

An etag says nothing to its reader and is compared in the transaction of the write. ``*`` stands for anything that
exists.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

from footlights import errors

if TYPE_CHECKING:
    from google.protobuf.message import Message


def of_contents(*parts: Message | bytes) -> str:
    """Return the etag of what messages and texts hold."""
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.SerializeToString(deterministic=True)
        digest.update(len(content).to_bytes(8, "big") + content)
    return _text(digest.digest())


def of_revision(revision: int) -> str:
    """Return the etag of a session, which has a new revision whenever it changes."""
    return _text(hashlib.sha256(b"revision %d" % revision).digest())


def check(expected: str, current: str, what: str) -> None:
    """Compare the etag of a request with that of the resource; ``current`` is empty where there is none.

    Args:
        expected: What the request has; empty: it does not ask.
        current: What the resource has.
        what: The resource, for people: ``profile small``.

    Raises:
        Conflict: They differ.
    """
    if not expected or expected == current or (expected == "*" and current):
        return
    problem = f"has changed: its etag is {current!r}, not {expected!r}" if current else "does not exist"
    raise errors.Conflict(
        f"etag: {what} {problem}. Read it again, and decide on what it is now.",
        reason=errors.Reason.ETAG_MISMATCH,
        metadata={"field": "etag", "etag": current},
    )


def _text(digest: bytes) -> str:
    return urlsafe_b64encode(digest[:12]).decode()
