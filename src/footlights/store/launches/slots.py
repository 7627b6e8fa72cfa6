"""Slots: how launches take them, whoever chose them. Each lease is decided by the database, by its unique index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, select

from footlights.store.bulk_insert import Inserter, Rows
from footlights.store.schema import LAUNCH, LEASE, NODE, Launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class Placement:
    """Slots that were chosen for a session before it was written."""

    node: str
    device: str
    slots: tuple[int, ...]
    launch_id: str
    lease_ids: tuple[str, ...]
    """One a slot."""


@dataclass(frozen=True, slots=True)
class Taking:
    """A session, whose row is there, that is to get the slots of a placement."""

    session_id: str
    placement: Placement
    now: datetime


def open_nodes(tx: Transaction, nodes: Iterable[str]) -> set[str]:
    """Return those of some nodes that take sessions at this moment."""
    return set(tx.execute(_OPEN, {"nodes": list(nodes)}).scalars())


def take(tx: Transaction, takings: Sequence[Taking]) -> Mapping[str, Launch]:
    """Begin a launch for each with all of its slots; return the launches that were begun, by id.

    Of a launch that is not among them, because one of its slots is leased, nothing is left behind.
    """
    launches, leases = {}, []
    for taking in takings:
        found = taking.placement
        launches[found.launch_id] = _launches.new(
            {
                "launch_id": found.launch_id,
                "session_id": taking.session_id,
                "node": found.node,
                "device": found.device,
                "slots": list(found.slots),
                "created_time": taking.now,
            }
        )
        leases += [
            (lease_id, found.launch_id, taking.session_id, found.node, found.device, slot, taking.now, None)
            for lease_id, slot in zip(found.lease_ids, found.slots, strict=True)
        ]
    _insert_launches(tx, launches.values())
    # In one order everywhere, so that two replicas never wait for each other's slots crosswise.
    leases.sort(key=lambda lease: lease[3:6])
    if _insert_leases(tx, leases) < len(leases):
        for lost in _take_back(tx, [taking.placement for taking in takings]):
            del launches[lost]
    return launches


def _take_back(tx: Transaction, placements: Sequence[Placement]) -> set[str]:
    """Remove what was written of the placements that did not get all of their slots; return their launches."""
    ids = [found.launch_id for found in placements]
    held = select(LEASE.c.launch_id, func.count()).where(LEASE.c.launch_id.in_(ids)).group_by(LEASE.c.launch_id)
    counts: dict[str, int] = {row[0]: row[1] for row in tx.execute(held)}
    lost = {found.launch_id for found in placements if counts.get(found.launch_id, 0) < len(found.slots)}
    tx.execute(delete(LEASE).where(LEASE.c.launch_id.in_(lost)))
    tx.execute(delete(LAUNCH).where(LAUNCH.c.launch_id.in_(lost)))
    return lost


_launches = Rows(Launch, LAUNCH)
_insert_launches, _insert_leases = Inserter(LAUNCH), Inserter(LEASE, skip_conflicts=True)
_OPEN = select(NODE.c.node).where(
    NODE.c.node.in_(bindparam("nodes", expanding=True)),
    NODE.c.connected,
    NODE.c.reachable,
    NODE.c.cordoned.is_(False),
    NODE.c.draining.is_(False),
)
