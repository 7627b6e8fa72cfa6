"""Numbers that only grow: the revision of every change to a session, and the cluster's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, insert, select, update

from footlights import errors
from footlights.store.schema import COUNTER, SESSION, revisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.store.store import Transaction

_REVISION = "revision"
_CLUSTER = "cluster"
_KEY = "cluster_key"
_NEXT = select(revisions.next_value()).select_from(func.generate_series(1, bindparam("count")))
_BUMP = (
    update(COUNTER)
    .where(COUNTER.c.name == _REVISION)
    .values(value=COUNTER.c.value + bindparam("count"))
    .returning(COUNTER.c.value)
)


def next_revision(tx: Transaction) -> int:
    """Return a number greater than every one before it; on SQLite also without gaps, in commit order."""
    [revision] = allocate(tx, 1)
    return revision


def allocate(tx: Transaction, count: int) -> Sequence[int]:
    """Return ``count`` revisions, growing, by one statement."""
    if tx.dialect == "postgresql":
        return sorted(tx.execute(_NEXT, {"count": count}).scalars())
    last = tx.execute(_BUMP, {"count": count}).scalar_one_or_none()
    if last is None:
        tx.execute(insert(COUNTER).values(name=_REVISION, value=count, text=""))
        last = count
    return range(int(last) - count + 1, int(last) + 1)


def last_revision(tx: Transaction) -> int:
    """Return the greatest revision that any session carries; 0 before the first."""
    statement = select(SESSION.c.revision).order_by(SESSION.c.revision.desc()).limit(1)
    return int(tx.execute(statement).scalar_one_or_none() or 0)


def cluster_id(tx: Transaction, candidate: str) -> str:
    """Return this database's cluster id, which is ``candidate`` where it has none yet."""
    known = tx.execute(select(COUNTER.c.text).where(COUNTER.c.name == _CLUSTER)).scalar_one_or_none()
    if known is None:
        tx.execute(insert(COUNTER).values(name=_CLUSTER, value=0, text=candidate))
        return candidate
    return str(known)


def check_key(tx: Transaction, fingerprint: str) -> None:
    """Hold the cluster key's fingerprint against the database's; the first one is kept.

    Raises:
        errors.FailedPrecondition: the database was begun with another key.
    """
    known = tx.execute(select(COUNTER.c.text).where(COUNTER.c.name == _KEY)).scalar_one_or_none()
    if known is None:
        tx.execute(insert(COUNTER).values(name=_KEY, value=0, text=fingerprint))
    elif known != fingerprint:
        raise errors.FailedPrecondition(
            "This server has another cluster key than the database was begun with: no token and no secret in it could "
            "be read. Give all replicas the same FOOTLIGHTS_CLUSTER_KEY, or copy cluster.key into their data "
            "directories.",
            reason="CLUSTER_KEY_DIFFERS",
        )
