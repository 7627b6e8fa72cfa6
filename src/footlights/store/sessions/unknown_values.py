"""Values in rows that this release does not know, because a replica of a later one wrote them.

A living session with such a value belongs to that replica: this one shows it and leaves it alone. It is not placed,
ended or changed here, nor is a report on it taken in, which its agent repeats. Stages in a timeline are history alone:
one that is not known is kept and holds nothing up.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog

from footlights import errors
from footlights.lifecycle import Condition, Desired, EndReason, Intent, LaunchState, SessionState, known

if TYPE_CHECKING:
    import enum
    from collections.abc import Mapping

    from footlights.store.schema import LaunchRow, SessionRow

log = structlog.get_logger(__name__)

OF_SESSION: Final[Mapping[str, type[enum.StrEnum]]] = {
    "state": SessionState,
    "condition": Condition,
    "end_reason": EndReason,
    "intent": Intent,
    "wish": EndReason,
}
"""The columns of a session that hold the name of a value; an end reason is empty before there is one."""

OF_LAUNCH: Final[Mapping[str, type[enum.StrEnum]]] = {"state": LaunchState, "desired": Desired}
"""Those of a launch."""


def of_session(row: SessionRow) -> dict[str, str]:
    """Return the values of a session that are not known, by column."""
    return _unknown(row, OF_SESSION)


def of_launch(row: LaunchRow) -> dict[str, str]:
    """Return the values of a launch that are not known, by column."""
    return _unknown(row, OF_LAUNCH)


def report(session_id: str, values: Mapping[str, str]) -> None:
    """Log a session that is left alone, once for each of its values: the loops read many times a second."""
    _report(session_id, json.dumps(values, sort_keys=True))


def refusal(row: SessionRow, values: Mapping[str, str]) -> errors.FailedPrecondition:
    """Return the error for a call that would change a session that is left alone."""
    shown = ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
    return errors.FailedPrecondition(
        f"Session {row.session_id} has values that this server does not know ({shown}): a server of a later release "
        "has it. Ask that one, or upgrade this one.",
        reason=errors.Reason.SESSION_OF_LATER_RELEASE,
        metadata={"session_id": row.session_id, "values": shown},
    )


def _unknown(row: SessionRow | LaunchRow, columns: Mapping[str, type[enum.StrEnum]]) -> dict[str, str]:
    found = {}
    for name, kind in columns.items():
        text = getattr(row, name)
        if text and known(kind, text) is None:
            found[name] = str(text)
    return found


@lru_cache(maxsize=10_000)
def _report(session_id: str, values: str) -> None:
    log.warning("session_of_later_release", session_id=session_id, values=values)
