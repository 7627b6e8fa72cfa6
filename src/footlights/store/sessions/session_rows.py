"""Sessions: read, derived again, told their place in the queue, and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from sqlalchemy import Select, bindparam, delete, select, tuple_, update

from footlights import errors
from footlights.lifecycle import Condition, EndReason, Intent, SessionState
from footlights.store.cluster.revisions import allocate
from footlights.store.schema import LAUNCH, LEASE, SESSION, VIEWER, SessionRow
from footlights.store.sessions import removals, unknown_values
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


def update_session(tx: Transaction, session: SessionRow, *, now: datetime, **changes: Any) -> SessionRow:
    """Change a session that has not been changed since it was read, and give it a new revision.

    Raises Changed where another writer was faster, FailedPrecondition where a replica of a later release has it.
    """
    if session.ended_time is None and (found := unknown_values.of_session(session)):
        raise unknown_values.refusal(session, found)
    [revision] = allocate(tx, 1)
    met = tx.changed(
        update(SESSION)
        .where(SESSION.c.session_id == session.session_id, SESSION.c.revision == session.revision)
        .values(**changes, updated_time=now, revision=revision)
    )
    if not met:
        raise Changed(
            f"Session {session.session_id} was changed at the same time. Read it again and retry.",
            metadata={"session_id": session.session_id},
        )
    # It has not been changed since it was read, so what it is now need not be read.
    return session._replace(**changes, updated_time=now, revision=revision)


class PendingSession(NamedTuple):
    """What is read of a session that waits for a device."""

    session_id: str
    revision: int
    priority: int
    created_time: datetime
    application: str
    application_version: str
    launcher: str
    needs: bytes
    """The serialized ``footlights.v1.Needs``."""
    limits: bytes
    """The serialized ``footlights.v1.Limits``."""
    queue: Mapping[str, Any]
    username: str
    given: str | None
    launch_count: int


class QueuePlace(NamedTuple):
    """Where a waiting session is in the order of placement: higher priorities first, then older sessions."""

    priority: int
    created_time: datetime
    session_id: str


@dataclass(frozen=True, slots=True)
class PendingPage:
    """Some of the sessions that wait, in the order of placement."""

    sessions: list[PendingSession]
    following: QueuePlace | None
    """Where the next page begins; None where this is the last."""


def pending_page(tx: Transaction, limit: int, *, after: QueuePlace | None = None) -> PendingPage:
    """Return up to ``limit`` sessions that wait for a device and come after a place, in the order of placement.

    One with an intent or a condition of a later release is left to its replica.
    """
    if after is None:
        found, rows = _read_pending(tx, _PENDING.limit(limit))
    else:
        # Two exact ranges of the index: one condition over a descending and two ascending columns would be a scan.
        found, rows = _read_pending(tx, _PENDING_AFTER.limit(limit), after._asdict())
        if found < limit:
            below, more = _read_pending(tx, _PENDING_BELOW.limit(limit - found), {"priority": after.priority})
            found, rows = found + below, rows + more
    if found < limit or not rows:
        return PendingPage(rows, None)
    last = rows[-1]
    return PendingPage(rows, QueuePlace(last.priority, last.created_time, last.session_id))


def _read_pending(
    tx: Transaction, statement: Select[Any], parameters: Mapping[str, Any] | None = None
) -> tuple[int, list[PendingSession]]:
    """Return how many rows there are, and those that can be decoded."""
    try:
        rows = [PendingSession(*row) for row in tx.execute(statement, parameters)]
    except UNREADABLE:
        read = tx.readable(statement.with_only_columns(*SESSION.c), SessionRow, parameters)
        return read.found, [
            PendingSession(*(getattr(row, name) for name in PendingSession._fields)) for row in read.rows
        ]
    return len(rows), rows


def set_queue(tx: Transaction, places: Sequence[tuple[PendingSession, Mapping[str, Any]]], *, now: datetime) -> None:
    """Write what is known of the place of sessions that wait, and have not changed since they were read."""
    revisions = allocate(tx, len(places))
    tx.execute(
        _SET_QUEUE,
        [
            {"of_session": row.session_id, "seen": row.revision, "place": dict(place), "fresh": revision, "now": now}
            for (row, place), revision in zip(places, revisions, strict=True)
        ],
    )


def end_waiting(
    tx: Transaction, ends: Sequence[tuple[PendingSession, EndReason, str]], *, now: datetime
) -> frozenset[str]:
    """End sessions that wait, and have not changed since they were read, each for a reason; return which."""
    states = SessionStates.of_sessions(tx, [row.session_id for row, _, _ in ends])
    for row, reason, message in ends:
        session = states.session(row.session_id)
        if session is not None and session.revision == row.revision and session.state == SessionState.PENDING:
            states.end(session, reason, message, now=now)
    return states.write()


_SET_QUEUE = (
    update(SESSION)
    .where(
        SESSION.c.session_id == bindparam("of_session"),
        SESSION.c.revision == bindparam("seen"),
        SESSION.c.state == SessionState.PENDING.value,
    )
    .values(queue=bindparam("place"), revision=bindparam("fresh"), updated_time=bindparam("now"))
)


_MEASURED = 1000


def recent_lengths(tx: Transaction) -> list[tuple[str, float]]:
    """Return (application, seconds from ready to ended) of the last sessions that have ended and were ready."""
    last = (
        select(SESSION.c.application, SESSION.c.ready_time, SESSION.c.ended_time)
        .where(SESSION.c.ended_time.is_not(None), SESSION.c.pool.is_(None))
        .order_by(SESSION.c.ended_time.desc(), SESSION.c.session_id.desc())
        .limit(_MEASURED)
    )
    return [
        (application, (ended - ready).total_seconds())
        for application, ready, ended in tx.execute(last)
        if ready is not None
    ]


def live_on(tx: Transaction, node: str) -> list[str]:
    """Return the ids of the sessions that hold slots on a node."""
    living = select(LAUNCH.c.session_id).where(LAUNCH.c.node == node, LAUNCH.c.ended_time.is_(None))
    return list(tx.execute(living.order_by(LAUNCH.c.session_id)).scalars())


PRUNED_AT_ONCE = 500


def prune(tx: Transaction, *, before: datetime, now: datetime, limit: int = PRUNED_AT_ONCE) -> int:
    """Remove sessions that ended before a moment, with their launches, leases and viewers; return how many."""
    found = tx.execute(
        select(SESSION.c.session_id, SESSION.c.username, SESSION.c.application, SESSION.c.pool)
        .where(SESSION.c.ended_time < before)
        .order_by(SESSION.c.ended_time)
        .limit(limit)
    ).all()
    old = [row[0] for row in found]
    if old:
        if shown := [(row[0], row[1], row[2]) for row in found if row[3] is None]:
            removals.record(tx, shown, now=now)
        launches = select(LAUNCH.c.launch_id).where(LAUNCH.c.session_id.in_(old))
        tx.execute(delete(LEASE).where(LEASE.c.launch_id.in_(launches)))
        tx.execute(delete(LAUNCH).where(LAUNCH.c.session_id.in_(old)))
        tx.execute(delete(VIEWER).where(VIEWER.c.session_id.in_(old)))
        tx.execute(delete(SESSION).where(SESSION.c.session_id.in_(old)))
    return len(old)


_BY_ID = select(SESSION).where(SESSION.c.session_id == bindparam("session_id"))
_PENDING = (
    select(*(SESSION.c[name] for name in PendingSession._fields))
    .where(
        SESSION.c.state == SessionState.PENDING.value,
        SESSION.c.intent == Intent.RUN.value,
        SESSION.c.condition == Condition.OK.value,
    )
    .order_by(SESSION.c.priority.desc(), SESSION.c.created_time, SESSION.c.session_id)
)
_PENDING_AFTER = _PENDING.where(
    SESSION.c.priority == bindparam("priority"),
    tuple_(SESSION.c.created_time, SESSION.c.session_id)
    > tuple_(bindparam("created_time", type_=SESSION.c.created_time.type), bindparam("session_id")),
)
_PENDING_BELOW = _PENDING.where(SESSION.c.priority < bindparam("priority"))
