"""Deriving the state of sessions: some sessions and their launches, read at once, changed in memory, written at once.

A session's state follows from its intent and its launch. Code that changes one of them derives the state here and
writes all that has become different: a few statements, however many sessions share them.

On Postgres the sessions are locked when they are read, in one order everywhere, so that no other transaction changes
them or what belongs to them until they are written; SQLite has one writer anyhow. Every session that has changed gets
one new revision, and is found by its old one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select, update

from footlights import errors
from footlights.lifecycle import (
    DerivedState,
    Desired,
    EndReason,
    Intent,
    LaunchFacts,
    LaunchState,
    SessionState,
    Stage,
    derive_state,
    is_a_try,
)
from footlights.store.bulk import Updater
from footlights.store.cluster.revisions import allocate
from footlights.store.nodes import fleet
from footlights.store.schema import LAUNCH, LEASE, NODE, SESSION, LaunchRow, SessionRow, microseconds
from footlights.store.sessions import unknown_values
from footlights.store.unit import Changed, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime


class DerivationNode(NamedTuple):
    """What of a node bears on the state of the sessions on it."""

    node: str
    epoch: int
    reachable: bool
    draining: bool
    drain_time: datetime | None


class SessionStates:
    """Some sessions, their current launches, and the nodes that these are on; as they are now, and as they become.

    What does not exist, cannot be decoded, or belongs to a replica of a later release (``unknown_values``), is None. No
    change is in the database before ``write``.
    """

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self._sessions: dict[str, SessionRow] = {}
        self._launches: dict[str, LaunchRow] = {}
        self._nodes: dict[str, DerivationNode] = {}
        self._sessions_before: dict[str, SessionRow] = {}
        self._launches_before: dict[str, LaunchRow] = {}
        self._touched: set[str] = set()
        self._left_alone: dict[str, dict[str, str]] = {}
        """Sessions and launches of a later release -> the values that are not known."""
        self._released: dict[str, datetime] = {}
        self._now: datetime | None = None
        """When what has changed did."""
        self._warmed: dict[tuple[str, str, str], datetime] = {}

    @classmethod
    def of_sessions(cls, tx: Transaction, session_ids: Iterable[str], *, nodes: Iterable[str] = ()) -> SessionStates:
        """Read these sessions."""
        states = cls(tx)
        states._read_sessions(tx.all(_SESSIONS_BY_ID, SessionRow, {"ids": list(set(session_ids))}))
        states._read_launches(())
        states._leave_alone()
        states._read_nodes(nodes)
        return states

    @classmethod
    def of_launches(cls, tx: Transaction, launch_ids: Iterable[str], *, nodes: Iterable[str] = ()) -> SessionStates:
        """Read these launches, whether they are current or not, and the sessions that they are of."""
        states = cls(tx)
        ids = set(launch_ids)
        states._read_sessions(tx.all(_SESSIONS_BY_LAUNCH, SessionRow, {"ids": list(ids)}))
        states._read_launches(ids)
        states._leave_alone()
        states._read_nodes(nodes)
        return states

    def session(self, session_id: str) -> SessionRow | None:
        """Return a session."""
        return self._sessions.get(session_id)

    def launch(self, launch_id: str | None) -> LaunchRow | None:
        """Return a launch."""
        return None if launch_id is None else self._launches.get(launch_id)

    def left_alone(self, key: str) -> bool:
        """Return whether a session or launch, by its id, is left to a replica of a later release."""
        return key in self._left_alone

    def as_read(self, session_id: str) -> SessionRow | None:
        """Return a session as it was read, also one that is left to a replica of a later release."""
        return self._sessions_before.get(session_id)

    def refuse(self, session_id: str) -> None:
        """Raise FailedPrecondition for a session that is left to a replica of a later release."""
        if session_id in self._left_alone:
            raise unknown_values.refusal(self._sessions_before[session_id], self._left_alone[session_id])

    def node(self, name: str) -> DerivationNode | None:
        """Return a node: one that a launch which has not ended is on, or that was asked for."""
        return self._nodes.get(name)

    def launch_of(self, session: SessionRow) -> LaunchRow | None:
        """Return a session's current launch.

        Raises Internal where it cannot be decoded, so that nothing may be derived from it.
        """
        launch = self.launch(session.launch_id)
        if launch is None and session.launch_id is not None:
            raise errors.Internal(
                f"Launch {session.launch_id} of session {session.session_id} cannot be read.",
                reason=errors.Reason.ROW_UNREADABLE,
            )
        return launch

    def begin(self, session: SessionRow, launch: LaunchRow, *, now: datetime) -> None:
        """Give a session a launch that was written this moment."""
        self._launches[launch.launch_id] = self._launches_before[launch.launch_id] = launch
        self.change_session(session, launch_id=launch.launch_id, launch_count=session.launch_count + 1)
        self.derive(session.session_id, now=now, steps={Stage.PLACED: now})

    def end(self, session: SessionRow, reason: EndReason, message: str, *, now: datetime) -> None:
        """Ask for a session's end, in whatever state it is. The first reason stays; asking again changes nothing."""
        if session.intent == Intent.END or session.ended_time is not None:
            return
        launch = self.launch_of(session)
        self.change_session(
            session,
            intent=Intent.END.value,
            wish=reason.value,
            wish_message=message,
            timeline=[*session.timeline, _mark(Stage.ENDING, now)],
        )
        if launch is not None and launch.ended_time is None:
            self.change_launch(launch, desired=Desired.STOPPED.value, ending_time=launch.ending_time or now)
        self.derive(session.session_id, now=now)

    def derive(self, session_id: str, *, now: datetime, steps: Mapping[Stage, datetime] | None = None) -> None:
        """Change what follows from a session's intent and launch; ``steps`` are stages that the launch has reached."""
        self._now = now if self._now is None else max(self._now, now)
        session = self._sessions[session_id]
        if session.ended_time is not None:
            return
        launch = self.launch_of(session)
        node = self._nodes.get(launch.node) if launch is not None and launch.ended_time is None else None
        facts = None if launch is None else _facts(launch)
        derived = _derived(session, facts, node)
        holds = launch is not None and launch.ended_time is None
        changes: dict[str, Any] = {
            "state": derived.state.value,
            "status_message": derived.message,
            "condition": "OK" if not holds or (node is not None and node.reachable) else "UNREACHABLE",
        }
        steps = _since_taken(launch, steps or {})
        timeline = _advance(session, derived.state, steps, now)
        if derived.state is SessionState.PENDING and launch is not None:
            # A launch that was refused or failed without the application's fault: back to its old place in the queue.
            failed = facts is not None and is_a_try(facts)
            changes |= {"launch_id": None, "failures": session.failures + failed}
            timeline = timeline[:1]
        if derived.state is not SessionState.PENDING:
            changes["queue"] = {}
        if derived.state.has_picture and session.ready_time is None and session.pool is None:
            changes["ready_time"] = steps.get(Stage.APPLICATION_READY, now)
        if derived.state.ended:
            changes |= {"end_reason": derived.end_reason.value if derived.end_reason else "", "ended_time": now}
            changes["secrets"] = b""
        self.change_session(session, **changes, timeline=timeline)

    def change_session(self, session: SessionRow, **changes: Any) -> None:
        """Change members of a session."""
        self._sessions[session.session_id] = session._replace(**changes)

    def change_launch(self, launch: LaunchRow, **changes: Any) -> None:
        """Change members of a launch."""
        self._launches[launch.launch_id] = launch._replace(**changes)

    def touch(self, session_id: str) -> None:
        """Give a session a new revision in any case: what is shown of its launch has changed."""
        self._touched.add(session_id)

    def release(self, launch_id: str, *, now: datetime) -> None:
        """Free the slots of a launch that is proved to be over."""
        self._released[launch_id] = now

    def warmed(self, session: SessionRow, node: str, *, now: datetime) -> None:
        """Record that a session's version has become ready on a node."""
        self._warmed[node, session.application, session.application_version] = now

    def write(self) -> frozenset[str]:
        """Write what has changed; return the sessions that have.

        Raises Changed where another process has changed one of them.
        """
        changed = self._write_sessions()
        launches = [(row, _differing(self._launches_before[key], row)) for key, row in sorted(self._launches.items())]
        by_columns: defaultdict[tuple[str, ...], list[list[Any]]] = defaultdict(list)
        for launch, columns in launches:
            if columns:
                by_columns[columns].append([*(getattr(launch, name) for name in columns), launch.launch_id])
        for columns, rows in by_columns.items():
            _update_launches(self.tx, columns, rows)
        if self._released:
            ended = [{"of_launch": launch_id, "now": now} for launch_id, now in self._released.items()]
            self.tx.execute(_RELEASE, ended)
        fleet.warmed(self.tx, self._warmed)
        return changed

    def _write_sessions(self) -> frozenset[str]:
        changes = {}
        for session_id, session in sorted(self._sessions.items()):
            columns = _differing(self._sessions_before[session_id], session)
            if columns or session_id in self._touched:
                changes[session_id] = columns
        if not changes:
            return frozenset()
        by_columns: defaultdict[tuple[str, ...], list[list[Any]]] = defaultdict(list)
        now = self._now
        for (session_id, columns), revision in zip(changes.items(), allocate(self.tx, len(changes)), strict=True):
            session = self._sessions[session_id]
            values = [getattr(session, name) for name in columns]
            by_columns[(*columns, "updated_time", "revision")].append(
                [*values, now, revision, session_id, session.revision]
            )
            self._sessions[session_id] = session._replace(revision=revision, updated_time=now)
        met = sum(_update_sessions(self.tx, columns, rows) for columns, rows in by_columns.items())
        if met < len(changes):
            raise Changed("A session was changed at the same time. Read it again and retry.")
        return frozenset(changes)

    def _read_sessions(self, found: Iterable[SessionRow]) -> None:
        self._sessions = {row.session_id: row for row in found}
        self._sessions_before = dict(self._sessions)

    def _read_launches(self, launch_ids: Iterable[str]) -> None:
        ids = {*launch_ids, *(row.launch_id for row in self._sessions.values() if row.launch_id is not None)}
        found = self.tx.all(_LAUNCHES, LaunchRow, {"ids": list(ids)}) if ids else []
        self._launches = {row.launch_id: row for row in found}
        self._launches_before = dict(self._launches)

    def _leave_alone(self) -> None:
        for session in self._sessions_before.values():
            launch = self.launch(session.launch_id)
            found = unknown_values.of_session(session)
            if launch is not None:
                found |= {f"launch.{name}": value for name, value in unknown_values.of_launch(launch).items()}
            if found and session.ended_time is None:
                unknown_values.report(session.session_id, found)
                self._left_alone[session.session_id] = found
                del self._sessions[session.session_id]
        for launch in self._launches_before.values():
            found = self._left_alone.get(launch.session_id) or unknown_values.of_launch(launch)
            if found:
                self._left_alone[launch.launch_id] = found
                del self._launches[launch.launch_id]

    def _read_nodes(self, names: Iterable[str]) -> None:
        wanted = {*names, *(row.node for row in self._launches.values() if row.ended_time is None)}
        found = self.tx.all(_NODES, DerivationNode, {"names": list(wanted)}) if wanted else []
        self._nodes = {row.node: row for row in found}


def _facts(launch: LaunchRow) -> LaunchFacts:
    return LaunchFacts(
        state=LaunchState[launch.state],
        stopping=launch.desired == Desired.STOPPED,
        being_taken=launch.handed_over_time is not None and not launch.taken_up,
        overdue=launch.overdue,
        viewers=launch.viewers,
        exit_code=launch.exit_code,
        reason=launch.reason,
        message=launch.message,
    )


def _derived(session: SessionRow, facts: LaunchFacts | None, node: DerivationNode | None) -> DerivedState:
    return derive_state(
        Intent[session.intent],
        EndReason[session.wish] if session.wish else None,
        facts,
        wish_message=session.wish_message,
        failures=session.failures,
        notice=_drains(node),
        again=session.pool is None,
    )


def _drains(node: DerivationNode | None) -> str:
    if node is None or not node.draining or node.drain_time is None:
        return ""
    return f"The node is being drained; the session ends at {node.drain_time:%H:%M:%S} UTC."


def _since_taken(launch: LaunchRow | None, steps: Mapping[Stage, datetime]) -> Mapping[Stage, datetime]:
    """Return the steps of a launch as they count for its session, which may have taken it when it was started."""
    if launch is None or launch.handed_over_time is None:
        return steps
    since = launch.handed_over_time
    return {
        stage: max(when, since)
        for stage, when in steps.items()
        if when >= since or (stage is Stage.APPLICATION_READY and launch.taken_up)
    }


def _advance(
    session: SessionRow, state: SessionState, steps: Mapping[Stage, datetime], now: datetime
) -> list[list[Any]]:
    known = {stage for stage, _ in session.timeline}
    fresh = [_mark(stage, when) for stage, when in steps.items() if stage.value not in known]
    if state.ended and Stage.ENDED.value not in known:
        fresh.append(_mark(Stage.ENDED, now))
    return [*session.timeline, *fresh]


def _mark(stage: Stage, when: datetime) -> list[Any]:
    return [stage.value, microseconds(when)]


def _differing(before: Any, after: Any) -> tuple[str, ...]:
    """Return the columns in which two rows of one table differ."""
    if before is after:
        return ()
    return tuple(
        name for name, old, new in zip(after._fields, before, after, strict=True) if old is not new and old != new
    )


_update_sessions, _update_launches = Updater(SESSION, "session_id", "revision"), Updater(LAUNCH, "launch_id")

_SESSIONS = select(SESSION).order_by(SESSION.c.session_id).with_for_update(key_share=True)
_SESSIONS_BY_ID = _SESSIONS.where(SESSION.c.session_id.in_(bindparam("ids", expanding=True)))
_SESSIONS_BY_LAUNCH = _SESSIONS.where(
    SESSION.c.session_id.in_(
        select(LAUNCH.c.session_id).where(LAUNCH.c.launch_id.in_(bindparam("ids", expanding=True)))
    )
)
_LAUNCHES = select(LAUNCH).where(LAUNCH.c.launch_id.in_(bindparam("ids", expanding=True)))
_NODES = select(NODE.c.node, NODE.c.epoch, NODE.c.reachable, NODE.c.draining, NODE.c.drain_time).where(
    NODE.c.node.in_(bindparam("names", expanding=True))
)
_RELEASE = (
    update(LEASE)
    .where(LEASE.c.launch_id == bindparam("of_launch"), LEASE.c.released_time.is_(None))
    .values(released_time=bindparam("now"))
)
