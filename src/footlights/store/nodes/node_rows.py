"""Nodes and their devices. Only a node's link writes what is observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, case, delete, select, tuple_, update

from footlights.lifecycle import LaunchState
from footlights.store.launches import launch_rows
from footlights.store.launches.launch_rows import Observation
from footlights.store.nodes import device_history, fleet
from footlights.store.schema import DEVICE, LAUNCH, LEASE, NODE, DeviceRow, LeaseRow, NodeRow, microseconds
from footlights.store.sessions import session_rows
from footlights.store.sessions.derivation import SessionStates

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction


def get(tx: Transaction, node: str, *, lock: bool = False) -> NodeRow | None:
    """Return one node; with ``lock`` no other transaction changes it before this one ends."""
    statement = select(NODE).where(NODE.c.node == node)
    return tx.one(statement.with_for_update(key_share=True) if lock else statement, NodeRow)


def some(tx: Transaction, names: Sequence[str]) -> dict[str, NodeRow]:
    """Return some nodes, by name."""
    return {row.node: row for row in tx.all(select(NODE).where(NODE.c.node.in_(names)), NodeRow)}


@dataclass(frozen=True, slots=True)
class LivingLaunch:
    """A launch that has not ended."""

    launch_id: str
    state: str


def living(tx: Transaction, names: Sequence[str]) -> dict[str, list[LivingLaunch]]:
    """Return what has not ended on some nodes, by node."""
    columns = (LAUNCH.c.node, LAUNCH.c.launch_id, LAUNCH.c.state)
    found: dict[str, list[LivingLaunch]] = {}
    for node, launch_id, state in tx.execute(
        select(*columns).where(LAUNCH.c.node.in_(names), LAUNCH.c.ended_time.is_(None))
    ):
        found.setdefault(node, []).append(LivingLaunch(launch_id, state))
    return found


def page(tx: Transaction, after: str, limit: int) -> Readable[NodeRow]:
    """Return up to ``limit`` nodes whose name comes after ``after``, by name."""
    return tx.readable(select(NODE).where(NODE.c.node > after).order_by(NODE.c.node).limit(limit), NodeRow)


def draining(tx: Transaction) -> list[NodeRow]:
    """Return the nodes that are being drained, by name."""
    return tx.all(select(NODE).where(NODE.c.draining).order_by(NODE.c.node), NodeRow)


def devices(tx: Transaction, names: Collection[str]) -> list[DeviceRow]:
    """Return the devices of some nodes, by node and in the agent's order."""
    mine = select(DEVICE).where(DEVICE.c.node.in_(names))
    return tx.all(mine.order_by(DEVICE.c.node, DEVICE.c.uuid), DeviceRow)


def facts(tx: Transaction, names: Collection[str]) -> dict[str, bytes]:
    """Return the facts of some nodes."""
    if not names:
        return {}
    found = tx.execute(select(NODE.c.node, NODE.c.facts).where(NODE.c.node.in_(names)))
    return {row[0]: row[1] for row in found}


def readings(tx: Transaction, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the readings of some devices, each given as (node, device uuid)."""
    if not wanted:
        return {}
    key = DEVICE.c.node, DEVICE.c.uuid
    found = tx.execute(select(*key, DEVICE.c.reading).where(tuple_(*key).in_(wanted)))
    return {(row[0], row[1]): row[2] for row in found}


class NodeStanding(NamedTuple):
    """Whether a node can be used."""

    node: str
    reachable: bool
    draining: bool
    cordoned: bool
    acceptance: str | None


def standings(tx: Transaction) -> list[NodeStanding]:
    """Return of every node whether it can be used."""
    table = NODE.c
    columns = (table.node, table.reachable, table.draining, table.cordoned, table.acceptance)
    return tx.all(select(*columns), NodeStanding)


def capacities(tx: Transaction) -> list[tuple[str, str, int, bool, bytes]]:
    """Return of every device its node, its uuid, its slots, whether it is sick, and its reading."""
    table = DEVICE.c
    found = tx.execute(select(table.node, table.uuid, table.slots, table.sick, table.reading))
    return [(node, uuid, slots, sick, reading) for node, uuid, slots, sick, reading in found]


def reporting(tx: Transaction, uuids: Sequence[str]) -> dict[str, set[str]]:
    """Return which nodes report some devices, by uuid."""
    found: dict[str, set[str]] = {}
    for first in range(0, len(uuids), _AT_ONCE):
        some = DEVICE.c.uuid.in_(uuids[first : first + _AT_ONCE])
        for uuid, node in tx.execute(select(DEVICE.c.uuid, DEVICE.c.node).where(some)):
            found.setdefault(uuid, set()).add(node)
    return found


_AT_ONCE = 5000
"""How many values a statement takes, on every engine."""


def live_leases(tx: Transaction, names: Collection[str]) -> list[LeaseRow]:
    """Return the leases that are held on some nodes."""
    return tx.all(select(LEASE).where(LEASE.c.node.in_(names), LEASE.c.released_time.is_(None)), LeaseRow)


def set_facts(tx: Transaction, node: str, facts: bytes) -> None:
    """Replace the facts of a node."""
    tx.execute(update(NODE).where(NODE.c.node == node).values(facts=facts))


def disconnect_all(tx: Transaction) -> int:
    """Record that no link is open: at the start of the only server, before the first agent has come back."""
    return tx.changed(update(NODE).where(NODE.c.connected).values(connected=False))


def reclaim(tx: Transaction, node: str, epoch: int, hub: str, *, now: datetime) -> bool:
    """Record that a link is open although its replica was taken for gone, or its node for silent.

    False where a newer link has begun.
    """
    mine = update(NODE).where(NODE.c.node == node, NODE.c.epoch == epoch)
    met = tx.changed(mine.values(connected=True, reachable=True, hub=hub, hub_epoch=epoch, last_seen_time=now))
    if met:
        derive_all(tx, node, now)
    return bool(met)


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """What is known of a node's link."""

    node: str
    hub: str | None
    """The replica that has its newest link, or had it; None where that is a version without replicas."""
    epoch: int
    connected: bool
    reachable: bool
    last_seen_time: datetime | None


def link_statuses(tx: Transaction) -> list[LinkStatus]:
    """Return what is known of every node's link, by name."""
    table = NODE.c
    hub = case((table.hub_epoch == table.epoch, table.hub))
    columns = (table.node, hub, table.epoch, table.connected, table.reachable, table.last_seen_time)
    return [LinkStatus(*row) for row in tx.execute(select(*columns).order_by(table.node))]


def seen(tx: Transaction, heard: Sequence[tuple[str, int]], *, now: datetime) -> None:
    """Record heartbeats, each over the link of an epoch."""
    statement = (
        update(NODE)
        .where(NODE.c.node == bindparam("of_node"), NODE.c.epoch == bindparam("of_epoch"))
        .values(last_seen_time=bindparam("moment"))
    )
    tx.execute(statement, [{"of_node": node, "of_epoch": epoch, "moment": now} for node, epoch in heard])


def set_silent(tx: Transaction, node: str, epoch: int, *, now: datetime) -> bool:
    """Record that a node's heartbeats have stopped, unless it has a newer link by now; its sessions show it.

    Its link is no longer counted either, so that an operator may forget the node.
    """
    mine = update(NODE).where(NODE.c.node == node, NODE.c.epoch == epoch)
    met = tx.changed(mine.values(reachable=False, connected=False))
    if met:
        derive_all(tx, node, now)
    return bool(met)


def derive_all(tx: Transaction, node: str, now: datetime) -> None:
    """Derive the states of all sessions on a node again."""
    session_rows.derive(tx, session_rows.live_on(tx, node), now=now)


def notice(tx: Transaction, node: str, reason: str, message: str, *, now: datetime) -> None:
    """Record what an operator should know of a node; the last of each reason is kept."""
    row = get(tx, node)
    if row is not None:
        notices = {**row.notices, reason: [message, microseconds(now)]}
        tx.execute(update(NODE).where(NODE.c.node == node).values(notices=notices))


@dataclass(frozen=True, slots=True)
class NodeScheduling:
    """What is wanted of a node: whether it takes sessions, since when not, and why."""

    cordoned: bool = False
    draining: bool = False
    drain_time: datetime | None = None
    message: str = ""
    subject: str = ""
    since: datetime | None = None
    """None where it is not cordoned, or that is not known."""


def scheduling(row: NodeRow) -> NodeScheduling:
    """Return what is wanted of a node."""
    if not (row.cordoned or row.draining):
        # What an older server leaves when it uncordons a node.
        return NodeScheduling()
    return NodeScheduling(
        row.cordoned, row.draining, row.drain_time, row.cordon_message or "", row.cordon_subject or "", row.cordon_time
    )


def set_scheduling(tx: Transaction, node: str, wanted: NodeScheduling, *, now: datetime) -> None:
    """Take a node out of use, or back; its sessions say when a drain will end them."""
    values = {
        "cordoned": wanted.cordoned,
        "draining": wanted.draining,
        "drain_time": wanted.drain_time,
        "cordon_message": wanted.message or None,
        "cordon_subject": wanted.subject or None,
        "cordon_time": wanted.since,
    }
    tx.execute(update(NODE).where(NODE.c.node == node).values(values))
    derive_all(tx, node, now)


def forget(tx: Transaction, node: str, *, now: datetime) -> int:
    """Remove a node that will not come back; its sessions end as NODE_LOST. Return how many.

    Raises FailedPrecondition where one of them belongs to a replica of a later release.
    """
    message = f"An operator said that node {node} will not come back."
    found = launch_rows.live_on(tx, node)
    running = [launch for launch, _ in found]
    states = SessionStates.of_launches(tx, [launch.launch_id for launch in running])
    for launch in running:
        states.refuse(launch.session_id)
        lost = Observation(launch.launch_id, launch.epoch, LaunchState.LOST, reason="NODE_FORGOTTEN", message=message)
        launch_rows.note(states, node, lost, now=now)
    states.write()
    device_history.forget(tx, node)
    fleet.forget(tx, [node])
    tx.execute(delete(DEVICE).where(DEVICE.c.node == node))
    tx.execute(delete(NODE).where(NODE.c.node == node))
    return sum(session.pool is None for _, session in found)
