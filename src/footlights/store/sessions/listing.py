"""Lists of sessions: filtered, in a total order, by offset or by page token."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from footlights import errors
from footlights.lifecycle import SessionState
from footlights.store.schema import SESSION, SESSION_LABEL, SessionRow, microseconds, moment
from footlights.store.sessions import search as searching

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.sessions.search import IndexPath
    from footlights.store.unit import Readable, Transaction

COUNT_CAP = 10_000
SEARCH_COUNT_CAP = 1000
"""Of lists by label or text, which take more steps a session."""

_EVERY_STATE = frozenset(state.value for state in SessionState)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions. ``states`` empty: those that have not ended.

    ``labels`` are keys and values that a session must have all of. ``search`` is a part of its application, its
    username, the value of one of its labels, or, from six characters on, its id.
    """

    states: tuple[str, ...] = ()
    username: str = ""
    application: str = ""
    from_time: datetime | None = None
    to_time: datetime | None = None
    labels: tuple[tuple[str, str], ...] = ()
    search: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """``by`` is ``created_time`` or ``username``; ties are broken by creation and id, in the same direction."""

    by: str = "created_time"
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page. ``next_page_token`` is empty on the last one."""

    items: tuple[SessionRow, ...]
    count: int
    count_is_capped: bool
    next_page_token: str


def page(
    tx: Transaction,
    wanted: Filter,
    order: Order,
    *,
    limit: int,
    offset: int = 0,
    page_token: str = "",
    count_cap: int = COUNT_CAP,
) -> Page:
    """Return one page of the sessions that match, and how many match in all, up to ``count_cap``.

    Raises InvalidArgument where the page token is not one of ours, or is of another list.
    """
    after = _open_token(page_token, wanted, order) if page_token else None
    paths = _paths(tx, wanted, order, offset)
    found: dict[str, SessionRow] = {}
    skipped = False
    for path in paths:
        statement = _statement(wanted, order, path, after)
        # Each path gives its own first rows, so the first of all of them are the first of the list.
        skip, most = (offset, limit + 1) if len(paths) == 1 else (0, offset + limit + 1)
        read = tx.readable(statement.limit(most).offset(skip), SessionRow)
        found.update((row.session_id, row) for row in read.rows)
        skipped |= read.found == most and read.skipped > 0
    listed = list(found.values())
    if len(paths) > 1:
        listed.sort(key=lambda row: _place(row, order), reverse=order.descending)
        listed = listed[offset:]
    cap = min(count_cap, SEARCH_COUNT_CAP) if wanted.labels or wanted.search else count_cap
    count, capped = _count(tx, wanted, paths, cap)
    items = tuple(listed[:limit])
    return Page(
        items, count, capped, _token(items[-1], wanted, order) if items and (skipped or len(listed) > limit) else ""
    )


def changes_since(
    tx: Transaction, revision: int, *, username: str = "", application: str = "", limit: int = 500
) -> Readable[SessionRow]:
    """Return the sessions whose last change came after ``revision``, oldest change first."""
    conditions = _owned(username, application)
    return tx.readable(
        select(SESSION).where(SESSION.c.revision > revision, *conditions).order_by(SESSION.c.revision).limit(limit),
        SessionRow,
    )


class SessionEnd(NamedTuple):
    """The end of a session."""

    session_id: str
    revision: int
    end_reason: str


def ended_since(tx: Transaction, revision: int, *, limit: int = 500) -> Readable[SessionEnd]:
    """Return the ends of sessions that were written after ``revision``, oldest first."""
    ends = select(SESSION.c.session_id, SESSION.c.revision, SESSION.c.end_reason).where(
        SESSION.c.revision > revision, SESSION.c.ended_time.is_not(None)
    )
    return tx.readable(ends.order_by(SESSION.c.revision).limit(limit), SessionEnd)


def living(tx: Transaction, *, username: str = "", application: str = "") -> list[SessionRow]:
    """Return the sessions that have not ended, oldest change first."""
    conditions = _owned(username, application)
    # Sorted here: asked for in this order, SQLite goes through all that ever was, by the index on revisions.
    found = tx.all(select(SESSION).where(SESSION.c.ended_time.is_(None), *conditions), SessionRow)
    return sorted(found, key=lambda row: row.revision)


def state_counts(tx: Transaction) -> dict[tuple[str, str], int]:
    """Return how many sessions have not ended, by (state, application)."""
    # Grouped by expressions: by the columns, SQLite goes through all that ever was, by the index on them.
    state, application = SESSION.c.state.concat(""), SESSION.c.application.concat("")
    rows = tx.execute(
        select(state, application, func.count()).where(SESSION.c.ended_time.is_(None)).group_by(state, application)
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def _owned(username: str, application: str, *, indexed: bool = True) -> list[ColumnElement[bool]]:
    wanted = ((SESSION.c.username, username), (SESSION.c.application, application))
    return [(column if indexed else _unindexed(column)) == value for column, value in wanted if value]


def _paths(tx: Transaction, wanted: Filter, order: Order, offset: int) -> list[IndexPath]:
    """Return the paths along which all that is wanted is found, each in the order of an index."""
    # Each of several paths would have to give all rows before the offset: far out, one is taken alone.
    beside = order.by == "created_time" and offset <= searching.FEW
    paths = searching.index_paths(tx, wanted.labels, wanted.search, living=not wanted.states, by_creation=beside)
    state = SESSION.c.state
    if not wanted.states:
        return [replace(path, conditions=(*path.conditions, SESSION.c.ended_time.is_(None))) for path in paths]
    if set(wanted.states) >= _EVERY_STATE:
        return paths
    if len(paths) != 1 or paths[0].by_label:
        return [replace(path, conditions=(*path.conditions, state.in_(wanted.states))) for path in paths]
    [path] = paths
    alone = beside or (order.by == "created_time" and len(wanted.states) == 1)
    if path.named or (not alone and not _rare(tx, wanted.states)):
        # An index on the state would leave most of the table to be sorted: the list's own order is met as fast.
        return [replace(path, conditions=(*path.conditions, _unindexed(state).in_(wanted.states)))]
    return [replace(path, conditions=(*path.conditions, state == each)) for each in wanted.states]


def _unindexed(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return a column's value in a form that no index holds."""
    return column.concat("")


def _rare(tx: Transaction, states: Sequence[str]) -> bool:
    some = select(SESSION.c.session_id).where(SESSION.c.state.in_(states)).limit(searching.FEW + 1)
    return len(tx.execute(some).all()) <= searching.FEW


def _statement(wanted: Filter, order: Order, path: IndexPath, after: Sequence[Any] | None) -> Select[Any]:
    statement, keys = _selected(select(SESSION), wanted, path), _keys(order, path)
    if after is not None:
        # The values are typed as the columns are: a moment is not stored as the driver would write it.
        place, last = tuple_(*keys), tuple_(*after, types=[key.type for key in keys])
        statement = statement.where(place < last if order.descending else place > last)
    return statement.order_by(*(key.desc() if order.descending else key.asc() for key in keys))


def _selected(statement: Select[Any], wanted: Filter, path: IndexPath) -> Select[Any]:
    conditions = _owned(wanted.username, "", indexed=not path.named)
    # Those that live are few, and have an index of their own: by its application's, all that ever was is gone through.
    conditions += _owned("", wanted.application, indexed=not path.named and bool(wanted.states))
    time = SESSION_LABEL.c.created_time if path.by_label else SESSION.c.created_time
    if wanted.from_time is not None:
        conditions.append(time >= wanted.from_time)
    if wanted.to_time is not None:
        conditions.append(time < wanted.to_time)
    if path.by_label:
        statement = statement.join_from(SESSION_LABEL, SESSION, SESSION.c.session_id == SESSION_LABEL.c.session_id)
    return statement.where(*path.conditions, *conditions)


def _keys(order: Order, path: IndexPath) -> tuple[Any, ...]:
    table = SESSION.c
    if order.by == "username":
        return table.username, table.created_time, table.session_id
    if path.by_label:
        return SESSION_LABEL.c.created_time, SESSION_LABEL.c.session_id
    return table.created_time, table.session_id


def _place(row: SessionRow, order: Order) -> tuple[Any, ...]:
    place = (row.created_time, row.session_id)
    return (row.username, *place) if order.by == "username" else place


def _count(tx: Transaction, wanted: Filter, paths: Sequence[IndexPath], cap: int) -> tuple[int, bool]:
    """Count up to the cap: an exact count of a long history would cost more than the page."""
    if len(paths) == 1 or not (wanted.labels or wanted.search):
        # Ways that differ in the state alone have no session in common.
        count = 0
        for path in paths:
            some = _selected(select(SESSION.c.session_id), wanted, path).limit(cap + 1 - count)
            count += int(tx.execute(select(func.count()).select_from(some.subquery())).scalar_one())
            if count > cap:
                break
        return min(count, cap), count > cap
    met: set[str] = set()
    for path in paths:
        met.update(tx.execute(_selected(select(SESSION.c.session_id), wanted, path).limit(cap + 1)).scalars())
        if len(met) > cap:
            break
    return min(len(met), cap), len(met) > cap


def _token(last: SessionRow, wanted: Filter, order: Order) -> str:
    place: list[Any] = [microseconds(last.created_time), last.session_id]
    if order.by == "username":
        place.insert(0, last.username)
    text = json.dumps([_checksum(wanted, order), *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _open_token(token: str, wanted: Filter, order: Order) -> list[Any]:
    """Return the place that a token names. A client can write tokens as it likes, so nothing in one is believed."""
    ours = _checksum(wanted, order)
    try:
        checksum, *place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if isinstance(checksum, str) and len(checksum) == len(ours) and checksum != ours:
            raise errors.InvalidArgument(
                "page_token", "belongs to a list with other filters or another order. Start again without it."
            )
        *name, created, session_id = place
        texts = [*name, session_id]
        if (
            checksum == ours
            and type(created) is int
            and len(name) == (order.by == "username")
            and all(isinstance(text, str) and "\0" not in text for text in texts)
        ):
            return [*name, moment(created), session_id]
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise errors.InvalidArgument("page_token", "is not a page token of this list. Start again without it.")


def _checksum(wanted: Filter, order: Order) -> str:
    return hashlib.sha256(repr((wanted, order)).encode()).hexdigest()[:12]


__all__ = ["COUNT_CAP", "Filter", "Order", "Page", "changes_since", "living", "page", "state_counts"]
