"""Giving a session more time, within what its version and profile allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights import errors
from footlights.control import stored
from footlights.control.call import bounds
from footlights.control.services.sessions import update
from footlights.protocol import times
from footlights.store.sessions import session_rows

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.store import Transaction
    from footlights.store.schema import SessionRow


def extend(tx: Transaction, row: SessionRow, more_s: float, *, now: datetime) -> SessionRow:
    """Write a session's longer maximum duration, and return the session as it is then.

    Raises FailedPrecondition where it is ending, or has no maximum duration; InvalidArgument where it would be allowed
    to run for too long.
    """
    update.refuse_ended(row, "extended")
    applied = stored.limits(row)
    if not applied.HasField("max_duration"):
        raise errors.FailedPrecondition(
            "The session has no maximum duration, so there is nothing to extend.",
            reason=errors.Reason.NO_MAX_DURATION,
            metadata={"session_id": row.session_id},
        )
    total = times.seconds(applied.max_duration) + more_s
    allowed = row.max_total_s if row.max_total_s is not None else bounds.MAX_S
    if total > allowed:
        left = allowed - times.seconds(applied.max_duration)
        fix = f"Give at most {left:g}s." if left > 0 else "No time is left: create a new session."
        raise errors.InvalidArgument(
            "extend_by",
            f"{more_s:g}s more would make {total:g}s in all; {row.application} {row.application_version} "
            f"allows {allowed:g}s. {fix}",
            reason=errors.Reason.ABOVE_LIMIT,
            metadata={"limit": "max_duration", "value": f"{total:g}s", "allowed": f"{allowed:g}s"},
        )
    applied.max_duration.CopyFrom(times.duration(total))
    return session_rows.update_session(tx, row, now=now, limits=stored.packed_limits(applied))
