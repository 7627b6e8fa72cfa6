"""Rows to begin with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from footlights import errors, ids
from footlights.lifecycle import EndReason, LaunchState, Phases
from footlights.store import Store, Transaction, applications
from footlights.store.launches import launch_rows
from footlights.store.launches.launch_rows import Observation, PlacementDecision
from footlights.store.launches.slots import ChosenSlots
from footlights.store.nodes import links, node_rows
from footlights.store.nodes.inventory import ReportedDevice
from footlights.store.nodes.links import LinkClosing, LinkOpening
from footlights.store.schema import LAUNCH, LEASE, LaunchRow, LeaseRow, NodeRow, SessionRow
from footlights.store.sessions import create as creating
from footlights.store.sessions import session_rows
from footlights.store.sessions.create import Created, Creation
from footlights.store.sessions.derivation import SessionStates
from footlights.store.sessions.idempotency import Request

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
S = timedelta(seconds=1)
_numbers = itertools.count()


def values(**members: Any) -> dict[str, Any]:
    """What a servicer gives for a new session."""
    return {
        "session_id": ids.new_id(),
        "application": "fake",
        "application_version": "1.0.0",
        "username": "ann",
        "created_by": "ann",
        **members,
    }


def create(tx: Transaction, *, now: datetime = NOW, queue_limit: int = 1000, **members: Any) -> SessionRow:
    """Create a session, and its version where it is missing."""
    creation = creation_of(now=now, queue_limit=queue_limit, **members)
    add_version(tx, creation.values["application"], creation.values["application_version"])
    return create_one(tx, creation).session


def create_one(tx: Transaction, creation: Creation) -> Created:
    """Create one session in a unit of its own; raise what it is refused for."""
    [answer] = creating.create_all(tx, [creation])
    if isinstance(answer, errors.Error):
        raise answer
    return answer


def creation_of(
    *,
    now: datetime = NOW,
    queue_limit: int = 1000,
    request: Request | None = None,
    placement: ChosenSlots | None = None,
    **members: Any,
) -> Creation:
    """What a servicer asks for."""
    return Creation(values(**members), now, queue_limit, request, placement)


def add_version(tx: Transaction, application: str = "fake", version: str = "1.0.0") -> None:
    """Register a version that is not there yet."""
    if applications.version(tx, application, version) is None:
        applications.put(tx, application, "", "", [], now=NOW)
        applications.add_version(tx, application, version, b"", now=NOW)


def join(tx: Transaction, name: str = "node-a", *devices: str, now: datetime = NOW) -> NodeRow:
    """Link a node with devices of two slots each."""
    readings = [ReportedDevice(uuid, 2, b"") for uuid in devices or ("GPU-0",)]
    link(tx, LinkOpening(name, f"incarnation-{next(_numbers)}", b"", readings, now))
    node = node_rows.get(tx, name)
    assert node is not None
    return node


def link(tx: Transaction, opening: LinkOpening) -> int:
    """Open one link; return its epoch."""
    [answer] = links.link_all(tx, [opening])
    if isinstance(answer, errors.Error):
        raise answer
    return answer


def unlink(tx: Transaction, node: str, epoch: int, *, now: datetime) -> bool:
    """Close one link; say whether that changed the node."""
    before = node_rows.get(tx, node)
    links.unlink_all(tx, [LinkClosing(node, epoch, now)])
    return node_rows.get(tx, node) != before


def observe_one(tx: Transaction, node: str, seen: Observation, *, now: datetime) -> LaunchRow | None:
    """Record what a node's agent says of one launch."""
    states = SessionStates.of_launches(tx, [seen.launch_id])
    launch = launch_rows.note(states, node, seen, now=now)
    states.write()
    return launch


@dataclass(frozen=True, slots=True)
class SlotAccount:
    """One session's account, in slot-seconds."""

    leased: float
    spent: Phases

    @property
    def balanced(self) -> bool:
        """Whether leased = starting + used + ending, to the microsecond."""
        return abs(self.leased - self.spent.total) < 1e-6


def account(tx: Transaction, session_id: str, *, now: datetime) -> SlotAccount:
    """Return a session's account; what is still held counts until ``now``."""
    leases = tx.all(select(LEASE).where(LEASE.c.session_id == session_id), LeaseRow)
    launches = tx.all(select(LAUNCH).where(LAUNCH.c.session_id == session_id), LaunchRow)
    leased = sum(
        (max(timedelta(0), (lease.released_time or now) - lease.acquired_time) for lease in leases), timedelta(0)
    )
    return SlotAccount(
        leased.total_seconds(), sum((launch_rows.spent(launch, now=now) for launch in launches), Phases())
    )


def begin(
    tx: Transaction, session: SessionRow, *slots: int, node: str = "node-a", device: str = "GPU-0", now: datetime = NOW
) -> LaunchRow:
    """Place a session."""
    chosen = slots or (0,)
    placement = ChosenSlots(node, device, chosen, ids.new_id(), tuple(ids.new_id() for _ in chosen))
    [answer] = launch_rows.begin(tx, [PlacementDecision(session.session_id, session.revision, placement)], now=now)
    if isinstance(answer, errors.Error):
        raise answer
    return answer


def observe(
    tx: Transaction, launch: LaunchRow, state: LaunchState, *, now: datetime = NOW, node: str = "", **members: Any
) -> LaunchRow:
    """Report on a launch."""
    members = {"epoch": launch.epoch, **members}
    seen = observe_one(tx, node or launch.node, Observation(launch.launch_id, state=state, **members), now=now)
    assert seen is not None
    return seen


def read(tx: Transaction, session_id: str) -> SessionRow:
    """Return a session that is there."""
    found = session_rows.get(tx, session_id)
    assert found is not None
    return found


async def running(store: Store, *slots: int, state: LaunchState = LaunchState.READY) -> tuple[SessionRow, LaunchRow]:
    """Create, place and start a session on a node that is linked for it."""

    def write(tx: Transaction) -> tuple[SessionRow, LaunchRow]:
        if node_rows.get(tx, "node-a") is None:
            join(tx)
        launch = begin(tx, create(tx), *slots)
        if state is not LaunchState.ASSIGNED:
            launch = observe(tx, launch, state)
        return read(tx, launch.session_id), launch

    return await store.write(write)


def end(tx: Transaction, session: SessionRow, reason: EndReason, message: str, *, now: datetime) -> SessionRow:
    """Ask for a session's end."""
    states = SessionStates.of_sessions(tx, [session.session_id])
    known = states.session(session.session_id)
    assert known is not None
    states.end(known, reason, message, now=now)
    states.write()
    return read(tx, session.session_id)
