"""The request ids of creations: which session each created, for at least 24 hours, until ``forget_old`` removes them.

Other writes are remembered with their answers, in ``remembered_calls``; a creation answers with the session as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete, select, tuple_, update

from footlights.store.bulk import Inserter
from footlights.store.remembered_calls import TTL, reused
from footlights.store.schema import REQUEST_KEY, SESSION, RequestKeyRow, SessionRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights import errors
    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class Request:
    """Whose request, under which key, and a digest of what it asks for."""

    subject: str
    request_id: str
    body_digest: bytes

    @property
    def key(self) -> tuple[str, str]:
        """What is kept once."""
        return self.subject, self.request_id


def claim(
    tx: Transaction, wanted: Sequence[tuple[Request, str]], *, now: datetime
) -> dict[tuple[str, str], SessionRow | errors.Error]:
    """Record which session each request is to create, and return by key what is known of those that came before.

    That is the session that the request created, or ``errors.AlreadyExists`` where another request used the key. A key
    whose session is gone, or that ``forget_old`` removed, is new.
    """
    # In one order everywhere, so that two replicas never deadlock.
    rows = sorted((*request.key, request.body_digest, session_id, now) for request, session_id in wanted)
    if _insert(tx, rows) == len(rows):
        return {}
    ours = {session_id for _, session_id in wanted}
    there = {
        (key.subject, key.request_id): key
        for key in tx.all(select(REQUEST_KEY).where(_keys([request.key for request, _ in wanted])), RequestKeyRow)
        if key.session_id not in ours
    }
    made = {
        row.session_id: row
        for row in tx.all(
            select(SESSION).where(SESSION.c.session_id.in_([key.session_id for key in there.values()])), SessionRow
        )
    }
    known: dict[tuple[str, str], SessionRow | errors.Error] = {}
    void = []
    for request, _ in wanted:
        key = there.get(request.key)
        if key is None:
            continue
        if key.session_id not in made:
            void.append(request.key)
        elif key.body_digest != request.body_digest:
            known[request.key] = reused(request.request_id)
        else:
            known[request.key] = made[key.session_id]
    if void:
        drop(tx, void)
        _replace(tx, [row for row in rows if (row[0], row[1]) in set(void)])
    return known


def find(tx: Transaction, request: Request) -> SessionRow | errors.Error | None:
    """Return what ``claim`` would say of one request, and record nothing; None where it is new."""
    made = select(SESSION).where(
        SESSION.c.session_id == select(REQUEST_KEY.c.session_id).where(_keys([request.key])).scalar_subquery()
    )
    same = select(REQUEST_KEY.c.body_digest).where(_keys([request.key]))
    for row in tx.all(made, SessionRow):
        return row if tx.execute(same).scalar() == request.body_digest else reused(request.request_id)
    return None


def point(tx: Transaction, request: Request, session_id: str) -> None:
    """Record that a request that was claimed has created another session than it was to."""
    tx.execute(update(REQUEST_KEY).where(_keys([request.key])).values(session_id=session_id))


def drop(tx: Transaction, keys: Sequence[tuple[str, str]]) -> None:
    """Forget keys, given as (subject, request id)."""
    if keys:
        tx.execute(delete(REQUEST_KEY).where(_keys(keys)))


def forget_old(tx: Transaction, *, now: datetime) -> int:
    """Remove the keys that are out of date."""
    return tx.changed(delete(REQUEST_KEY).where(REQUEST_KEY.c.created_time < now - TTL))


def _keys(keys: Sequence[tuple[str, str]]) -> ColumnElement[bool]:
    return tuple_(REQUEST_KEY.c.subject, REQUEST_KEY.c.request_id).in_(keys)


_insert = Inserter(REQUEST_KEY, skip_conflicts=True)
_replace = Inserter(REQUEST_KEY)
