"""Lists of sessions: filtered, in a total order, by offset or from a place on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from footlights.filters import conditions as filters
from footlights.lifecycle import EndReason, SessionState
from footlights.store.schema import LAUNCH, SESSION, SESSION_LABEL, SessionRow, microseconds, moment
from footlights.store.sessions import filtering
from footlights.store.sessions import search as searching

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from footlights.filters import Condition
    from footlights.store.sessions.search import IndexPath
    from footlights.store.unit import Transaction

COUNT_CAP = 10_000
SEARCH_COUNT_CAP = 1000
"""Of lists by label, text or condition, which take more steps a session."""

Place = list[Any]
"""What orders a session in a list, as JSON has it."""

EVERY_STATE = frozenset(state.value for state in SessionState)
_EVERY_END = frozenset({"", *(reason.value for reason in EndReason)})
ENDED = frozenset(state.value for state in SessionState if state.ended)
_SOON = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions. ``states`` empty: those that have not ended, or all with ``ended``.

    ``labels`` are keys and values that a session must have all of. ``search`` is a part of its application, its
    username, the value of one of its labels, or, from six characters on, its id. ``condition`` is what else it must
    fulfil.
    """

    states: tuple[str, ...] = ()
    username: str = ""
    application: str = ""
    from_time: datetime | None = None
    to_time: datetime | None = None
    labels: tuple[tuple[str, str], ...] = ()
    search: str = ""
    ended: bool = False
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """``by`` is a key of ``ORDERS``; ties are broken by the other columns there, in the same direction.

    In the order of their ends, sessions that have not ended come after those that have.
    """

    by: str = "created_time"
    descending: bool = False


ORDERS = {
    "created_time": ("created_time", "session_id"),
    "username": ("username", "created_time", "session_id"),
    "priority": ("priority", "session_id"),
    "ended_time": ("ended_time", "session_id"),
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sessions that follow each other in a list."""

    rows: list[SessionRow]
    more: bool
    """Whether others may follow."""


def place(row: SessionRow, order: Order) -> Place:
    """Return where a session is in a list."""
    values = [getattr(row, name) for name in ORDERS[order.by]]
    return [microseconds(value) if isinstance(value, datetime) else value for value in values]


class Selection:
    """One list in one transaction: found along the same indexes in all its stretches."""

    def __init__(self, tx: Transaction, wanted: Filter, order: Order, *, offset: int = 0) -> None:
        """``offset``: how many sessions to leave out at the beginning."""
        self._tx, self._order, self._offset = tx, order, offset
        narrowed = _narrowed(wanted)
        self._wanted = narrowed or wanted
        self._paths = [] if narrowed is None else _paths(tx, narrowed, order, offset)

    def read(self, limit: int, *, after: Place | None = None) -> Stretch:
        """Return up to ``limit`` sessions that come after a place, or from the offset on."""
        rows: list[SessionRow] = []
        for segment in _segments(self._order):
            if after is not None and self._order.by == "ended_time" and (after[0] is None) != (segment is _LIVING):
                if segment is (_LIVING if self._order.descending else _OVER):
                    continue
                reached = None
            else:
                reached = after
            offset = self._offset if after is None else 0
            read = self._segment(segment, limit - len(rows), offset, reached)
            rows += read.rows
            if read.more:
                return Stretch(rows, more=True)
        return Stretch(rows, more=False)

    def count(self, cap: int = COUNT_CAP) -> tuple[int, bool]:
        """Count up to the cap: an exact count of a long history would cost more than the page."""
        wanted, several = self._wanted, len(self._paths) > 1
        searched = wanted.labels or wanted.search or wanted.condition
        cap = min(cap, SEARCH_COUNT_CAP) if searched else cap
        if not several or not (wanted.labels or wanted.search):
            # Ways that differ in the state alone have no session in common.
            count = 0
            for path in self._paths:
                some = _selected(select(SESSION.c.session_id), wanted, path).limit(cap + 1 - count)
                count += int(self._tx.execute(select(func.count()).select_from(some.subquery())).scalar_one())
                if count > cap:
                    break
            return min(count, cap), count > cap
        met: set[str] = set()
        for path in self._paths:
            met.update(self._tx.execute(_selected(select(SESSION.c.session_id), wanted, path).limit(cap + 1)).scalars())
            if len(met) > cap:
                break
        return min(len(met), cap), len(met) > cap

    def _segment(self, segment: _Segment, limit: int, offset: int, after: Place | None) -> Stretch:
        found: dict[str, SessionRow] = {}
        more = False
        for path in self._paths:
            statement = _statement(self._wanted, self._order, path, segment, after)
            # Each path gives its own first rows, so the first of all of them are the first of the list.
            skip, most = (offset, limit) if len(self._paths) == 1 else (0, offset + limit)
            read = self._tx.readable(statement.limit(most).offset(skip), SessionRow)
            found.update((row.session_id, row) for row in read.rows)
            more |= read.found == most
        listed = list(found.values())
        if len(self._paths) > 1:
            listed.sort(key=lambda row: place(row, self._order), reverse=self._order.descending)
            listed = listed[offset : offset + limit]
        return Stretch(listed, more)


def possible_states(states: Collection[str], condition: Condition | None) -> frozenset[str]:
    """Return which of these states, or of all where there are none, sessions may have that fulfil a condition."""
    asked = frozenset(states) or EVERY_STATE
    if condition is None:
        return asked
    possible = frozenset(state for state in asked if filters.possible(condition, "state", state))
    return possible if filters.possible(condition, "end_reason", "") else possible & ENDED


def living(tx: Transaction, *, username: str = "", application: str = "") -> list[tuple[int, str]]:
    """Return the revisions and the ids of the sessions that have not ended, oldest change first."""
    mine = select(SESSION.c.revision, SESSION.c.session_id).where(*_owned(username, application), filtering.SOMEBODYS)
    # Sorted here: asked for in this order, SQLite goes through all that ever was, by the index on revisions.
    return sorted((row[0], row[1]) for row in tx.execute(mine.where(SESSION.c.ended_time.is_(None))))


def changed(
    tx: Transaction, after: int, limit: int, *, username: str = "", application: str = "", states: Collection[str] = ()
) -> list[SessionRow]:
    """Return sessions whose last change came after a revision, oldest change first; none where none are left."""
    mine = select(SESSION).where(*_owned(username, application, indexed=False), filtering.SOMEBODYS)
    if states:
        mine = mine.where(_unindexed(SESSION.c.state).in_(states))
    while True:
        some = mine.where(SESSION.c.revision > after).order_by(SESSION.c.revision).limit(limit)
        read = tx.readable(some, SessionRow)
        if read.rows or read.found < limit:
            return read.rows
        # None of so many could be decoded.
        after = max(tx.execute(some.with_only_columns(SESSION.c.revision)).scalars())


def state_counts(tx: Transaction) -> dict[tuple[str, str], int]:
    """Return how many sessions have not ended, by (state, application)."""
    # Grouped by expressions: by the columns, SQLite goes through all that ever was, by the index on them.
    state, application = SESSION.c.state.concat(""), SESSION.c.application.concat("")
    rows = tx.execute(
        select(state, application, func.count())
        .where(SESSION.c.ended_time.is_(None), filtering.SOMEBODYS)
        .group_by(state, application)
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def _owned(username: str, application: str, *, indexed: bool = True) -> list[ColumnElement[bool]]:
    wanted = ((SESSION.c.username, username), (SESSION.c.application, application))
    return [(column if indexed else _unindexed(column)) == value for column, value in wanted if value]


class _Segment(NamedTuple):
    """A part of a list in which all are ordered by the same columns."""

    condition: ColumnElement[bool] | None
    columns: tuple[str, ...]


_WHOLE = {by: _Segment(None, columns) for by, columns in ORDERS.items()}
_OVER = _Segment(SESSION.c.ended_time.is_not(None), ORDERS["ended_time"])
_LIVING = _Segment(SESSION.c.ended_time.is_(None), ("session_id",))


def _segments(order: Order) -> tuple[_Segment, ...]:
    if order.by != "ended_time":
        return (_WHOLE[order.by],)
    return (_LIVING, _OVER) if order.descending else (_OVER, _LIVING)


def _narrowed(wanted: Filter) -> Filter | None:
    """Return a filter that says of its own accord what follows from its condition; None where nothing can match."""
    condition = wanted.condition
    if condition is None:
        return wanted
    states = possible_states(wanted.states, condition)
    if not wanted.states and not wanted.ended:
        states -= ENDED
    if not states:
        return None
    if states != EVERY_STATE and (wanted.states or wanted.ended):
        # Not where living sessions are asked for: these have an index of their own.
        wanted = replace(wanted, states=tuple(sorted(states)))
    labels = set(wanted.labels)
    for each in filters.required(condition):
        if each.operator == "=" and each.member == "labels":
            labels.add((str(each.key), str(each.value)))
        elif each.operator == "=" and each.member == "username" and not wanted.username:
            wanted = replace(wanted, username=str(each.value))
        elif each.operator == "=" and each.member == "application" and not wanted.application:
            wanted = replace(wanted, application=str(each.value))
        elif each.member == "created_time" and isinstance(each.value, datetime):
            wanted = _between(wanted, each)
    return replace(wanted, labels=tuple(sorted(labels)))


def _between(wanted: Filter, each: filters.Comparison) -> Filter:
    time = each.value
    assert isinstance(time, datetime)
    if each.operator in ("=", ">", ">="):
        wanted = replace(wanted, from_time=max(wanted.from_time or time, time))
    if each.operator in ("=", "<", "<="):
        wanted = replace(wanted, to_time=min(wanted.to_time or time + _SOON, time + _SOON))
    return wanted


def _probes(condition: Condition, order: Order) -> Iterator[Select[tuple[str]]]:
    """Return statements for the ids of sessions of which all that match are some, each by an index of its own."""
    ended: list[ColumnElement[bool]] = []
    for each in filters.required(condition):
        if each.member in filtering.OF_LAUNCHES and each.operator == "=":
            yield select(LAUNCH.c.session_id).where(LAUNCH.c[each.member] == each.value)
        elif each.member == "session_id" and each.operator == "=":
            yield select(SESSION.c.session_id).where(SESSION.c.session_id == each.value)
        elif each.member == "ended_time" and isinstance(each.value, datetime):
            ended.append(SESSION.c.ended_time.bool_op(each.operator)(each.value))
    if ended and order.by != "ended_time":
        yield select(SESSION.c.session_id).where(SESSION.c.ended_time.is_not(None), *ended)


def _paths(tx: Transaction, wanted: Filter, order: Order, offset: int) -> list[IndexPath]:
    """Return the paths along which all that is wanted is found, each in the order of an index."""
    # Each of several paths would have to give all rows before the offset: far out, one is taken alone.
    beside = order.by == "created_time" and offset <= searching.FEW
    living = not wanted.states and not wanted.ended
    named: set[str] | None = None
    for probe in () if wanted.condition is None or living else _probes(wanted.condition, order):
        ids = searching.few(tx, probe)
        if ids is not None:
            named = ids if named is None else named & ids
    paths = searching.index_paths(tx, wanted.labels, wanted.search, living=living, by_creation=beside, named=named)
    state = SESSION.c.state
    if living:
        return [replace(path, conditions=(*path.conditions, SESSION.c.ended_time.is_(None))) for path in paths]
    if not wanted.states or set(wanted.states) >= EVERY_STATE:
        return paths
    if len(paths) != 1 or paths[0].by_label:
        return [replace(path, conditions=(*path.conditions, state.in_(wanted.states))) for path in paths]
    [path] = paths
    alone = beside or (order.by == "created_time" and len(wanted.states) == 1)
    unindexed = replace(path, conditions=(*path.conditions, _unindexed(state).in_(wanted.states)))
    if path.named:
        return [unindexed]
    if (by_reason := _by_reason(tx, wanted, beside=beside)) is not None:
        both = path if set(wanted.states) == ENDED else unindexed
        return [replace(both, conditions=(*both.conditions, *each), by_reason=True) for each in by_reason]
    if not alone and not _rare(tx, wanted.states):
        # An index on the state would leave most of the table to be sorted: the list's own order is met as fast.
        return [unindexed]
    return [replace(path, conditions=(*path.conditions, state == each)) for each in wanted.states]


def _by_reason(tx: Transaction, wanted: Filter, *, beside: bool) -> list[tuple[ColumnElement[bool], ...]] | None:
    """Return a condition for each end reason that may match, where it is better to go by these than by the states."""
    if wanted.condition is None or not set(wanted.states) <= ENDED:
        return None
    reasons = [each for each in sorted(_EVERY_END - {""}) if filters.possible(wanted.condition, "end_reason", each)]
    if len(reasons) == len(_EVERY_END) - 1:
        return None
    over, column = SESSION.c.ended_time.is_not(None), SESSION.c.end_reason
    if beside:
        return [(over, column == each) for each in reasons]
    some = select(SESSION.c.session_id).where(over, column.in_(reasons))
    return None if searching.few(tx, some) is None else [(over, column.in_(reasons))]


def _unindexed(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return a column's value in a form that no index holds."""
    return column.concat("")


def _rare(tx: Transaction, states: Sequence[str]) -> bool:
    return searching.few(tx, select(SESSION.c.session_id).where(SESSION.c.state.in_(states))) is not None


def _statement(wanted: Filter, order: Order, path: IndexPath, segment: _Segment, after: Place | None) -> Select[Any]:
    statement, keys = _selected(select(SESSION), wanted, path), _keys(segment, path)
    if segment.condition is not None:
        statement = statement.where(segment.condition, *_ended_bounds(wanted, segment))
    if after is not None:
        # The values are typed as the columns are: a moment is not stored as the driver would write it.
        values = [
            moment(value) if name.endswith("_time") else value
            for name, value in zip(segment.columns, after[-len(segment.columns) :], strict=True)
        ]
        here, last = tuple_(*keys), tuple_(*values, types=[key.type for key in keys])
        statement = statement.where(here < last if order.descending else here > last)
    return statement.order_by(*(key.desc() if order.descending else key.asc() for key in keys))


def _ended_bounds(wanted: Filter, segment: _Segment) -> Iterator[ColumnElement[bool]]:
    """Return what bounds a list in the order of ends, for the index that it is read from."""
    if segment is _OVER and wanted.condition is not None:
        for each in filters.required(wanted.condition):
            if each.member == "ended_time" and isinstance(each.value, datetime):
                yield SESSION.c.ended_time.bool_op(each.operator)(each.value)


def _selected(statement: Select[Any], wanted: Filter, path: IndexPath) -> Select[Any]:
    conditions = [filtering.SOMEBODYS, *_owned(wanted.username, "", indexed=not path.named)]
    # Those that live are few, and have an index of their own: by its application's, all that ever was is gone through.
    ended = bool(wanted.states) or wanted.ended
    conditions += _owned("", wanted.application, indexed=not path.named and ended)
    time = SESSION_LABEL.c.created_time if path.by_label else SESSION.c.created_time
    if wanted.from_time is not None:
        conditions.append(time >= wanted.from_time)
    if wanted.to_time is not None:
        conditions.append(time < wanted.to_time)
    if path.by_label:
        statement = statement.join_from(SESSION_LABEL, SESSION, SESSION.c.session_id == SESSION_LABEL.c.session_id)
    if wanted.condition is not None:
        conditions += [
            filtering.sql(part) for part in filters.conjuncts(wanted.condition) if not _is_said(part, wanted, path)
        ]
    return statement.where(*path.conditions, *conditions)


def _is_said(part: Condition, wanted: Filter, path: IndexPath) -> bool:
    """Return whether a part of the condition follows from the rest: said twice, Postgres would expect far fewer."""
    members = {each.member for each in filters.comparisons(part)}
    if members == {"state"}:
        return bool(wanted.states) or wanted.ended
    if members == {"end_reason"}:
        return path.by_reason
    if not isinstance(part, filters.Comparison) or part.operator != "=":
        return False
    if part.member == "labels":
        return (part.key, part.value) in wanted.labels
    # An empty name in what is wanted is none: a comparison with it stays to be asked.
    said = {"username": wanted.username or None, "application": wanted.application or None}
    return part.member in said and said[part.member] == part.value


def _keys(segment: _Segment, path: IndexPath) -> tuple[Any, ...]:
    table = SESSION_LABEL.c if path.by_label and segment.columns == ORDERS["created_time"] else SESSION.c
    return tuple(table[name] for name in segment.columns)
