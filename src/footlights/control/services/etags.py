"""ETags: what a resource is now, in a few characters, so that a change can be bound to what its caller has read.

An etag says nothing to its reader and is compared in the transaction of the write. ``*`` stands for anything that
exists. Who writes back what was read need not repeat its etag: that of a request's resource counts as the request's.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from functools import cache
from typing import TYPE_CHECKING

from footlights import errors

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from footlights.store.schema import SessionRow

_SHOWN = 128
"""Characters of an etag that an error repeats."""


def of_contents(*parts: Message | bytes) -> str:
    """Return the etag of what messages and texts hold."""
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.SerializeToString(deterministic=True)
        digest.update(len(content).to_bytes(8, "big") + content)
    return _text(digest.digest())


def of_session(row: SessionRow) -> str:
    """Return the etag of a session: its revision is new whenever it changes, but may come again after a restore."""
    return of_contents(b"%d" % row.revision, str(row.updated_time or row.created_time).encode())


def take(request: Message) -> None:
    """Have the etag of the resource that a request carries as the request's own.

    Raises InvalidArgument where the request has another one.
    """
    name = _resource(request.DESCRIPTOR)
    given: str = getattr(request, name).etag if name else ""
    if not given:
        return
    own: str = request.etag  # type: ignore[attr-defined]
    if own and own != given:
        raise errors.InvalidArgument(
            f"{name}.etag",
            f"{given[:_SHOWN]!r} differs from the request's etag, {own!r}. Send one of them.",
            reason=errors.Reason.VALUE_CONFLICT,
        )
    request.etag = given  # type: ignore[attr-defined]


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
    problem = f"has changed: its etag is {current!r}, not {expected[:_SHOWN]!r}" if current else "does not exist"
    raise errors.Conflict(
        f"etag: {what} {problem}. Read it again, and decide on what it is now.",
        reason=errors.Reason.ETAG_MISMATCH,
        metadata={"field": "etag", "etag": current},
    )


@cache
def _resource(descriptor: Descriptor) -> str:
    """Return the member of a request with an etag that is a resource with an etag; empty where there is none."""
    if "etag" not in descriptor.fields_by_name:
        return ""
    kinds = {field.name: field.message_type for field in descriptor.fields if field.message_type is not None}
    return next((name for name, kind in kinds.items() if "etag" in kind.fields_by_name), "")


def _text(digest: bytes) -> str:
    return urlsafe_b64encode(digest[:12]).decode()
