"""Changing a session that has not ended: its labels, its priority while it waits, its limits.

Limits are lowered and raised within what version and profile allowed when the session was created. Its own are what its
creator asked for; a limit that is cleared is the allowed one again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from footlights import errors
from footlights.control import stored
from footlights.control.call import bounds
from footlights.control.services import masks
from footlights.control.services.sessions import access, request_checks
from footlights.lifecycle import SessionState
from footlights.protocol import times
from footlights.store.sessions import session_rows
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from footlights.auth.roles import Caller
    from footlights.store import Transaction
    from footlights.store.schema import SessionRow

_MUTABLE = ("labels", "priority", "limits")
LIMITS = tuple(field.name for field in application_pb2.Limits.DESCRIPTOR.fields if field.message_type is not None)
MAY_BE_UNLIMITED = tuple(name for name in LIMITS if name not in ("start_timeout", "stop_grace_period"))


def update(tx: Transaction, row: SessionRow, caller: Caller, request: session_pb2.UpdateSessionRequest) -> SessionRow:
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
        changes["limits"] = _limits(row, wanted.limits, paths).SerializeToString()
    different = {name: value for name, value in changes.items() if value != getattr(row, name)}
    return session_rows.update_session(tx, row, **different) if different else row


def refuse_ended(row: SessionRow, what: str) -> None:
    """Raise FailedPrecondition for a session that is ending or has ended."""
    if row.intent == "END" or row.ended_time is not None:
        raise errors.FailedPrecondition(
            f"The session is {row.state} and cannot be {what}. Create a new one.",
            reason="SESSION_ENDED",
            metadata={"session_id": row.session_id, "state": row.state},
        )


def allowed_limits(row: SessionRow) -> application_pb2.Limits:
    """Return what a session's version and profile allow: an unset limit, any time.

    Of a session that an older server created only the maximum duration is known; the others may only be lowered.
    """
    if row.allowed_limits is not None:
        return application_pb2.Limits.FromString(row.allowed_limits)
    known = stored.limits(row)
    known.ClearField("max_duration")
    if row.max_total_s is not None:
        known.max_duration.CopyFrom(times.duration(row.max_total_s))
    return known


def _limits(row: SessionRow, asked: application_pb2.Limits, paths: list[str]) -> application_pb2.Limits:
    """Return the limits that apply to a session once ``asked`` does, which has what the paths name."""
    applied, allowed = stored.limits(row), allowed_limits(row)
    for name in LIMITS:
        if "limits" in paths or f"limits.{name}" in paths:
            applied.ClearField(name)  # type: ignore[arg-type]
            if allowed.HasField(name):  # type: ignore[arg-type]
                getattr(applied, name).CopyFrom(getattr(allowed, name))
    _narrow(applied, asked, within=allowed)
    applied.unlimited[:] = [name for name in MAY_BE_UNLIMITED if not applied.HasField(name)]  # type: ignore[arg-type]
    return applied


def _narrow(applied: application_pb2.Limits, asked: application_pb2.Limits, *, within: application_pb2.Limits) -> None:
    """Change limits to what is asked for. Raises InvalidArgument for more than is allowed."""
    for name in asked.unlimited:
        if name not in MAY_BE_UNLIMITED:
            raise errors.InvalidArgument(
                "session.limits.unlimited",
                f"{name!r} cannot be unlimited; choose from {', '.join(MAY_BE_UNLIMITED)}.",
                reason="NOT_ALLOWED",
                metadata={"value": name},
            )
    for name in LIMITS:
        field, unlimited = f"session.limits.{name}", name in asked.unlimited
        most = times.seconds(getattr(within, name)) if within.HasField(name) else None  # type: ignore[arg-type]
        if asked.HasField(name):  # type: ignore[arg-type]
            if unlimited:
                raise errors.InvalidArgument(
                    field, "is set, and named in unlimited. Give one of them.", reason="VALUE_CONFLICT"
                )
            value = bounds.bounded(field, getattr(asked, name))
            if most is not None and value > most:
                raise _above(field, f"{value:g}s", most)
            getattr(applied, name).CopyFrom(getattr(asked, name))
        elif unlimited:
            if most is not None:
                raise _above(field, "unlimited", most)
            applied.ClearField(name)  # type: ignore[arg-type]


def _check_priority(row: SessionRow, caller: Caller, priority: int) -> None:
    if row.state != SessionState.PENDING:
        raise errors.FailedPrecondition(
            f"session.priority: the session is {row.state}, and a priority counts only while it waits.",
            reason="SESSION_NOT_PENDING",
            metadata={"session_id": row.session_id, "state": row.state},
        )
    if priority > 0:
        access.require(caller, "sessions.priority", "session.priority", f"{priority} is above 0")


def _above(field: str, asked: str, allowed_s: float) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        field,
        f"{asked} is more than the {allowed_s:g}s that the version or profile allows. Give at most that.",
        reason="ABOVE_LIMIT",
    )
