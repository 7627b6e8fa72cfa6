"""Sessions: read, ended, derived again, and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from sqlalchemy import bindparam, delete, func, or_, select, tuple_, update

from footlights import errors
from footlights.lifecycle import EndReason, SessionState
from footlights.store.cluster.revisions import allocate, next_revision
from footlights.store.schema import LAUNCH, LEASE, SESSION, SessionRow
from footlights.store.sessions.derivation import SessionStates
from footlights.store.unit import UNREADABLE, Changed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction

log = structlog.get_logger(__name__)


def get(tx: Transaction, session_id: str) -> SessionRow | None:
    """Return one session."""
    return tx.one(_BY_ID, SessionRow, {"session_id": session_id})


def some(tx: Transaction, session_ids: Sequence[str]) -> list[SessionRow]:
    """Return the sessions with these ids, in no particular order."""
    return tx.all(select(SESSION).where(SESSION.c.session_id.in_(session_ids)), SessionRow) if session_ids else []


def end(tx: Transaction, session: SessionRow, reason: EndReason, message: str, *, now: datetime) -> SessionRow:
    """Ask for a session's end, in whatever state it is. The first reason stays; asking again changes nothing."""
    states = SessionStates.of_sessions(tx, [session.session_id])
    known = states.session(session.session_id)
    assert known is not None
    states.end(known, reason, message, now=now)
    states.write()
    ended = states.session(session.session_id)
    assert ended is not None
    return ended


def derive(tx: Transaction, session_ids: Sequence[str], *, now: datetime) -> None:
    """Derive and write the states of sessions, after their intents or launches, or a node, were changed.

    A session whose state cannot be derived, such as one with an unknown launch state, is logged and stays as it is.
    """
    if not session_ids:
        return
    states = SessionStates.of_sessions(tx, session_ids)
    for session_id in session_ids:
        if states.session(session_id) is None:
            continue
        try:
            states.derive(session_id, now=now)
        except (*UNREADABLE, errors.Internal):
            log.exception("session_not_derived", session_id=session_id)
    states.write()


def update_session(tx: Transaction, session: SessionRow, **changes: Any) -> SessionRow:
    """Change a session that has not been changed since it was read, and give it a new revision.

    Raises:
        Changed: another writer was faster.
    """
    revision = next_revision(tx)
    met = tx.changed(
        update(SESSION)
        .where(SESSION.c.session_id == session.session_id, SESSION.c.revision == session.revision)
        .values(**changes, revision=revision)
    )
    if not met:
        raise Changed(
            f"Session {session.session_id} was changed at the same time. Read it again and retry.",
            metadata={"session_id": session.session_id},
        )
    # It has not been changed since it was read, so what it is now need not be read.
    return session._replace(**changes, revision=revision)


class QueuePlace(NamedTuple):
    """Where a waiting session is in the order of placing: higher priorities first, then older sessions."""

    priority: int
    created_time: datetime
    session_id: str


@dataclass(frozen=True, slots=True)
class PendingPage:
    """Some of the sessions that wait, in the order of placing."""

    sessions: list[SessionRow]
    following: QueuePlace | None
    """Where the next page begins; None where this is the last."""


def pending(tx: Transaction, limit: int) -> list[SessionRow]:
    """Return the sessions that wait for a device, in the order of placing."""
    return pending_page(tx, limit).sessions


def pending_page(tx: Transaction, limit: int, *, after: QueuePlace | None = None) -> PendingPage:
    """Return up to ``limit`` sessions that wait for a device and come after a place, in the order of placing."""
    table = SESSION.c
    waiting = select(SESSION).where(table.state == SessionState.PENDING.value)
    if after is not None:
        later = tuple_(table.created_time, table.session_id) > tuple_(
            after.created_time, after.session_id, types=[table.created_time.type, table.session_id.type]
        )
        # The first condition is what an index is entered by.
        waiting = waiting.where(table.priority <= after.priority, or_(table.priority < after.priority, later))
    read = tx.readable(
        waiting.order_by(table.priority.desc(), table.created_time, table.session_id).limit(limit), SessionRow
    )
    if read.found < limit or not read.rows:
        return PendingPage(read.rows, None)
    last = read.rows[-1]
    return PendingPage(read.rows, QueuePlace(last.priority, last.created_time, last.session_id))


def pending_count(tx: Transaction) -> int:
    """Return how many sessions wait for a device."""
    waiting = select(func.count()).select_from(SESSION).where(SESSION.c.state == SessionState.PENDING.value)
    return int(tx.execute(waiting).scalar_one())


def set_queue(tx: Transaction, places: Sequence[tuple[SessionRow, Mapping[str, Any]]]) -> None:
    """Write the queue positions of sessions that wait and have not changed since they were read."""
    revisions = allocate(tx, len(places))
    tx.execute(
        _SET_QUEUE,
        [
            {"of_session": row.session_id, "seen": row.revision, "place": dict(place), "fresh": revision}
            for (row, place), revision in zip(places, revisions, strict=True)
        ],
    )


_SET_QUEUE = (
    update(SESSION)
    .where(
        SESSION.c.session_id == bindparam("of_session"),
        SESSION.c.revision == bindparam("seen"),
        SESSION.c.state == SessionState.PENDING.value,
    )
    .values(queue=bindparam("place"), revision=bindparam("fresh"))
)


def holding(tx: Transaction) -> list[tuple[bytes, datetime | None]]:
    """Return the limits of every session that holds slots, and when it became ready."""
    # By the launches, of which few live: those that have ended are not looked at, however many there are.
    launched = select(SESSION.c.limits, SESSION.c.ready_time).join(LAUNCH, LAUNCH.c.session_id == SESSION.c.session_id)
    return [(row[0], row[1]) for row in tx.execute(launched.where(LAUNCH.c.ended_time.is_(None)))]


def live_on(tx: Transaction, node: str) -> list[str]:
    """Return the ids of the sessions that hold slots on a node."""
    living = select(LAUNCH.c.session_id).where(LAUNCH.c.node == node, LAUNCH.c.ended_time.is_(None))
    return list(tx.execute(living.order_by(LAUNCH.c.session_id)).scalars())


PRUNED_AT_ONCE = 500


def prune(tx: Transaction, *, before: datetime, limit: int = PRUNED_AT_ONCE) -> int:
    """Remove sessions that ended before a moment, with their launches and leases; return how many."""
    old = list(
        tx.execute(
            select(SESSION.c.session_id)
            .where(SESSION.c.ended_time < before)
            .order_by(SESSION.c.ended_time)
            .limit(limit)
        ).scalars()
    )
    if old:
        launches = select(LAUNCH.c.launch_id).where(LAUNCH.c.session_id.in_(old))
        tx.execute(delete(LEASE).where(LEASE.c.launch_id.in_(launches)))
        tx.execute(delete(LAUNCH).where(LAUNCH.c.session_id.in_(old)))
        tx.execute(delete(SESSION).where(SESSION.c.session_id.in_(old)))
    return len(old)


_BY_ID = select(SESSION).where(SESSION.c.session_id == bindparam("session_id"))
