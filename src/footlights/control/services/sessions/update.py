"""Changing a session that has not ended: its labels, its priority while it waits, its limits.

Limits are lowered and raised within what version and profile allowed when the session was created. Its own are what its
creator asked for; a limit that is cleared is the allowed one again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from footlights import errors
from footlights.control import stored
from footlights.control.services import masks
from footlights.control.services.sessions import access, request_checks
from footlights.launch.recipe import limits
from footlights.lifecycle import SessionState
from footlights.protocol import times
from footlights.store.sessions import session_rows
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.auth.roles import Caller
    from footlights.store import Transaction
    from footlights.store.schema import SessionRow

_MUTABLE = ("labels", "priority", "limits")


def update(
    tx: Transaction, row: SessionRow, caller: Caller, request: session_pb2.UpdateSessionRequest, *, now: datetime
) -> SessionRow:
    """Write the change of a session, and return the session as it is then.

    Raises:
        InvalidArgument: A member cannot be changed, or not to this.
        PermissionDenied: The caller may not give this priority.
        FailedPrecondition: The session is ending, or no longer waits.
    """
    refuse_ended(row, "changed")
    wanted = session_pb2.Session(labels=row.labels, priority=row.priority)
    paths = masks.apply(wanted, request.session, request.update_mask, mutable=_MUTABLE, identity=("session_id",))
    changes: dict[str, Any] = {}
    if masks.names(paths, "labels"):
        request_checks.check_labels("session.labels", wanted.labels)
        changes["labels"] = dict(wanted.labels)
    if masks.names(paths, "priority") and wanted.priority != row.priority:
        _check_priority(row, caller, wanted.priority)
        changes["priority"] = wanted.priority
    if masks.names(paths, "limits"):
        changes["limits"] = stored.packed_limits(_limits(row, wanted.limits, paths))
    different = {name: value for name, value in changes.items() if value != getattr(row, name)}
    return session_rows.update_session(tx, row, now=now, **different) if different else row


def refuse_ended(row: SessionRow, what: str) -> None:
    """Raise FailedPrecondition for a session that is ending or has ended."""
    if row.intent == "END" or row.ended_time is not None:
        raise errors.FailedPrecondition(
            f"The session is {row.state} and cannot be {what}. Create a new one.",
            reason=errors.Reason.SESSION_ENDED,
            metadata={"session_id": row.session_id, "state": row.state},
        )


def allowed_limits(row: SessionRow) -> application_pb2.Limits:
    """Return what a session's version and profile allow: an unset limit, any time.

    Of a session that an older server created only the maximum duration is known; the others may only be lowered.
    """
    if row.allowed_limits is not None:
        return stored.unpacked_limits(row.allowed_limits)
    known = stored.limits(row)
    known.ClearField("max_duration")
    if row.max_total_s is not None:
        known.max_duration.CopyFrom(times.duration(row.max_total_s))
    return known


def _limits(row: SessionRow, asked: application_pb2.Limits, paths: list[str]) -> application_pb2.Limits:
    """Return the limits that apply to a session once ``asked`` does, which has what the paths name.

    Raises InvalidArgument for more than is allowed.
    """
    applied, allowed = stored.limits(row), allowed_limits(row)
    cleared = application_pb2.Limits()
    for name in limits.NAMES:
        if "limits" not in paths and f"limits.{name}" not in paths:
            continue
        if allowed.HasField(name):  # type: ignore[arg-type]
            getattr(cleared, name).CopyFrom(getattr(allowed, name))
        else:
            cleared.unlimited.append(name)
    limits.override(applied, cleared)
    applied.capped[:] = sorted({*applied.capped, *(set(allowed.capped) & set(_named(cleared)))})
    limits.narrow(applied, asked, within=allowed, field="session.limits")
    return applied


def _named(limits: application_pb2.Limits) -> list[str]:
    return [field.name for field, _ in limits.ListFields()]


def _check_priority(row: SessionRow, caller: Caller, priority: int) -> None:
    if row.state != SessionState.PENDING:
        raise errors.FailedPrecondition(
            f"session.priority: the session is {row.state}, and a priority counts only while it waits.",
            reason=errors.Reason.SESSION_NOT_PENDING,
            metadata={"field": "session.priority", "session_id": row.session_id, "state": row.state},
        )
    if priority > 0:
        access.require(caller, "sessions.priority", "session.priority", f"{priority} is above 0")
