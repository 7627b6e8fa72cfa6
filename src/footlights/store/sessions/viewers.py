"""Viewers of sessions: one row a grant that was used, with the connections that were made with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select, tuple_, update

from footlights import errors
from footlights.store.bulk import Inserter
from footlights.store.schema import VIEWER, ViewerRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction

MOST_OF_A_SESSION: Final = 1000
"""Then those that left first are forgotten."""
_MOST_CONNECTIONS: Final = 16
"""Of one viewer; the newest are kept, and the others are to be ended."""


def get(tx: Transaction, session_id: str, viewer_id: str) -> ViewerRow | None:
    """Return one of a session's viewers."""
    return tx.one(select(VIEWER).where(VIEWER.c.viewer_id == viewer_id, VIEWER.c.session_id == session_id), ViewerRow)


def page(tx: Transaction, session_id: str, after: tuple[datetime, str] | None, limit: int) -> Readable[ViewerRow]:
    """Return up to ``limit`` of a session's viewers that come after one, given by its time and id: newest first."""
    key = VIEWER.c.connected_time, VIEWER.c.viewer_id
    statement = select(VIEWER).where(VIEWER.c.session_id == session_id)
    statement = statement.order_by(*(column.desc() for column in key)).limit(limit)
    if after is not None:
        statement = statement.where(tuple_(*key) < tuple_(*after, types=[column.type for column in key]))
    return tx.readable(statement, ViewerRow)


def connect(
    tx: Transaction,
    session_id: str,
    viewer_id: str,
    *,
    subject: str,
    connection: str,
    now: datetime,
    most: int = MOST_OF_A_SESSION,
) -> list[str] | None:
    """Note a connection; return those that are not kept for it, and None where the viewer was removed.

    Raises Exhausted where the session has as many viewers as are kept, all of them connected.
    """
    row = get(tx, session_id, viewer_id)
    if row is None:
        _make_room(tx, session_id, most)
        _insert(tx, [ViewerRow(viewer_id, session_id, subject, now, now, [connection])])
        return []
    if row.removed_time is not None:
        return None
    connections = [*(each for each in row.connections if each != connection), connection]
    kept = connections[-_MOST_CONNECTIONS:]
    _change(tx, row, connections=kept, changed_time=now, disconnected_time=None)
    return connections[: -len(kept)]


def disconnect(tx: Transaction, session_id: str, viewer_id: str, gone: Sequence[str], *, now: datetime) -> None:
    """Note that connections have ended."""
    row = get(tx, session_id, viewer_id)
    if row is None or not set(gone) & set(row.connections):
        return
    left = [each for each in row.connections if each not in gone]
    _change(tx, row, connections=left, changed_time=now, disconnected_time=None if left else now)


def remove(tx: Transaction, row: ViewerRow, *, now: datetime) -> ViewerRow:
    """Refuse a viewer's grant from now on; the first time stays."""
    if row.removed_time is not None:
        return row
    _change(tx, row, removed_time=now)
    return row._replace(removed_time=now)


def removed_since(tx: Transaction, since: datetime) -> frozenset[str]:
    """Return which viewers were removed since a moment."""
    return frozenset(tx.execute(select(VIEWER.c.viewer_id).where(VIEWER.c.removed_time >= since)).scalars())


def _make_room(tx: Transaction, session_id: str, most: int) -> None:
    of_session = VIEWER.c.session_id == session_id
    if tx.execute(select(func.count()).select_from(VIEWER).where(of_session)).scalar_one() < most:
        return
    # A removed one stays: its grant must be refused for as long as it would be good.
    oldest = (
        select(VIEWER.c.viewer_id)
        .where(of_session, VIEWER.c.disconnected_time.is_not(None), VIEWER.c.removed_time.is_(None))
        .order_by(VIEWER.c.disconnected_time)
        .limit(1)
    )
    if not tx.changed(delete(VIEWER).where(VIEWER.c.viewer_id.in_(oldest.scalar_subquery()))):
        raise errors.Exhausted(
            f"{most} viewers of this session are connected, as many as one may have: close some.",
            reason=errors.Reason.VIEWER_LIMIT,
            metadata={"kind": "viewers", "of": "session", "limit": str(most)},
        )


def _change(tx: Transaction, row: ViewerRow, **values: object) -> None:
    tx.execute(update(VIEWER).where(VIEWER.c.viewer_id == row.viewer_id).values(**values))


_insert = Inserter(VIEWER)
