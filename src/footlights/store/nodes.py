"""Nodes and their devices. What is observed is written by the link alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from footlights.lifecycle import LaunchState
from footlights.store import history, launches, sessions
from footlights.store.launches import Observation
from footlights.store.store import Transaction
from footlights.store.tables import DEVICE, LAUNCH, LEASE, NODE, Device, Lease, Node, microseconds


@dataclass(frozen=True, slots=True)
class Reading:
    """A device as its agent reports it; ``reading`` is the serialized ``footlights.v1.Device``."""

    uuid: str
    slots: int
    reading: bytes
    sick: bool = False
    """Whether it cannot be used."""
    reason: str = ""
    message: str = ""


def get(tx: Transaction, node: str) -> Node | None:
    """Return one node."""
    return tx.one(select(NODE).where(NODE.c.node == node), Node)


def everyone(tx: Transaction) -> list[Node]:
    """Return all nodes, by name."""
    return tx.all(select(NODE).order_by(NODE.c.node), Node)


def devices(tx: Transaction, node: str | None = None) -> list[Device]:
    """Return the devices of one node or of all, by node and in the agent's order."""
    statement = select(DEVICE).order_by(DEVICE.c.node, DEVICE.c.uuid)
    return tx.all(statement if node is None else statement.where(DEVICE.c.node == node), Device)


def live_launch_counts(tx: Transaction) -> dict[str, int]:
    """Return how many launches that have not ended each node has."""
    rows = tx.execute(select(LAUNCH.c.node, func.count()).where(LAUNCH.c.ended_time.is_(None)).group_by(LAUNCH.c.node))
    return {row[0]: int(row[1]) for row in rows}


def live_leases(tx: Transaction, node: str) -> list[Lease]:
    """Return the leases that are held on a node."""
    return tx.all(select(LEASE).where(LEASE.c.node == node, LEASE.c.released_time.is_(None)), Lease)


def link(
    tx: Transaction, node: str, incarnation: str, facts: bytes, readings: Sequence[Reading], *, now: datetime
) -> Node:
    """Record that an agent has opened its link: a new epoch begins, and older links are void."""
    known = get(tx, node)
    values: dict[str, Any] = {
        "incarnation": incarnation,
        "facts": facts,
        "connected": True,
        "reachable": True,
        "connected_time": now,
        "last_seen_time": now,
    }
    if known is None:
        tx.execute(insert(NODE), [Node(node=node, epoch=1, created_time=now, **values).model_dump()])
    else:
        tx.execute(update(NODE).where(NODE.c.node == node).values(epoch=known.epoch + 1, **values))
    set_devices(tx, node, readings, now=now)
    _resettle_all(tx, node, now)
    linked = get(tx, node)
    assert linked is not None
    return linked


def set_devices(tx: Transaction, node: str, readings: Sequence[Reading], *, now: datetime) -> None:
    """Replace what is known of a node's devices; what becomes sick, or well again, goes into their history."""
    known = {row.uuid: row.sick for row in devices(tx, node)}
    gone = known.keys() - {reading.uuid for reading in readings}
    if gone:
        tx.execute(delete(DEVICE).where(DEVICE.c.node == node, DEVICE.c.uuid.in_(gone)))
    for reading in readings:
        values = {"slots": reading.slots, "reading": reading.reading, "sick": reading.sick}
        if reading.sick and not known.get(reading.uuid):
            history.record(tx, node, reading.uuid, reading.reason or "UNHEALTHY", reading.message, now=now)
        elif not reading.sick and (known[reading.uuid] if reading.uuid in known else _was_sick(tx, node, reading)):
            history.record(tx, node, reading.uuid, history.RECOVERED, "It reads well again.", now=now)
        if reading.uuid in known:
            tx.execute(update(DEVICE).where(DEVICE.c.node == node, DEVICE.c.uuid == reading.uuid).values(**values))
        else:
            tx.execute(insert(DEVICE).values(node=node, uuid=reading.uuid, **values))
        known[reading.uuid] = reading.sick


def set_facts(tx: Transaction, node: str, facts: bytes) -> None:
    """Replace the facts of a node."""
    tx.execute(update(NODE).where(NODE.c.node == node).values(facts=facts))


def unlink(tx: Transaction, node: str, epoch: int, *, now: datetime) -> bool:
    """Record that a link has ended, unless a newer one has begun."""
    return bool(
        tx.changed(
            update(NODE).where(NODE.c.node == node, NODE.c.epoch == epoch).values(connected=False, last_seen_time=now)
        )
    )


def disconnect_all(tx: Transaction) -> int:
    """Record that no link is open: at the start of a server, before the first agent has come back."""
    return tx.changed(update(NODE).where(NODE.c.connected).values(connected=False))


def seen(tx: Transaction, node: str, epoch: int, *, now: datetime) -> None:
    """Record that a node was heard."""
    tx.execute(update(NODE).where(NODE.c.node == node, NODE.c.epoch == epoch).values(last_seen_time=now))


def set_silent(tx: Transaction, node: str, epoch: int, *, now: datetime) -> bool:
    """Record that a node was not heard for too long, unless it has a newer link by now; its sessions show it."""
    met = tx.changed(update(NODE).where(NODE.c.node == node, NODE.c.epoch == epoch).values(reachable=False))
    if met:
        _resettle_all(tx, node, now)
    return bool(met)


def notice(tx: Transaction, node: str, reason: str, message: str, *, now: datetime) -> None:
    """Record what an operator should know of a node; of one reason the last is kept."""
    row = get(tx, node)
    if row is not None:
        notices = {**row.notices, reason: [message, microseconds(now)]}
        tx.execute(update(NODE).where(NODE.c.node == node).values(notices=notices))


def set_placing(
    tx: Transaction, node: str, *, cordoned: bool, draining: bool, drain_time: datetime | None, now: datetime
) -> None:
    """Take a node out of use, or back; its sessions say when a drain will end them."""
    tx.execute(
        update(NODE).where(NODE.c.node == node).values(cordoned=cordoned, draining=draining, drain_time=drain_time)
    )
    _resettle_all(tx, node, now)


def forget(tx: Transaction, node: str, *, now: datetime) -> int:
    """Remove a node that will not come back; its sessions end as NODE_LOST. Return how many."""
    ended = 0
    for launch, _ in launches.live_on(tx, node):
        lost = Observation(
            launch.launch_id,
            launch.epoch,
            LaunchState.LOST,
            reason="NODE_FORGOTTEN",
            message=f"An operator said that node {node} will not come back.",
        )
        launches.observe(tx, node, lost, now=now)
        ended += 1
    history.forget(tx, node)
    tx.execute(delete(DEVICE).where(DEVICE.c.node == node))
    tx.execute(delete(NODE).where(NODE.c.node == node))
    return ended


def _was_sick(tx: Transaction, node: str, reading: Reading) -> bool:
    last = history.last(tx, node, reading.uuid)
    return last is not None and last.reason != history.RECOVERED


def _resettle_all(tx: Transaction, node: str, now: datetime) -> None:
    for session in sessions.live_on(tx, node):
        sessions.resettle(tx, session.session_id, now=now)
