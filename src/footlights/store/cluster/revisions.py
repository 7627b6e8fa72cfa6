"""Numbers that only grow: the revision of every change to a session, and the cluster's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

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


def check_key(tx: Transaction, fingerprint: str) -> None:
    """Compare the cluster key's fingerprint with the database's; the first one is kept.

    Raises FailedPrecondition where the database was created with another key.
    """
    known = tx.execute(select(COUNTER.c.text).where(COUNTER.c.name == _KEY)).scalar_one_or_none()
    if known is None:
        tx.execute(insert(COUNTER).values(name=_KEY, value=0, text=fingerprint))
    elif known != fingerprint:
        raise errors.FailedPrecondition(
            "The cluster key differs from the one that the database was created with: no token and no secret in it "
            "could be read. Give all replicas the same FOOTLIGHTS_CLUSTER_KEY, or copy cluster.key into their data "
            "directories.",
            reason=errors.LocalReason.CLUSTER_KEY_DIFFERS,
        )
