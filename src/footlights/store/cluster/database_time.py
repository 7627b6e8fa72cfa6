"""What the store knows of the time: when it was last written, as far as its moments say, and its server's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from footlights.store.schema import NODE, SESSION

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.store.store import Transaction


def newest(tx: Transaction) -> datetime | None:
    """Return the latest moment of all nodes and of the session that was changed last; None in a new store."""
    heard = tx.execute(select(func.max(NODE.c.last_seen_time))).scalar_one()
    last = select(SESSION.c.created_time, SESSION.c.ended_time).order_by(SESSION.c.revision.desc()).limit(1)
    changed = tx.execute(last).first()
    return max((each for each in (heard, *(changed or ())) if each is not None), default=None)


def of_the_server(tx: Transaction) -> datetime | None:
    """Return the database server's own moment; None where the database is no server, and its clock is ours."""
    if tx.dialect != "postgresql":
        return None
    moment: datetime = tx.execute(select(func.clock_timestamp())).scalar_one()
    return moment
