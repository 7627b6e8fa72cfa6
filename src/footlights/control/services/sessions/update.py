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
_NEVER_UNLIMITED = ("start_timeout", "stop_grace_period")
LIMITS = tuple(field.name for field in application_pb2.Limits.DESCRIPTOR.fields if field.message_type is not None)


def update(tx: Transaction, row: SessionRow, caller: Caller, request: session_pb2.UpdateSessionRequest) -> SessionRow:
    """Write the change of a session, and return the session as it is then.

    Raises:
        InvalidArgument: A member cannot be changed, or not to this.
        PermissionDenied: The caller may not give this priority.
        FailedPrecondition: The session is ending, or no longer waits.
    """
    refuse_ended(row, "changed")
    applied = stored.limits(row)
    wanted = session_pb2.Session(labels=row.labels, priority=row.priority, limits=applied)
    paths = masks.apply(wanted, request.session, request.update_mask, mutable=_MUTABLE, identity=("session_id",))
    changes: dict[str, Any] = {}
    if masks.names(paths, "labels"):
        request_checks.check_labels("session.labels", wanted.labels)
        changes["labels"] = dict(wanted.labels)
    if masks.names(paths, "priority") and wanted.priority != row.priority:
        _check_priority(row, caller, wanted.priority)
        changes["priority"] = wanted.priority
    if masks.names(paths, "limits"):
        changes["limits"] = change_limits(row, wanted.limits, paths).SerializeToString()
    different = {name: value for name, value in changes.items() if value != getattr(row, name)}
    return session_rows.update_session(tx, row, **different) if different else row


def refuse_ended(row: SessionRow, what: str) -> None:
    """Raise FailedPrecondition for a session that is ending or has ended."""
    if row.intent == "END" or row.ended_time is not None:
        raise errors.FailedPrecondition(
            f"The session is {row.state} and cannot be {what}. Create a new one.",
            reason="SESSION_ENDED",
            metadata={"state": row.state},
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


def change_limits(row: SessionRow, wanted: application_pb2.Limits, paths: list[str]) -> application_pb2.Limits:
    """Return the limits that apply to a session once ``wanted`` does, of which ``paths`` were asked for.

    Raises InvalidArgument for a limit that is not allowed.
    """
    allowed = allowed_limits(row)
    applied = application_pb2.Limits()
    applied.CopyFrom(wanted)
    unlimited = set(wanted.unlimited) if masks.names(paths, "limits.unlimited") else set()
    if wrong := unlimited - (set(LIMITS) - set(_NEVER_UNLIMITED)):
        choice = ", ".join(name for name in LIMITS if name not in _NEVER_UNLIMITED)
        raise errors.InvalidArgument(
            "session.limits.unlimited", f"{min(wrong)!r} cannot be unlimited; choose from {choice}."
        )
    for name in LIMITS:
        field = f"session.limits.{name}"
        most = times.seconds(getattr(allowed, name)) if allowed.HasField(name) else None  # type: ignore[arg-type]
        if name in unlimited:
            if masks.names(paths, f"limits.{name}") and wanted.HasField(name):  # type: ignore[arg-type]
                raise errors.InvalidArgument(field, "is set, and named in unlimited. Give one of them.")
            if most is not None:
                raise _above(row, field, "unlimited", most)
            applied.ClearField(name)  # type: ignore[arg-type]
        elif not any(masks.names(paths, path) for path in ("limits", f"limits.{name}")):
            continue
        elif not wanted.HasField(name):  # type: ignore[arg-type]
            applied.ClearField(name)  # type: ignore[arg-type]
            if most is not None:
                getattr(applied, name).CopyFrom(getattr(allowed, name))
        else:
            asked = bounds.bounded(field, getattr(wanted, name))
            if most is not None and asked > most:
                raise _above(row, field, f"{asked:g}s", most)
    applied.ClearField("unlimited")
    applied.unlimited.extend(name for name in allowed.unlimited if not applied.HasField(name))  # type: ignore[arg-type]
    return applied


def _check_priority(row: SessionRow, caller: Caller, priority: int) -> None:
    if row.state != SessionState.PENDING:
        raise errors.FailedPrecondition(
            f"session.priority: the session is {row.state}, and a priority counts only while it waits.",
            reason="SESSION_NOT_PENDING",
            metadata={"field": "session.priority", "state": row.state},
        )
    if priority > 0:
        access.require(caller, "sessions.priority", "session.priority", f"{priority} is above 0")


def _above(row: SessionRow, field: str, asked: str, allowed_s: float) -> errors.InvalidArgument:
    name = field.rpartition(".")[2]
    return errors.InvalidArgument(
        field,
        f"{asked} is more than the {allowed_s:g}s that {row.application} {row.application_version} "
        f"or its profile allows. Give at most that.",
        reason=f"ABOVE_{name.upper()}",
    )
