"""Launches and their leases: begun by the scheduler, observed by the link, ended once, by proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, case, literal_column, or_, select, type_coerce, update

from footlights import errors
from footlights.lifecycle import LaunchState, Phases, SessionState, Stage, merge, phases, reasons
from footlights.store.launches import slots
from footlights.store.launches.slots import ChosenSlots, SlotClaim
from footlights.store.nodes import device_history
from footlights.store.schema import LAUNCH, LEASE, NODE, SESSION, LaunchRow, LeaseRow, SessionRow
from footlights.store.sessions import session_rows
from footlights.store.sessions.derivation import SessionStates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class PlacementDecision:
    """A decision of the scheduler that is to be written."""

    session_id: str
    revision: int
    """Of the session when it was read."""
    placement: ChosenSlots


@dataclass(frozen=True, slots=True)
class Observation:
    """What an agent says of a launch; times are already on our clock."""

    launch_id: str
    epoch: int
    state: LaunchState
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    ports: tuple[int, int, int] = (0, 0, 0)
    viewers: int | None = None
    ever_connected: bool = False
    taken_up: bool = False
    """Whether the session is taken up that it was handed over to."""
    steps: Mapping[Stage, datetime] = field(default_factory=dict)
    log_tail: Sequence[str] = ()


def get(tx: Transaction, launch_id: str) -> LaunchRow | None:
    """Return one launch."""
    return tx.one(select(LAUNCH).where(LAUNCH.c.launch_id == launch_id), LaunchRow)


def some(tx: Transaction, launch_ids: Sequence[str], *, output: bool = True) -> dict[str, LaunchRow]:
    """Return the launches with these ids, by id; without their last lines unless ``output`` is asked for."""
    if not launch_ids:
        return {}
    tail = type_coerce(literal_column("'[]'"), LAUNCH.c.log_tail.type)
    columns = [column if output or column is not LAUNCH.c.log_tail else tail for column in LAUNCH.c]
    found = tx.all(select(*columns).where(LAUNCH.c.launch_id.in_(launch_ids)), LaunchRow)
    return {row.launch_id: row for row in found}


def send_secrets(tx: Transaction, node: str, epoch: int, launch_ids: Sequence[str]) -> set[str]:
    """Record that the secrets of launches are sent over a node's link; return those whose secrets may be.

    These are not started yet and wanted to run, and theirs were sent over no other link; it is the node's newest.
    """
    newest = select(NODE.c.node).where(NODE.c.node == node, NODE.c.epoch == epoch)
    mine = (
        LAUNCH.c.launch_id.in_(launch_ids),
        LAUNCH.c.node.in_(newest),
        LAUNCH.c.state == LaunchState.ASSIGNED.value,
        LAUNCH.c.desired == "RUNNING",
        LAUNCH.c.ended_time.is_(None),
        or_(LAUNCH.c.secrets_epoch.is_(None), LAUNCH.c.secrets_epoch == epoch),
    )
    tx.execute(update(LAUNCH).where(*mine).values(secrets_epoch=epoch))
    return set(tx.execute(select(LAUNCH.c.launch_id).where(*mine)).scalars())


def last(tx: Transaction, session_id: str) -> LaunchRow | None:
    """Return a session's last launch."""
    return tx.one(
        select(LAUNCH).where(LAUNCH.c.session_id == session_id).order_by(LAUNCH.c.created_time.desc()).limit(1),
        LaunchRow,
    )


def begin(tx: Transaction, grants: Sequence[PlacementDecision], *, now: datetime) -> list[LaunchRow | errors.Conflict]:
    """Lease the slots of placements and begin their launches; answer for each, and leave no trace of a conflict.

    A conflict: the session has changed, one of the slots is leased, or the node takes no sessions any more.
    """
    nodes = {grant.placement.node for grant in grants}
    states = SessionStates.of_sessions(tx, [grant.session_id for grant in grants], nodes=nodes)
    open_nodes = slots.open_nodes(tx, nodes)
    answers: dict[int, LaunchRow | errors.Conflict] = {}
    takings: dict[int, SlotClaim] = {}
    chosen = set()
    for number, grant in enumerate(grants):
        session, node = states.session(grant.session_id), grant.placement.node
        changed = session is None or session.revision != grant.revision or session.state != SessionState.PENDING
        if changed or grant.session_id in chosen:
            answers[number] = errors.Conflict(f"Session {grant.session_id} has changed since it was placed.")
        elif node not in open_nodes:
            answers[number] = errors.Conflict(f"Node {node} takes no sessions any more.")
        else:
            chosen.add(grant.session_id)
            takings[number] = SlotClaim(grant.session_id, grant.placement, now)
    begun = slots.take(tx, list(takings.values()))
    for number, taking in takings.items():
        place = taking.placement
        launch, session = begun.get(place.launch_id), states.session(taking.session_id)
        if launch is None:
            answers[number] = errors.Conflict(f"A slot of {place.device} on {place.node} is leased already.")
        elif session is not None:
            states.begin(session, launch, now=now)
            answers[number] = launch
    states.write()
    return [answers[number] for number in range(len(grants))]


def live_on(tx: Transaction, *nodes: str) -> list[tuple[LaunchRow, SessionRow]]:
    """Return the launches of some nodes that have not ended, with their sessions."""
    return _with_sessions(tx, LAUNCH.c.node.in_(nodes))


def living(tx: Transaction, launch_ids: Sequence[str]) -> list[tuple[LaunchRow, SessionRow]]:
    """Return those of some launches that have not ended, with their sessions."""
    return _with_sessions(tx, LAUNCH.c.launch_id.in_(launch_ids))


def _with_sessions(tx: Transaction, which: ColumnElement[bool]) -> list[tuple[LaunchRow, SessionRow]]:
    statement = select(LAUNCH).where(which, LAUNCH.c.ended_time.is_(None)).order_by(LAUNCH.c.launch_id)
    launches = tx.all(statement, LaunchRow)
    return _owned(tx, launches)


def _owned(tx: Transaction, launches: Sequence[LaunchRow]) -> list[tuple[LaunchRow, SessionRow]]:
    owners = {session.session_id: session for session in session_rows.some(tx, [row.session_id for row in launches])}
    return [(launch, owners[launch.session_id]) for launch in launches if launch.session_id in owners]


@dataclass(frozen=True, slots=True)
class RunningLaunch:
    """What an agent is told of a launch, as far as it may change."""

    node: str
    launch_id: str
    desired: str
    epoch: int
    limits: bytes
    drain_time: datetime | None
    """When a drain of its node ends it."""
    handed_over_time: datetime | None = None


def running_at(tx: Transaction, hub: str) -> list[RunningLaunch]:
    """Return the launches that have not ended on the nodes that have their links to one replica."""
    return _running(tx, NODE.c.hub == hub)


def running_on(tx: Transaction, nodes: Sequence[str]) -> list[RunningLaunch]:
    """Return the launches that have not ended on some nodes."""
    return _running(tx, LAUNCH.c.node.in_(nodes))


def _running(tx: Transaction, which: ColumnElement[bool]) -> list[RunningLaunch]:
    statement = (
        select(
            LAUNCH.c.node,
            LAUNCH.c.launch_id,
            LAUNCH.c.desired,
            LAUNCH.c.epoch,
            SESSION.c.limits,
            case((NODE.c.draining, NODE.c.drain_time)),
            LAUNCH.c.handed_over_time,
        )
        .join(NODE, NODE.c.node == LAUNCH.c.node)
        .join(SESSION, SESSION.c.session_id == LAUNCH.c.session_id)
        .where(LAUNCH.c.ended_time.is_(None), which)
    )
    return [RunningLaunch(*row) for row in tx.execute(statement)]


def live_leases(tx: Transaction) -> list[LeaseRow]:
    """Return every lease that is held."""
    return tx.all(select(LEASE).where(LEASE.c.released_time.is_(None)), LeaseRow)


class Attempt(NamedTuple):
    """A launch of a session that waits again: it was refused, or failed before it was ready."""

    session_id: str
    node: str
    device: str
    state: str
    reason: str
    message: str
    ended_time: datetime


def attempts(tx: Transaction, session_ids: Sequence[str]) -> list[Attempt]:
    """Return the launches of these sessions that were refused or failed, oldest first."""
    if not session_ids:
        return []
    columns = tuple(LAUNCH.c[name] for name in Attempt._fields)
    statement = select(*columns).where(
        LAUNCH.c.session_id.in_(session_ids),
        LAUNCH.c.state.in_([LaunchState.REJECTED.value, LaunchState.FAILED.value]),
        LAUNCH.c.ended_time.is_not(None),
    )
    return [Attempt(*row) for row in tx.execute(statement.order_by(LAUNCH.c.created_time))]


def recent_start_times(tx: Transaction) -> list[tuple[str, str, float]]:
    """Return (application, version, seconds from placed to ready) of the last launches that became ready, newest first.

    Only the last ``_MOST_LOOKED_AT`` are looked at: where all have failed, history is not searched for another.
    """
    columns = (LAUNCH.c.launch_id, LAUNCH.c.session_id, LAUNCH.c.start_s)
    newest = select(*columns).order_by(LAUNCH.c.launch_id.desc()).limit(_MOST_LOOKED_AT).subquery()
    started = (
        select(SESSION.c.application, SESSION.c.application_version, newest.c.start_s)
        .join(newest, newest.c.session_id == SESSION.c.session_id)
        .where(newest.c.start_s.is_not(None))
        .order_by(newest.c.launch_id.desc())
    )
    return [(row[0], row[1], float(row[2])) for row in tx.execute(started)]


class HeldSlots(NamedTuple):
    """A launch that holds slots, as far as it tells when they become free."""

    launch_id: str
    node: str
    device: str
    slots: Sequence[int]
    created_time: datetime
    ending_time: datetime | None
    overdue: bool
    application: str
    application_version: str
    limits: bytes
    """The serialized ``footlights.v1.Limits``."""
    ready_time: datetime | None


def held_slots(tx: Transaction) -> list[HeldSlots]:
    """Return every launch that holds slots."""
    # By the launches, of which few live: those that have ended are not looked at, however many there are.
    columns = [
        *(LAUNCH.c[name] for name in HeldSlots._fields[:7]),
        *(SESSION.c[name] for name in HeldSlots._fields[7:]),
    ]
    launched = select(*columns).join(SESSION, LAUNCH.c.session_id == SESSION.c.session_id)
    return [HeldSlots(*row) for row in tx.execute(launched.where(LAUNCH.c.ended_time.is_(None)))]


_MOST_LOOKED_AT = 1000


def note(states: SessionStates, node: str, seen: Observation, *, now: datetime) -> LaunchRow | None:
    """Change what a node's agent says of a launch, and what follows; return the launch as it is now.

    None where the launch is not that node's. An observation of an older epoch, or of a launch whose end is recorded,
    changes nothing.
    """
    launch = states.launch(seen.launch_id)
    if launch is None or launch.node != node:
        return None
    if launch.ended_time is not None or seen.epoch < launch.epoch:
        return launch
    changes = _changes(launch, seen, now)
    changed = {name: value for name, value in changes.items() if getattr(launch, name) != value}
    if changed:
        states.change_launch(launch, **changed, reported_time=now)
    if "ended_time" in changed:
        states.release(launch.launch_id, now=now)
        if seen.reason in reasons.DEVICE_HISTORY:
            device_history.record(states.tx, node, launch.device, seen.reason, seen.message, now=now)
    session = states.session(launch.session_id)
    if (changed or seen.steps) and session is not None and session.launch_id == launch.launch_id:
        if "start_s" in changed:
            states.warmed(session, node, now=now)
        states.derive(session.session_id, now=now, steps=seen.steps)
        if set(changed) & _SHOWN:
            states.touch(session.session_id)
    return states.launch(launch.launch_id)


def _changes(launch: LaunchRow, seen: Observation, now: datetime) -> dict[str, Any]:
    state = merge(LaunchState[launch.state], seen.state)
    # What was seen before a session took it is not the session's.
    before = launch.handed_over_time is not None and not (launch.taken_up or seen.taken_up)
    changes: dict[str, Any] = {
        "state": state.value,
        "viewers": None if before else seen.viewers,
        "ever_connected": launch.ever_connected or (seen.ever_connected and not before),
        "reason": seen.reason,
        "message": seen.message,
    }
    if launch.handed_over_time is not None:
        changes["taken_up"] = not before
    if any(seen.ports):
        changes |= dict(zip(("signal_port", "media_port", "http_port"), seen.ports, strict=True))
    if state.rank >= LaunchState.READY.rank and launch.start_s is None and Stage.APPLICATION_READY in seen.steps:
        changes["start_s"] = (seen.steps[Stage.APPLICATION_READY] - launch.created_time).total_seconds()
    if state is LaunchState.STOPPING and launch.ending_time is None:
        changes["ending_time"] = now
    if state.final:
        changes |= {"exit_code": seen.exit_code, "log_tail": list(seen.log_tail), "ended_time": now, "viewers": None}
    return changes


def spent(launch: LaunchRow, *, now: datetime) -> Phases:
    """Return what a launch's slots were held for, in slot-seconds."""
    ready = None if launch.start_s is None else launch.created_time + timedelta(seconds=launch.start_s)
    ended = launch.ended_time or now
    taken = (launch.handed_over_time or ended) if launch.ahead else None
    return phases(launch.created_time, ready, launch.ending_time, ended, taken) * len(launch.slots)


def ending(tx: Transaction) -> list[tuple[LaunchRow, SessionRow]]:
    """Return the launches whose end was asked for or seen but is not proved, with their sessions."""
    # In no order: asked for by id, SQLite goes through all launches that ever were.
    statement = select(LAUNCH).where(LAUNCH.c.ended_time.is_(None), LAUNCH.c.ending_time.is_not(None))
    return _owned(tx, tx.all(statement, LaunchRow))


def set_overdue(tx: Transaction, launch_id: str, *, now: datetime) -> bool:
    """Record that the proof of a launch's end is overdue; its session shows it. False where that was known."""
    states = SessionStates.of_launches(tx, [launch_id])
    launch = states.launch(launch_id)
    if launch is None or launch.ended_time is not None or launch.overdue:
        return False
    states.change_launch(launch, overdue=True)
    states.derive(launch.session_id, now=now)
    states.write()
    return True


_SHOWN = frozenset({"viewers", "signal_port", "media_port", "http_port", "exit_code", "message"})
