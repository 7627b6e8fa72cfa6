"""Leader leases: which replica does the work that one does for all, and the fencing token that it writes under."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from footlights.store.bulk import Inserter
from footlights.store.schema import LEADER_LEASE, REPLICA, LeaderLeaseRow

if TYPE_CHECKING:
    from footlights.store.unit import Transaction


def claim(tx: Transaction, work: str, replica: str) -> int | None:
    """Take the lease where no living replica has it; return its new token, or None.

    A claim does not wait for a replica that claims the same lease at this moment: it fails.
    """
    known = tx.one(select(LEADER_LEASE).where(LEADER_LEASE.c.work == work), LeaderLeaseRow)
    if known is None:
        return 1 if _insert(tx, [(work, replica, 1)]) else None
    if known.holder not in ("", replica) and _is_alive(tx, known.holder):
        return None
    found = select(LEADER_LEASE.c.token).where(LEADER_LEASE.c.work == work, LEADER_LEASE.c.token == known.token)
    token = tx.execute(found.with_for_update(skip_locked=True)).scalar_one_or_none()
    if token is None:
        return None
    tx.execute(update(LEADER_LEASE).where(LEADER_LEASE.c.work == work).values(holder=replica, token=token + 1))
    return int(token) + 1


def holds(tx: Transaction, work: str, token: int) -> bool:
    """Say whether ``token`` is still the newest, and keep it so until the transaction ends."""
    found = select(LEADER_LEASE.c.token).where(LEADER_LEASE.c.work == work, LEADER_LEASE.c.token == token)
    return tx.execute(found.with_for_update(read=True)).first() is not None


def _is_alive(tx: Transaction, replica: str) -> bool:
    return tx.execute(select(REPLICA.c.replica).where(REPLICA.c.replica == replica)).first() is not None


_insert = Inserter(LEADER_LEASE, skip_conflicts=True)
