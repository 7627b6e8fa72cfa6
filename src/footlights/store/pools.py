"""Pools: how they are defined, and their warm instances.

A warm instance is a row of the table of sessions that is nobody's: it names its pool, has no user, and is left out of
everything that counts or shows sessions (``filtering.SOMEBODYS``). It has a launch and leases as any session, so a slot
is leased once, and its end is proved, in the same way. A session that is created takes it by becoming that row: its
launch, its leases and its id, which the application knows already, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import case, delete, func, insert, select, update

from footlights.lifecycle import (
    Condition,
    EndReason,
    Intent,
    LaunchFacts,
    LaunchState,
    Stage,
    derive_state,
)
from footlights.store.bulk import Inserter
from footlights.store.cluster.revisions import allocate
from footlights.store.launches import slots
from footlights.store.launches.slots import ChosenSlots, SlotClaim
from footlights.store.schema import LAUNCH, NODE, POOL, SESSION, LaunchRow, PoolRow, SessionRow, microseconds
from footlights.store.sessions.derivation import SessionStates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction

MOST_POOLS: Final = 200
"""How many there may be."""
KEPT = {"session_id", "needs", "secrets"}
"""What a session keeps of the warm instance that it takes: its launch was placed by it, or is started with it."""


# How they are defined


def get(tx: Transaction, pool: str, *, lock: bool = False) -> PoolRow | None:
    """Return one pool; with ``lock`` no other transaction changes it before this one ends."""
    statement = select(POOL).where(POOL.c.pool == pool)
    return tx.one(statement.with_for_update() if lock else statement, PoolRow)


def page(tx: Transaction, after: str, limit: int) -> Readable[PoolRow]:
    """Return up to ``limit`` pools whose name comes after ``after``, by name."""
    return tx.readable(select(POOL).where(POOL.c.pool > after).order_by(POOL.c.pool).limit(limit), PoolRow)


def of(tx: Transaction, application: str) -> list[PoolRow]:
    """Return the pools of an application."""
    return tx.all(select(POOL).where(POOL.c.application == application), PoolRow)


def count(tx: Transaction) -> int:
    """Return how many pools there are."""
    return int(tx.execute(select(func.count()).select_from(POOL)).scalar_one())


def any_of(tx: Transaction, application: str) -> bool:
    """Return whether there is a pool of an application."""
    return tx.execute(select(POOL.c.pool).where(POOL.c.application == application).limit(1)).first() is not None


def put(tx: Transaction, pool: str, application: str, definition: bytes, *, now: datetime) -> None:
    """Create or replace a pool."""
    values = {"application": application, "definition": definition, "updated_time": now}
    if not tx.changed(update(POOL).where(POOL.c.pool == pool).values(**values)):
        tx.execute(insert(POOL).values(pool=pool, status={}, **values))


def remove(tx: Transaction, pool: str) -> bool:
    """Remove a pool; its instances are ended by the next pass."""
    return bool(tx.changed(delete(POOL).where(POOL.c.pool == pool)))


def set_statuses(tx: Transaction, statuses: Mapping[str, Mapping[str, Any]]) -> None:
    """Note what placement makes of pools, by name."""
    for pool, status in statuses.items():
        tx.execute(update(POOL).where(POOL.c.pool == pool).values(status=dict(status)))


# Their instances


class WarmInstance(NamedTuple):
    """A warm instance that has not ended."""

    session_id: str
    pool: str
    shape: str
    application: str
    application_version: str
    state: str
    intent: str
    condition: str
    launch_id: str
    node: str
    device: str
    slots: Sequence[int]
    created_time: datetime
    launch_state: str


class FailedInstance(NamedTuple):
    """A warm instance that ended without being asked to."""

    pool: str
    shape: str
    began: datetime
    ended: datetime
    message: str


@dataclass(frozen=True, slots=True)
class AheadStart:
    """An instance that is to be started: the columns of its row, with pool and shape, and where."""

    values: Mapping[str, Any]
    placement: ChosenSlots


def instances(tx: Transaction, pool: str | None = None) -> list[WarmInstance]:
    """Return the warm instances of one pool, or of all, that have not ended; the oldest first."""
    of_session = (SESSION.c[name] for name in WarmInstance._fields[:8])
    of_launch = (LAUNCH.c[name] for name in WarmInstance._fields[8:13])
    statement = (
        select(*of_session, *of_launch, LAUNCH.c.state)
        .join(LAUNCH, LAUNCH.c.launch_id == SESSION.c.launch_id)
        .where(SESSION.c.shape.is_not(None), SESSION.c.ended_time.is_(None), SESSION.c.pool.is_not(None))
    )
    if pool is not None:
        statement = statement.where(SESSION.c.pool == pool)
    return sorted((WarmInstance(*row) for row in tx.execute(statement)), key=lambda each: each.launch_id)


def failed(tx: Transaction, *, since: datetime) -> list[FailedInstance]:
    """Return the instances that ended since a moment without being asked to."""
    statement = select(
        SESSION.c.pool, SESSION.c.shape, SESSION.c.created_time, SESSION.c.ended_time, SESSION.c.status_message
    ).where(SESSION.c.pool.is_not(None), SESSION.c.ended_time >= since, SESSION.c.intent == Intent.RUN.value)
    return [FailedInstance(*row) for row in tx.execute(statement)]


def begin(tx: Transaction, start: AheadStart, *, now: datetime) -> LaunchRow | None:
    """Start an instance; None, and no trace of it, where a slot is leased already or the node takes nothing."""
    place = start.placement
    if place.node not in slots.open_nodes(tx, {place.node}):
        return None
    [revision] = allocate(tx, 1)
    placed = derive_state(Intent.RUN, None, LaunchFacts(LaunchState.ASSIGNED))
    row = SessionRow(
        **{
            **start.values,
            "created_time": now,
            "revision": revision,
            "timeline": _timeline(now),
            "launch_id": place.launch_id,
            "launch_count": 1,
            "state": placed.state.value,
        }
    )
    _insert(tx, [row])
    begun = slots.take(tx, [SlotClaim(row.session_id, place, now, ahead=True)]).get(place.launch_id)
    if begun is None:
        tx.execute(delete(SESSION).where(SESSION.c.session_id == row.session_id))
    return begun


def end(tx: Transaction, reasons: Mapping[str, tuple[EndReason, str]], *, now: datetime) -> set[str]:
    """Ask for the end of instances, by session id, unless a session has taken them; return their nodes."""
    states = SessionStates.of_sessions(tx, reasons)
    nodes = set()
    for session_id, (reason, message) in reasons.items():
        session = states.session(session_id)
        if session is None or session.pool is None or session.intent != Intent.RUN:
            continue
        states.end(session, reason, message, now=now)
        if (launch := states.launch_of(session)) is not None:
            nodes.add(launch.node)
    states.write()
    return nodes


# How they are handed over


class TakeableInstance(NamedTuple):
    """A warm instance that a session may take."""

    session: SessionRow
    launch: LaunchRow


def takeable(tx: Transaction, shapes: Sequence[str]) -> TakeableInstance | None:
    """Return an instance of one of these shapes that a session may take; locked on Postgres.

    One that is ready goes first, and then the shapes do in their order.
    """
    table = LAUNCH.c
    rank = {shape: number for number, shape in enumerate(shapes)}
    statement = (
        select(SESSION)
        .join(LAUNCH, table.launch_id == SESSION.c.launch_id)
        .join(NODE, NODE.c.node == table.node)
        .where(
            SESSION.c.shape.in_(shapes),
            SESSION.c.ended_time.is_(None),
            SESSION.c.shape.is_not(None),
            SESSION.c.pool.is_not(None),
            SESSION.c.intent == Intent.RUN.value,
            SESSION.c.condition == Condition.OK.value,
            table.ended_time.is_(None),
            table.desired == "RUNNING",
            table.state.in_([LaunchState.READY.value, LaunchState.STARTING.value, LaunchState.ASSIGNED.value]),
            NODE.c.connected,
            NODE.c.reachable,
            NODE.c.cordoned.is_(False),
            NODE.c.draining.is_(False),
        )
        .order_by(
            case((table.state == LaunchState.READY.value, 0), else_=1),
            case(rank, value=SESSION.c.shape),
            table.launch_id,
        )
        .limit(1)
        .with_for_update(of=SESSION, skip_locked=True)
    )
    for row in tx.all(statement, SessionRow):
        for launch in tx.all(select(LAUNCH).where(LAUNCH.c.launch_id == row.launch_id), LaunchRow):
            return TakeableInstance(row, launch)
    return None


def take(
    tx: Transaction, ready: TakeableInstance, values: Mapping[str, Any], *, now: datetime
) -> TakeableInstance | None:
    """Make a warm instance the session with these columns; None where another process was faster."""
    [revision] = allocate(tx, 1)
    taken: dict[str, Any] = {"handed_over_time": now, "taken_up": False, "viewers": None, "ever_connected": False}
    launch = ready.launch._replace(**taken)
    facts = LaunchFacts(LaunchState[launch.state], being_taken=True, message=launch.message)
    derived = derive_state(Intent.RUN, None, facts)
    changes = {
        **{name: value for name, value in values.items() if name not in KEPT},
        "pool": None,
        "from_pool": ready.session.pool,
        "shape": None,
        "created_time": now,
        "updated_time": None,
        "timeline": _timeline(now),
        "queue": {},
        "ready_time": None,
        "state": derived.state.value,
        "status_message": derived.message,
        "revision": revision,
    }
    same = (SESSION.c.session_id == ready.session.session_id, SESSION.c.revision == ready.session.revision)
    if not tx.changed(update(SESSION).where(*same).values(**changes)):
        return None
    tx.execute(update(LAUNCH).where(LAUNCH.c.launch_id == launch.launch_id).values(**taken))
    return TakeableInstance(ready.session._replace(**changes), launch)


def arrivals(tx: Transaction, application: str, profile: str, *, since: datetime) -> list[tuple[datetime, bool]]:
    """Return when sessions of an application with a profile were created since a moment, the newest first.

    With each: whether it took a warm instance.
    """
    statement = (
        select(SESSION.c.created_time, SESSION.c.from_pool)
        .where(
            SESSION.c.application == application,
            SESSION.c.created_time >= since,
            SESSION.c.profile == profile,
            SESSION.c.pool.is_(None),
        )
        .order_by(SESSION.c.created_time.desc())
        .limit(_MOST_ARRIVALS)
    )
    return [(row[0], row[1] is not None) for row in tx.execute(statement)]


_MOST_ARRIVALS = 2000


def _timeline(now: datetime) -> list[list[Any]]:
    return [[stage.value, microseconds(now)] for stage in (Stage.QUEUED, Stage.PLACED)]


_insert = Inserter(SESSION)
