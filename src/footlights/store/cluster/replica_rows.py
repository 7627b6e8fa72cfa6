"""Replicas: who they are and which of them are alive.

A replica is alive while its ``beat`` grows. Each observer measures with its own clock for how long it has not, so no
two machines' clocks are compared. An observer that finds a replica gone removes it, which frees its leader leases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update

from footlights.store.bulk import Inserter
from footlights.store.schema import LEADER_LEASE, NODE, REPLICA, ReplicaRow, microseconds, moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class ActiveGuard:
    """Why the mass-loss guard of a replica is active, and since when."""

    cause: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where other replicas reach one."""

    plain: str = ""
    """Its gRPC, ``HOST:PORT``; empty where that is not known."""
    mutual: str | None = None
    """The listener that it has for replicas alone, where both sides prove themselves by certificates; None: none."""


def join(
    tx: Transaction, replica: str, *, roles: Sequence[str], address: PeerAddress, version: str, now: datetime
) -> None:
    """Record that a replica has started, or started again: what it held before is free."""
    leave(tx, replica)
    row = ReplicaRow(
        replica=replica,
        roles=list(roles),
        peer_address=address.plain,
        version=version,
        beat=1,
        brake=[],
        started_time=now,
        mutual_address=address.mutual,
        cluster_key=None,
    )
    _insert(tx, [row])


def everyone(tx: Transaction) -> list[ReplicaRow]:
    """Return all replicas, by id."""
    return tx.all(select(REPLICA).order_by(REPLICA.c.replica), ReplicaRow)


def address_of_hub(tx: Transaction, node: str) -> tuple[str, PeerAddress]:
    """Return which replica has a node's link, and where it is reached; empty where none has it."""
    statement = (
        select(REPLICA.c.replica, REPLICA.c.peer_address, REPLICA.c.mutual_address)
        .join(NODE, NODE.c.hub == REPLICA.c.replica)
        .where(NODE.c.node == node, NODE.c.hub_epoch == NODE.c.epoch, NODE.c.connected)
    )
    found = tx.execute(statement).first()
    return ("", PeerAddress()) if found is None else (str(found[0]), PeerAddress(str(found[1]), found[2]))


def beat(tx: Transaction, replica: str, *, guard: ActiveGuard | None = None, cluster_key: str | None = None) -> bool:
    """Record that a replica is alive, its active guard, and the fingerprint of its key.

    Return False where it was taken for gone and removed.
    """
    values = [] if guard is None else [guard.cause, guard.message, microseconds(guard.since)]
    statement = update(REPLICA).where(REPLICA.c.replica == replica)
    return bool(tx.changed(statement.values(beat=REPLICA.c.beat + 1, brake=values, cluster_key=cluster_key)))


def active_guard(tx: Transaction) -> ActiveGuard | None:
    """Return the mass-loss guard that has been active longest on any replica."""
    active = [ActiveGuard(row.brake[0], row.brake[1], moment(row.brake[2])) for row in everyone(tx) if row.brake]
    return min(active, key=lambda each: each.since, default=None)


def leave(tx: Transaction, replica: str, *, beat: int | None = None) -> bool:
    """Remove a replica: its leases are free, and nothing is placed on its nodes until they have a link again.

    Where ``beat``, the last one that was seen, is given and has grown since, the replica stays: False.
    """
    statement = delete(REPLICA).where(REPLICA.c.replica == replica)
    if beat is not None and not tx.changed(statement.where(REPLICA.c.beat == beat)):
        return False
    tx.execute(statement)
    tx.execute(update(LEADER_LEASE).where(LEADER_LEASE.c.holder == replica).values(holder=""))
    linked = update(NODE).where(NODE.c.hub == replica, NODE.c.hub_epoch == NODE.c.epoch, NODE.c.connected)
    tx.execute(linked.values(connected=False))
    return True


_insert = Inserter(REPLICA)
