"""What is read every few seconds goes through what lives, never through the history of what has ended (`fleet`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from footlights.store import Store, Transaction
from footlights.store.launches import launch_rows
from footlights.store.nodes import fleet
from footlights.store.sessions import listing, session_rows
from footlights.store.sessions.derivation import SessionStates
from footlights.store.sessions.session_rows import QueuePlace
from tests.store.rows import NOW, running

HISTORY = ("session", "launch", "lease")
LIVING = {"ix_session_live", "ix_session_live_username", "ix_session_pending", "ix_launch_live", "uq_lease_live_slot"}
"""Indexes on what has not ended: to go through one of them is to go through what lives."""

READS: dict[str, Callable[[Transaction], Any]] = {
    "pending": lambda tx: session_rows.pending_page(tx, 2000).sessions,
    "pending page": lambda tx: session_rows.pending_page(tx, 9, after=QueuePlace(0, NOW, "a")),
    "holding": session_rows.holding,
    "live sessions": lambda tx: session_rows.live_on(tx, "node-a"),
    "live launches": lambda tx: launch_rows.live_on(tx, "node-a"),
    "ending": launch_rows.ending,
    "running_at": lambda tx: launch_rows.running_at(tx, "a"),
    "refusals": lambda tx: launch_rows.refusals(tx, ["a"], since=NOW),
    "failed_starts": lambda tx: launch_rows.failed_starts(tx, ["a"], since=NOW),
    "members": fleet.members,
    "living": listing.living,
    "state_counts": listing.state_counts,
    "lives of sessions": lambda tx: SessionStates.of_sessions(tx, ["a", "b"]),
    "lives of launches": lambda tx: SessionStates.of_launches(tx, ["a", "b"]),
}


@pytest.mark.parametrize("name", READS)
async def test_no_history_is_searched(store: Store, name: str) -> None:
    """By SQLite's plans, which do not depend on how much there is; Postgres chooses by numbers."""
    if store.shared:
        pytest.skip("Postgres' plans depend on how much there is")
    await running(store)
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    def read(tx: Transaction) -> list[str]:
        event.listen(tx.connection, "before_cursor_execute", note)
        READS[name](tx)
        event.remove(tx.connection, "before_cursor_execute", note)
        plans = [tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {each}", values) for each, values in statements]
        return [str(row[-1]) for plan in plans for row in plan]

    steps = await store.read(read)

    assert steps
    scanned = [step.split() for step in steps if step.startswith("SCAN ") and step.split()[1] in HISTORY]
    assert {step[-1] for step in scanned} <= LIVING, steps
