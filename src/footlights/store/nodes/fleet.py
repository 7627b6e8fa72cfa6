"""The fleet as the scheduler reads it: nodes with their devices and leases, in a few statements for all."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, delete, func, select

from footlights.store.bulk import Inserter
from footlights.store.schema import DEVICE, LAUNCH, LEASE, NODE, SESSION, WARM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One node. Two that are equal are placed on alike."""

    node: str
    connected: bool
    cordoned: bool
    draining: bool
    facts: bytes
    """The serialized ``footlights.v1.NodeFacts``."""
    devices: tuple[tuple[str, int, bytes], ...]
    """(uuid, slots, the serialized ``footlights.v1.Device``), in a fixed order."""
    leased: frozenset[tuple[str, int]]
    """(device uuid, slot) of every lease that is held."""
    launches: int
    """How many have not ended."""
    warm: frozenset[tuple[str, str]]
    """(application, version) of what has become ready there before."""
    created_time: datetime
    """When it was first seen."""
    needs: frozenset[tuple[str, int, bytes]] = frozenset()
    """(device uuid, first slot, the serialized ``footlights.v1.Needs`` of the session) of every launch with slots."""
    acceptance: str | None = None
    """Why it has to be accepted first; None where it is."""


def members(tx: Transaction, names: Sequence[str] | None = None) -> list[FleetNode]:
    """Return some nodes, or all, by name."""

    def among(column: Any) -> list[ColumnElement[bool]]:
        return [] if names is None else [column.in_(names)]

    table = NODE.c
    columns = (
        table.node,
        table.connected,
        table.cordoned,
        table.draining,
        table.facts,
        table.acceptance,
        table.created_time,
    )
    rows = tx.execute(select(*columns).where(*among(table.node)).order_by(table.node)).all()
    devices: defaultdict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
    each = select(DEVICE.c.node, DEVICE.c.uuid, DEVICE.c.slots, DEVICE.c.reading).where(*among(DEVICE.c.node))
    for node, uuid, slots, reading in tx.execute(each.order_by(DEVICE.c.node, DEVICE.c.uuid)):
        devices[node].append((uuid, slots, reading))
    leased: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    held = select(LEASE.c.node, LEASE.c.device, LEASE.c.slot).where(LEASE.c.released_time.is_(None))
    for node, device, slot in tx.execute(held.where(*among(LEASE.c.node))):
        leased[node].add((device, slot))
    living = select(LAUNCH.c.node, func.count()).where(LAUNCH.c.ended_time.is_(None), *among(LAUNCH.c.node))
    launches = Counter({row[0]: int(row[1]) for row in tx.execute(living.group_by(LAUNCH.c.node))})
    warm: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for node, application, version in tx.execute(select(*WARM_KEY).where(*among(WARM.c.node))):
        warm[node].add((application, version))
    needs = held_needs(tx, names)
    return [
        FleetNode(
            node,
            connected,
            cordoned,
            draining,
            facts,
            tuple(devices[node]),
            frozenset(leased[node]),
            launches[node],
            frozenset(warm[node]),
            created_time,
            frozenset(needs[node]),
            acceptance,
        )
        for node, connected, cordoned, draining, facts, acceptance, created_time in rows
    ]


def held_needs(tx: Transaction, names: Sequence[str] | None = None) -> defaultdict[str, list[tuple[str, int, bytes]]]:
    """Return (device uuid, first slot, needs) of every launch that holds slots, by node; of some nodes, or of all."""
    held = (
        select(LAUNCH.c.node, LAUNCH.c.device, LAUNCH.c.slots, SESSION.c.needs)
        .join(SESSION, SESSION.c.session_id == LAUNCH.c.session_id)
        .where(LAUNCH.c.ended_time.is_(None), *([] if names is None else [LAUNCH.c.node.in_(names)]))
    )
    found: defaultdict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
    for node, device, slots, needs in tx.execute(held):
        if slots and needs:
            found[node].append((device, slots[0], needs))
    return found


def warmed(tx: Transaction, ready: Mapping[tuple[str, str, str], datetime]) -> None:
    """Record which versions became ready where and when, by (node, application, version); the first time stays."""
    # In one order everywhere, so that two replicas never deadlock.
    _insert_warm(tx, [(*key, now) for key, now in sorted(ready.items())])


def forget(tx: Transaction, nodes: Iterable[str]) -> None:
    """Remove the warm versions of nodes that will not come back."""
    tx.execute(delete(WARM).where(WARM.c.node.in_(list(nodes))))


_insert_warm = Inserter(WARM, skip_conflicts=True)
WARM_KEY = (WARM.c.node, WARM.c.application, WARM.c.application_version)
