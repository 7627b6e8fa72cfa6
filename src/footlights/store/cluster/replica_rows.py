"""Replicas: who they are, and the work that one of them does for all.

A replica lives while its ``beat`` grows; whoever watches measures on a clock of its own for how long it has not, so no
two machines' clocks are compared. Whoever finds one gone removes it, and its work is nobody's. A claim skips
what another replica is claiming at this moment (``FOR UPDATE SKIP LOCKED``) and draws a greater token, which guards
whatever is written under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from footlights.store.bulk_insert import Inserter
from footlights.store.schema import NODE, REPLICA, WORK, Replica, Work, microseconds, moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.store import Transaction


@dataclass(frozen=True, slots=True)
class Brake:
    """Why the reaping of a replica pauses, and since when."""

    cause: str
    message: str
    since: datetime


def join(
    tx: Transaction, replica: str, *, roles: Sequence[str], peer_address: str, version: str, now: datetime
) -> None:
    """Record that a replica has begun, or begun again: what it held before is nobody's."""
    leave(tx, replica)
    row = Replica(
        replica=replica,
        roles=list(roles),
        peer_address=peer_address,
        version=version,
        beat=1,
        started_time=now,
    )
    tx.execute(insert(REPLICA), [row.model_dump()])


def everyone(tx: Transaction) -> list[Replica]:
    """Return all replicas, by id."""
    return tx.all(select(REPLICA).order_by(REPLICA.c.replica), Replica)


def address_of_hub(tx: Transaction, node: str) -> tuple[str, str]:
    """Return which replica has a node's link, and where its gRPC is reached; empty where nobody has it."""
    statement = (
        select(REPLICA.c.replica, REPLICA.c.peer_address)
        .join(NODE, NODE.c.hub == REPLICA.c.replica)
        .where(NODE.c.node == node, NODE.c.hub_epoch == NODE.c.epoch, NODE.c.connected)
    )
    found = tx.execute(statement).first()
    return ("", "") if found is None else (str(found[0]), str(found[1]))


def beat(tx: Transaction, replica: str, *, brake: Brake | None = None) -> bool:
    """Record that a replica lives, and whether its reaping pauses; False where it was taken for gone and removed."""
    held = [] if brake is None else [brake.cause, brake.message, microseconds(brake.since)]
    statement = update(REPLICA).where(REPLICA.c.replica == replica)
    return bool(tx.changed(statement.values(beat=REPLICA.c.beat + 1, brake=held)))


def brake(tx: Transaction) -> Brake | None:
    """Return why the reaping of some replica pauses: that which has held longest."""
    held = [Brake(row.brake[0], row.brake[1], moment(row.brake[2])) for row in everyone(tx) if row.brake]
    return min(held, key=lambda each: each.since, default=None)


def leave(tx: Transaction, replica: str, *, beat: int | None = None) -> bool:
    """Remove a replica: its work is nobody's, and nothing is placed on its nodes until they have a link again.

    Args:
        tx: The transaction.
        replica: The replica.
        beat: Where it is taken for gone, its last known beat: it stays where it has lived since.
    """
    statement = delete(REPLICA).where(REPLICA.c.replica == replica)
    if beat is not None and not tx.changed(statement.where(REPLICA.c.beat == beat)):
        return False
    tx.execute(statement)
    tx.execute(update(WORK).where(WORK.c.holder == replica).values(holder=""))
    linked = update(NODE).where(NODE.c.hub == replica, NODE.c.hub_epoch == NODE.c.epoch, NODE.c.connected)
    tx.execute(linked.values(connected=False))
    return True


def claim(tx: Transaction, work: str, replica: str) -> int | None:
    """Take work that nobody holds; return its token, or None where a replica has it, that has not been removed."""
    known = tx.one(select(WORK).where(WORK.c.work == work), Work)
    if known is None:
        return 1 if _insert_work(tx, [(work, replica, 1)]) else None
    if known.holder not in ("", replica) and _is_known(tx, known.holder):
        return None
    found = select(WORK.c.token).where(WORK.c.work == work, WORK.c.token == known.token)
    token = tx.execute(found.with_for_update(skip_locked=True)).scalar_one_or_none()
    if token is None:
        return None
    tx.execute(update(WORK).where(WORK.c.work == work).values(holder=replica, token=token + 1))
    return int(token) + 1


def holds(tx: Transaction, work: str, token: int) -> bool:
    """Say whether ``token`` is still the newest, and keep it so until the transaction ends."""
    found = select(WORK.c.token).where(WORK.c.work == work, WORK.c.token == token)
    return tx.execute(found.with_for_update(read=True)).first() is not None


def _is_known(tx: Transaction, replica: str) -> bool:
    return tx.execute(select(REPLICA.c.replica).where(REPLICA.c.replica == replica)).first() is not None


_insert_work = Inserter(WORK, skip_conflicts=True)
