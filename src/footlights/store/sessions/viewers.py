"""Viewers of sessions: one row a grant that was used, with the connections that were made with it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, or_, select, tuple_, update

from footlights import errors
from footlights.store.bulk import Inserter
from footlights.store.schema import VIEWER, ViewerRow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction

MOST_OF_A_SESSION: Final = 1000
"""Then those that left first are forgotten, and after them those that were seen last."""
_UNSEEN: Final = timedelta(minutes=1)
"""After so long without a change a viewer that never said goodbye may be gone."""
_REFUSED_FOR: Final = timedelta(days=2)
"""A grant that was removed is no good after that: grants last a day."""
SOCKET: Final = "websocket:"
"""How the names of connections begin that are WebSockets; the others are paths of the application."""
_MOST_RESOURCES: Final = 4
_MOST_SOCKETS: Final = 16
"""Connections of one viewer: the newest are kept, and the others are to be ended. An application has places for more
viewers than that, so that who has one grant takes no other's."""


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

    Raises Exhausted where the session has as many viewers as are kept, and all of them came lately.
    """
    row = get(tx, session_id, viewer_id)
    if row is None:
        _make_room(tx, session_id, most, now)
        _insert(tx, [ViewerRow(viewer_id, session_id, subject, now, now, [connection])])
        return []
    if row.removed_time is not None:
        return None
    connections = [*(each for each in row.connections if each != connection), connection]
    sockets = [each for each in connections if each.startswith(SOCKET)]
    resources = [each for each in connections if not each.startswith(SOCKET)]
    gone = {*resources[:-_MOST_RESOURCES], *sockets[:-_MOST_SOCKETS]}
    kept = [each for each in connections if each not in gone]
    _change(tx, row, connections=kept, changed_time=now, disconnected_time=None)
    return [each for each in connections if each in gone]


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


def removed(tx: Transaction, viewer_ids: Collection[str]) -> frozenset[str]:
    """Return which of these viewers were removed, whenever that was."""
    of_these = VIEWER.c.viewer_id.in_(viewer_ids), VIEWER.c.removed_time.is_not(None)
    return frozenset(tx.execute(select(VIEWER.c.viewer_id).where(*of_these)).scalars())


def _make_room(tx: Transaction, session_id: str, most: int, now: datetime) -> None:
    """Forget who has left, or else who was seen last: a tab that crashed and a player that was killed say no goodbye.

    A removed one does not count, and stays: its grant must be refused for as long as it would be good.
    """
    tx.execute(delete(VIEWER).where(VIEWER.c.session_id == session_id, VIEWER.c.removed_time < now - _REFUSED_FOR))
    in_count = VIEWER.c.session_id == session_id, VIEWER.c.removed_time.is_(None)
    if tx.execute(select(func.count()).select_from(VIEWER).where(*in_count)).scalar_one() < most:
        return
    left = VIEWER.c.disconnected_time.is_not(None)
    oldest = (
        select(VIEWER.c.viewer_id)
        .where(*in_count, or_(left, VIEWER.c.changed_time < now - _UNSEEN))
        .order_by(left.desc(), VIEWER.c.changed_time)
        .limit(1)
    )
    if not tx.changed(delete(VIEWER).where(VIEWER.c.viewer_id.in_(oldest.scalar_subquery()))):
        raise errors.Exhausted(
            f"{most} viewers of this session have come within a minute, as many as one may have: close some, or wait.",
            reason=errors.Reason.VIEWER_LIMIT,
            metadata={"kind": "viewers", "of": "session", "limit": str(most)},
            retry_after_s=_UNSEEN.total_seconds(),
        )


def _change(tx: Transaction, row: ViewerRow, **values: object) -> None:
    tx.execute(update(VIEWER).where(VIEWER.c.viewer_id == row.viewer_id).values(**values))


_insert = Inserter(VIEWER)
