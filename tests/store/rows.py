"""Rows to begin with."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from footlights import errors, ids
from footlights.lifecycle import LaunchState
from footlights.store import Store, Transaction, applications
from footlights.store.launches import launch_rows
from footlights.store.launches.launch_rows import Observation, PlacementDecision
from footlights.store.launches.slots import ChosenSlots
from footlights.store.nodes import links, node_rows
from footlights.store.nodes.inventory import ReportedDevice
from footlights.store.nodes.links import LinkOpening
from footlights.store.schema import LaunchRow, NodeRow, SessionRow
from footlights.store.sessions import create as creating
from footlights.store.sessions import session_rows
from footlights.store.sessions.create import Creation
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
    return creating.create(tx, creation).session


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
    links.link(tx, LinkOpening(name, f"incarnation-{next(_numbers)}", b"", readings, now))
    node = node_rows.get(tx, name)
    assert node is not None
    return node


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
    seen = launch_rows.observe(tx, node or launch.node, Observation(launch.launch_id, state=state, **members), now=now)
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
