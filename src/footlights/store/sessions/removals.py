"""What remains of sessions that were removed: for a day, so that a watch that resumes hears of them.

One that comes back later than that, after something was removed meanwhile, cannot be told what: ``floor`` says from
which revision on everything is known. A server of the release before removes without a record: while one of these leads
the removal, in a rolling upgrade, watches do not hear of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from footlights.store.bulk import Inserter
from footlights.store.cluster.revisions import allocate
from footlights.store.schema import COUNTER, REMOVAL, RemovalRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction

KEPT = timedelta(hours=24)
_FLOOR = "removals_forgotten"


def record(tx: Transaction, removed: Sequence[tuple[str, str, str]], *, now: datetime) -> None:
    """Note that sessions are removed, each given by its id, its username and its application."""
    revisions = allocate(tx, len(removed))
    _insert(tx, [RemovalRow(revision, *each, now) for revision, each in zip(revisions, removed, strict=True)])


def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Forget what was removed longer ago than ``KEPT``."""
    old = REMOVAL.c.removed_time < now - KEPT
    last = tx.execute(select(func.max(REMOVAL.c.revision)).where(old)).scalar_one()
    if last is None:
        return
    # The last one stays, so that who lists now gets a cursor that is as late.
    tx.execute(delete(REMOVAL).where(old, REMOVAL.c.revision < last))
    if not tx.changed(update(COUNTER).where(COUNTER.c.name == _FLOOR).values(value=last)):
        tx.execute(insert(COUNTER).values(name=_FLOOR, value=last, text=""))


def floor(tx: Transaction) -> int:
    """Return the last revision at which something was removed of which nothing is known any more."""
    return int(tx.execute(select(COUNTER.c.value).where(COUNTER.c.name == _FLOOR)).scalar_one_or_none() or 0)


_insert = Inserter(REMOVAL)
