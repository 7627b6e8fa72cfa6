"""Filters of sessions: the members that they name, as SQL for lists and as values for watches.

Conditions that a list's indexes serve are found in a filter and used to find sessions (``listing``); the whole filter
is then asked of what was found. So each of its columns is in a form that no index holds: no planner may prefer another
index because of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, ColumnElement, and_, exists, func, literal, not_, or_, select, type_coerce

from footlights.filters import Both, Comparison, Condition, Either, Kind, Member, Negation
from footlights.lifecycle import EndReason, SessionState
from footlights.store.schema import LAUNCH, SESSION, SESSION_LABEL, microseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.store.schema import LaunchRow, SessionRow

MEMBERS: Final[Mapping[str, Member]] = {
    "session_id": Member(Kind.TEXT),
    "state": Member(Kind.NAME, tuple(state.value for state in SessionState)),
    "condition": Member(Kind.NAME, ("OK", "UNREACHABLE")),
    "end_reason": Member(Kind.NAME, tuple(reason.value for reason in EndReason)),
    "username": Member(Kind.TEXT),
    "application": Member(Kind.TEXT),
    "application_version": Member(Kind.TEXT),
    "profile": Member(Kind.TEXT),
    "node": Member(Kind.TEXT),
    "device": Member(Kind.TEXT),
    "priority": Member(Kind.NUMBER),
    "labels": Member(Kind.MAP),
    "created_time": Member(Kind.TIME),
    "ready_time": Member(Kind.TIME),
    "ended_time": Member(Kind.TIME),
}

OF_ENDED: Final = frozenset({"state", "end_reason", "ended_time"})
"""Who names one of these asks for sessions that have ended too."""

SOMEBODYS: Final = SESSION.c.pool.is_(None)
"""Left out of everything that counts or shows sessions: the warm instances of pools, which are nobody's."""

OF_LAUNCHES: Final = frozenset({"node", "device"})
"""Members that are values of a session's current launch."""


def values(row: SessionRow, launch: LaunchRow | None) -> dict[str, Any]:
    """Return the members of a session, of which ``launch`` is the current launch."""
    found = {name: getattr(row, name) for name in MEMBERS if name not in OF_LAUNCHES}
    return found | {name: getattr(launch, name, None) for name in OF_LAUNCHES}


def sql(condition: Condition) -> ColumnElement[bool]:
    """Return a condition for a session. It is true or false, never NULL, so that it can be negated."""
    match condition:
        case Negation(part):
            return not_(sql(part))
        case Both(parts):
            return and_(*map(sql, parts))
        case Either(parts):
            return or_(*map(sql, parts))
    if condition.member == "labels":
        return _of_label(condition)
    if condition.member in OF_LAUNCHES:
        mine = LAUNCH.c.launch_id == SESSION.c.launch_id
        met = _compared(LAUNCH.c[condition.member], condition)
        return exists(select(literal(1)).select_from(LAUNCH).where(mine, met).correlate(SESSION))
    return _compared(SESSION.c[condition.member], condition)


def _of_label(condition: Comparison) -> ColumnElement[bool]:
    table = SESSION_LABEL.c
    wanted = [table.kind == "label", table.key == condition.key]
    if condition.operator != "set":
        wanted.append(_compared(table.text, condition))
    mine = (table.created_time == SESSION.c.created_time, table.session_id == SESSION.c.session_id)
    return exists(select(literal(1)).select_from(SESSION_LABEL).where(*wanted, *mine).correlate(SESSION))


def _compared(column: ColumnElement[Any], condition: Comparison) -> ColumnElement[bool]:
    kind = MEMBERS[condition.member].kind
    if kind is Kind.TIME:
        number = type_coerce(column, BigInteger) + 0
        if condition.operator == "set":
            return column.is_not(None)
        assert isinstance(condition.value, datetime)
        return and_(column.is_not(None), number.bool_op(condition.operator)(microseconds(condition.value)))
    if kind is Kind.NUMBER:
        return (
            literal(True) if condition.operator == "set" else (column + 0).bool_op(condition.operator)(condition.value)
        )
    text = column.concat("")
    if condition.operator == "set":
        return text != ""
    if condition.operator == "prefix":
        return func.substr(text, 1, len(str(condition.value))) == condition.value
    return text == condition.value
