"""What a session's state means for who waits for it."""

from __future__ import annotations

from typing import Final

from footlights.v1 import session_pb2 as pb

_READY: Final = frozenset({pb.Session.READY, pb.Session.ACTIVE})
_ENDED: Final = frozenset({pb.Session.TERMINATED, pb.Session.FAILED})


def is_ready(session: pb.Session) -> bool:
    """Return whether viewers can connect to a session."""
    return session.state in _READY


def is_over(session: pb.Session) -> bool:
    """Return whether viewers cannot connect to a session any more; it may still hold its device."""
    return session.state == pb.Session.TERMINATING or has_ended(session)


def has_ended(session: pb.Session) -> bool:
    """Return whether a session has ended and its device is free, also in a state that this release does not know."""
    return session.state in _ENDED or session.HasField("ended_time")
