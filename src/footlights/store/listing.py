"""Lists of sessions: filtered, in a total order, by offset or by page token."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from footlights import errors
from footlights.store.store import Transaction
from footlights.store.tables import SESSION, Session, microseconds, moment

COUNT_CAP = 10_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions. ``states`` empty: those that have not ended."""

    states: tuple[str, ...] = ()
    username: str = ""
    application: str = ""
    from_time: datetime | None = None
    to_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """``by`` is ``created_time`` or ``username``; ties are broken by creation and id, in the same direction."""

    by: str = "created_time"
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page. ``next_page_token`` is empty on the last one."""

    items: tuple[Session, ...]
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

    Raises:
        errors.InvalidArgument: the page token is not one of ours, or is of another list.
    """
    conditions = _conditions(wanted)
    keys = _keys(order)
    statement = select(SESSION).where(*conditions)
    if page_token:
        after = _open_token(page_token, wanted, order)
        # The values are typed as the columns are: a moment is not stored as the driver would write it.
        place, last = tuple_(*keys), tuple_(*after, types=[key.type for key in keys])
        statement = statement.where(place < last if order.descending else place > last)
    statement = statement.order_by(*(key.desc() if order.descending else key.asc() for key in keys))
    rows = tx.all(statement.limit(limit + 1).offset(offset), Session)
    count, capped = _count(tx, conditions, count_cap)
    more = len(rows) > limit
    items = tuple(rows[:limit])
    return Page(items, count, capped, _token(items[-1], wanted, order) if more else "")


def changed_since(
    tx: Transaction, revision: int, *, username: str = "", application: str = "", limit: int = 500
) -> list[Session]:
    """Return the sessions whose last change came after ``revision``, oldest change first."""
    conditions = _owned(username, application)
    return tx.all(
        select(SESSION).where(SESSION.c.revision > revision, *conditions).order_by(SESSION.c.revision).limit(limit),
        Session,
    )


def living(tx: Transaction, *, username: str = "", application: str = "") -> list[Session]:
    """Return the sessions that have not ended, oldest change first."""
    conditions = _owned(username, application)
    return tx.all(
        select(SESSION).where(SESSION.c.ended_time.is_(None), *conditions).order_by(SESSION.c.revision),
        Session,
    )


def state_counts(tx: Transaction) -> dict[tuple[str, str], int]:
    """Return how many sessions have not ended, by (state, application)."""
    rows = tx.execute(
        select(SESSION.c.state, SESSION.c.application, func.count())
        .where(SESSION.c.ended_time.is_(None))
        .group_by(SESSION.c.state, SESSION.c.application)
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def _owned(username: str, application: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if username:
        conditions.append(SESSION.c.username == username)
    if application:
        conditions.append(SESSION.c.application == application)
    return conditions


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    table = SESSION.c
    conditions = _owned(wanted.username, wanted.application)
    conditions.append(table.state.in_(wanted.states) if wanted.states else table.ended_time.is_(None))
    if wanted.from_time is not None:
        conditions.append(table.created_time >= wanted.from_time)
    if wanted.to_time is not None:
        conditions.append(table.created_time < wanted.to_time)
    return conditions


def _keys(order: Order) -> tuple[Any, ...]:
    table = SESSION.c
    if order.by == "username":
        return table.username, table.created_time, table.session_id
    return table.created_time, table.session_id


def _count(tx: Transaction, conditions: Sequence[ColumnElement[bool]], cap: int) -> tuple[int, bool]:
    """Count up to the cap: an exact count of a long history would cost more than the page."""
    some: Select[Any] = select(SESSION.c.session_id).where(*conditions).limit(cap + 1)
    count = int(tx.execute(select(func.count()).select_from(some.subquery())).scalar_one())
    return min(count, cap), count > cap


def _token(last: Session, wanted: Filter, order: Order) -> str:
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


__all__ = ["COUNT_CAP", "Filter", "Order", "Page", "changed_since", "living", "page", "state_counts"]
