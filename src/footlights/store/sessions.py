"""Sessions: created, ended, and settled whenever something they follow from has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, literal, select, update

from footlights.lifecycle import EndReason, Intent, LaunchFacts, LaunchState, SessionState, Stage, settle
from footlights.store import searching
from footlights.store.inserting import Rows
from footlights.store.revisions import allocate, next_revision
from footlights.store.store import Transaction
from footlights.store.tables import (
    LAUNCH,
    LEASE,
    NODE,
    SESSION,
    Instant,
    Launch,
    Node,
    Session,
    microseconds,
)
from footlights.store.transactions import Changed


def get(tx: Transaction, session_id: str) -> Session | None:
    """Return one session."""
    return tx.one(_BY_ID, Session, {"session_id": session_id})


def some(tx: Transaction, session_ids: Sequence[str]) -> list[Session]:
    """Return the sessions with these ids, in no particular order."""
    return tx.all(select(SESSION).where(SESSION.c.session_id.in_(session_ids)), Session) if session_ids else []


def any_pending(tx: Transaction) -> bool:
    """Say whether any session waits for a device."""
    waiting = select(SESSION.c.session_id).where(SESSION.c.state == SessionState.PENDING.value).limit(1)
    return tx.execute(waiting).first() is not None


def end(tx: Transaction, session: Session, reason: EndReason, message: str, *, now: datetime) -> Session:
    """Ask for a session's end, in whatever state it is. The first reason stays; asking again changes nothing."""
    if session.intent == Intent.END or session.ended_time is not None:
        return session
    update_session(
        tx,
        session,
        intent=Intent.END.value,
        wish=reason.value,
        wish_message=message,
        timeline=[*session.timeline, _mark(Stage.ENDING, now)],
    )
    if session.launch_id is not None:
        tx.execute(
            update(LAUNCH)
            .where(LAUNCH.c.launch_id == session.launch_id, LAUNCH.c.ended_time.is_(None))
            .values(desired="STOPPED", ending_time=func.coalesce(LAUNCH.c.ending_time, literal(now, Instant)))
        )
    return resettle(tx, session.session_id, now=now)


def resettle(
    tx: Transaction, session_id: str, *, now: datetime, steps: Mapping[Stage, datetime] | None = None
) -> Session:
    """Write what follows from a session's intent and launch: state, reason, message, timeline.

    Args:
        tx: The transaction in which one of the inputs was changed.
        session_id: The session.
        now: This moment.
        steps: Stages of its start that its launch has reached, and when.
    """
    session = get(tx, session_id)
    assert session is not None
    launch = None
    if session.launch_id is not None:
        launch = tx.one(_LAUNCH_BY_ID, Launch, {"launch_id": session.launch_id})
    facts, node = _facts(launch), _node(tx, launch)
    holds = launch is not None and launch.ended_time is None
    settled = settle(
        Intent(session.intent),
        EndReason(session.wish) if session.wish else None,
        facts,
        wish_message=session.wish_message,
        failures=session.failures,
        notice=_drains(node),
    )
    changes: dict[str, Any] = {
        "state": settled.state.value,
        "status_message": settled.message,
        "condition": "OK" if not holds or (node is not None and node.reachable) else "UNREACHABLE",
    }
    timeline = _advance(session, settled.state, steps or {}, now)
    if settled.state is SessionState.PENDING and launch is not None:
        # A launch that was refused or failed without the application's fault: back to its old place in the queue.
        changes |= {"launch_id": None, "failures": session.failures + (launch.state == LaunchState.FAILED)}
        timeline = timeline[:1]
    if settled.state is not SessionState.PENDING:
        changes["queue"] = {}
    if settled.state in (SessionState.READY, SessionState.ACTIVE) and session.ready_time is None:
        changes["ready_time"] = (steps or {}).get(Stage.APPLICATION_READY, now)
    if settled.state.ended:
        changes |= {"end_reason": settled.end_reason.value if settled.end_reason else "", "ended_time": now}
        changes["secrets"] = b""
    changes["timeline"] = timeline
    if all(getattr(session, name) == value for name, value in changes.items()):
        return session
    return update_session(tx, session, **changes)


def hold(tx: Transaction, session_id: str) -> None:
    """Keep a session from being changed by others until the transaction ends.

    Whoever changes a session and its launch begins with the session: in both orders, two replicas would wait for each
    other.
    """
    if tx.dialect == "postgresql":
        tx.execute(
            select(SESSION.c.session_id).where(SESSION.c.session_id == session_id).with_for_update(key_share=True)
        )


def update_session(tx: Transaction, session: Session, **changes: Any) -> Session:
    """Change a session that nobody else has changed since it was read, and give it a new revision.

    Raises:
        Changed: somebody was faster.
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
    # Nobody has changed it since it was read, so what it is now need not be read.
    return _rows.changed(session, **changes, revision=revision)


def pending(tx: Transaction, limit: int) -> list[Session]:
    """Return the sessions that wait for a device, in the order in which they are to be placed."""
    return tx.all(
        select(SESSION)
        .where(SESSION.c.state == SessionState.PENDING.value)
        .order_by(SESSION.c.priority.desc(), SESSION.c.created_time, SESSION.c.session_id)
        .limit(limit),
        Session,
    )


def set_queue(tx: Transaction, places: Sequence[tuple[Session, Mapping[str, Any]]]) -> None:
    """Write what is known of the place of sessions that wait, and have not changed since they were read."""
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


def holding(tx: Transaction) -> list[Session]:
    """Return the sessions that hold slots."""
    launched = select(SESSION).join(LAUNCH, LAUNCH.c.launch_id == SESSION.c.launch_id)
    return tx.all(launched.where(LAUNCH.c.ended_time.is_(None)), Session)


def live_on(tx: Transaction, node: str) -> list[Session]:
    """Return the sessions that hold slots on a node."""
    return tx.all(
        select(SESSION)
        .join(LAUNCH, LAUNCH.c.launch_id == SESSION.c.launch_id)
        .where(LAUNCH.c.node == node, LAUNCH.c.ended_time.is_(None))
        .order_by(SESSION.c.session_id),
        Session,
    )


PRUNED_AT_ONCE = 500


def prune(tx: Transaction, *, before: datetime, limit: int = PRUNED_AT_ONCE) -> int:
    """Remove sessions that ended before a moment, with their launches and leases; return how many it were."""
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
        searching.forget_terms(tx)
    return len(old)


def _facts(launch: Launch | None) -> LaunchFacts | None:
    if launch is None:
        return None
    return LaunchFacts(
        state=LaunchState(launch.state),
        stopping=launch.desired == "STOPPED",
        overdue=launch.overdue,
        viewers=launch.viewers,
        exit_code=launch.exit_code,
        reason=launch.reason,
        message=launch.message,
    )


def _node(tx: Transaction, launch: Launch | None) -> Node | None:
    """Return the node that a launch holds slots of; None where it holds none."""
    if launch is None or launch.ended_time is not None:
        return None
    return tx.one(_NODE_BY_NAME, Node, {"node": launch.node})


def _drains(node: Node | None) -> str:
    if node is None or not node.draining or node.drain_time is None:
        return ""
    return f"The node is being drained; the session ends at {node.drain_time:%H:%M:%S} UTC."


def _advance(session: Session, state: SessionState, steps: Mapping[Stage, datetime], now: datetime) -> list[list[Any]]:
    known = {stage for stage, _ in session.timeline}
    fresh = [_mark(stage, when) for stage, when in steps.items() if stage.value not in known]
    if state.ended and Stage.ENDED.value not in known:
        fresh.append(_mark(Stage.ENDED, now))
    return [*session.timeline, *fresh]


def _mark(stage: Stage, when: datetime) -> list[Any]:
    return [stage.value, microseconds(when)]


_rows = Rows(Session, SESSION)
_BY_ID = select(SESSION).where(SESSION.c.session_id == bindparam("session_id"))
_LAUNCH_BY_ID = select(LAUNCH).where(LAUNCH.c.launch_id == bindparam("launch_id"))
_NODE_BY_NAME = select(NODE).where(NODE.c.node == bindparam("node"))
