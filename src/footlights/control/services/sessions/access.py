"""Which sessions a caller may see and act on: one rule for every RPC.

A caller without the permission ``sessions.all`` sees its own sessions. Another user's session does not exist for it
(404, the same as for a session that never was); a pool's warm instance, which is nobody's, exists for nobody. A request
that names another user is refused (403): an empty list would look as if that user had no sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights import errors, ids
from footlights.store.sessions import session_rows

if TYPE_CHECKING:
    from footlights.auth.roles import Caller
    from footlights.store import Transaction
    from footlights.store.schema import SessionRow


def find(tx: Transaction, caller: Caller, session_id: str) -> SessionRow:
    """Return a session that the caller may see. Raises NotFound where there is none, or it is another user's."""
    row = session_rows.get(tx, session_id) if ids.is_uuid(session_id) else None
    return checked(row, caller, session_id)


def checked(row: SessionRow | None, caller: Caller, session_id: str) -> SessionRow:
    """Return the session that was found under an id; raise as ``find`` does."""
    if row is None or row.pool is not None or not (caller.may("sessions.all") or row.username == caller.subject):
        raise errors.NotFound(
            f"session_id: there is no session {session_id!r}, or it is not yours. List yours with GET /v1/sessions.",
            reason=errors.Reason.SESSION_NOT_FOUND,
            metadata={"field": "session_id", "session_id": session_id},
        )
    return row


def visible_username(caller: Caller, username: str) -> str:
    """Return whose sessions a list or a watch shows; empty for all users'.

    Raises PermissionDenied where it names another user, and the caller sees only its own sessions.
    """
    if caller.may("sessions.all"):
        return username
    return _own(caller, username, "sessions.all")


def owner(caller: Caller, username: str) -> str:
    """Return the user that a new session belongs to.

    Raises PermissionDenied where it names another user, and the caller creates sessions only for itself;
    InvalidArgument where the name has spaces around it.
    """
    if username != username.strip():
        raise errors.InvalidArgument("username", f"{username!r} has leading or trailing spaces. Remove them.")
    if username and caller.may("sessions.create_for_others"):
        return username
    return _own(caller, username, "sessions.create_for_others")


def require(caller: Caller, permission: str, field: str, problem: str) -> None:
    """Raise PermissionDenied that names the request field where the caller's role lacks a permission."""
    if not caller.may(permission):
        raise errors.PermissionDenied(
            f"{field}: {problem}, which needs the permission {permission}; the role {caller.role.name} lacks it. "
            "Leave it out, or use a service's token.",
            metadata={"field": field, "permission": permission},
        )


def _own(caller: Caller, username: str, permission: str) -> str:
    if username and username != caller.subject:
        require(caller, permission, "username", f"{username!r} is not you ({caller.subject})")
    return caller.subject
