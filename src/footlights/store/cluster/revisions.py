"""Numbers that only grow: the revision of every change to a session, and the cluster's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from footlights import errors
from footlights.store.schema import COUNTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.store.unit import Transaction

_CLUSTER = "cluster"
_KEY = "cluster_key"


def allocate(tx: Transaction, count: int) -> Sequence[int]:
    """Return ``count`` growing numbers, each greater than all before; on SQLite without gaps, in commit order."""
    return tx.engine.next_revisions(tx.connection, count)


def last_revision(tx: Transaction) -> int:
    """Return the greatest revision that was drawn: a greater one is of another database."""
    return tx.engine.last_revision(tx.connection)


def cluster_id(tx: Transaction, candidate: str) -> str:
    """Return this database's cluster id, which is ``candidate`` where it has none yet."""
    known = tx.execute(select(COUNTER.c.text).where(COUNTER.c.name == _CLUSTER)).scalar_one_or_none()
    if known is None:
        tx.execute(insert(COUNTER).values(name=_CLUSTER, value=0, text=candidate))
        return candidate
    return str(known)


def check_key(tx: Transaction, fingerprints: Sequence[str]) -> str:
    """Return the fingerprint of the key that the database is sealed with: one of ``fingerprints``, the current first.

    A new database is that of the current key. Raises FailedPrecondition where it is sealed with another key.
    """
    known = tx.execute(select(COUNTER.c.text).where(COUNTER.c.name == _KEY)).scalar_one_or_none()
    if known is None:
        tx.execute(insert(COUNTER).values(name=_KEY, value=0, text=fingerprints[0]))
        return fingerprints[0]
    if known not in fingerprints:
        raise errors.FailedPrecondition(
            f"The database is sealed with the cluster key {known}, which this server lacks: no secret in it could be "
            "read. Give all replicas the same FOOTLIGHTS_CLUSTER_KEY, or copy cluster.key into their data directories.",
            reason=errors.LocalReason.CLUSTER_KEY_DIFFERS,
        )
    return str(known)


def noted_key(tx: Transaction) -> str:
    """Return the fingerprint of the key that the database is sealed with; empty where it has none yet."""
    return str(tx.execute(select(COUNTER.c.text).where(COUNTER.c.name == _KEY)).scalar_one_or_none() or "")


def note_key(tx: Transaction, fingerprint: str) -> None:
    """Record that everything is sealed with another key of the ring."""
    tx.execute(update(COUNTER).where(COUNTER.c.name == _KEY).values(text=fingerprint))
