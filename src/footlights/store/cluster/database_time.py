"""What the database knows of the time: its server's clock, and the latest moment that was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from footlights.store.schema import NODE, SESSION

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.store.unit import Transaction


def of_the_server(tx: Transaction) -> datetime | None:
    """Return the time of the database's server; None where the database has no server and its clock is ours."""
    return tx.engine.server_time(tx.connection)


def newest(tx: Transaction) -> datetime | None:
    """Return the latest moment of all nodes and of the session that was changed last; None in a new store."""
    heard = tx.execute(select(func.max(NODE.c.last_seen_time))).scalar_one()
    last = select(SESSION.c.created_time, SESSION.c.ended_time).order_by(SESSION.c.revision.desc()).limit(1)
    changed = tx.execute(last).first()
    return max((each for each in (heard, *(changed or ())) if each is not None), default=None)
