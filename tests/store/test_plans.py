"""Which indexes are used: what is read every few seconds goes through what lives, never through all that has ended
(`fleet`, `failed_starts`); a list is read in its own order, or from what its filter names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text

from footlights.filters import parse
from footlights.store import Store, Transaction, tokens
from footlights.store.bulk import Inserter
from footlights.store.launches import failed_starts, launch_rows
from footlights.store.nodes import fleet
from footlights.store.schema import LAUNCH, SESSION, TOKEN, LaunchRow, SessionRow, TokenRow
from footlights.store.sessions import filtering, listing, session_rows
from footlights.store.sessions.derivation import SessionStates
from footlights.store.sessions.feed import Feed, Position, holder
from footlights.store.sessions.listing import Filter, Order, Selection, place
from footlights.store.sessions.session_rows import QueuePlace
from tests.store.databases import clean
from tests.store.rows import NOW, S, running, values

HISTORY = ("session", "launch", "lease")
LIVING = {"ix_session_live", "ix_session_live_username", "ix_session_pending", "ix_launch_live", "uq_lease_live_slot"}
"""Indexes on what has not ended: to go through one of them is to go through what lives."""

READS: dict[str, Callable[[Transaction], Any]] = {
    "pending": lambda tx: session_rows.pending_page(tx, 2000).sessions,
    "pending page": lambda tx: session_rows.pending_page(tx, 9, after=QueuePlace(0, NOW, "a")),
    "held slots": launch_rows.held_slots,
    "recent lengths": session_rows.recent_lengths,
    "live sessions": lambda tx: session_rows.live_on(tx, "node-a"),
    "live launches": lambda tx: launch_rows.live_on(tx, "node-a"),
    "ending": launch_rows.ending,
    "running_at": lambda tx: launch_rows.running_at(tx, "a"),
    "attempts": lambda tx: launch_rows.attempts(tx, ["a"]),
    "failed starts": lambda tx: failed_starts.failed(tx, ["a"], since=NOW),
    "ready versions": lambda tx: failed_starts.ready_versions(tx, ["a"], since=NOW),
    "ready inputs": lambda tx: failed_starts.ready_inputs(tx, ["a"], ["b"], since=NOW),
    "ready nodes": lambda tx: failed_starts.ready_nodes(tx, ["a"], since=NOW),
    "live starts": lambda tx: failed_starts.live(tx, ["a"], ["b"], since=NOW),
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
    steps = await store.read(lambda tx: planned(tx, READS[name]))

    assert steps
    scanned = [step.split() for step in steps if step.startswith("SCAN ") and step.split()[1] in HISTORY]
    assert {step[-1] for step in scanned} <= LIVING, steps


# Lists

ROWS = 20_000


def by(text: str = "", order: str = "created_time", *, ended: bool = True) -> Callable[[Transaction], Any]:
    """A page of a list, forwards from its middle; backwards from its end."""
    condition = parse(text, filtering.MEMBERS)
    descending = order.endswith(" desc")
    wanted, sort = Filter(ended=ended, condition=condition), Order(order.removesuffix(" desc"), descending)

    def read(tx: Transaction) -> None:
        selection = Selection(tx, wanted, sort)
        rows = selection.read(20).rows
        if rows:
            selection.read(20, after=place(rows[-1], sort))

    return read


LISTS: dict[str, tuple[str, Callable[[Transaction], Any]]] = {
    "by creation": ("ix_session_created", by()),
    "by end": ("ix_session_ended_id", by(order="ended_time")),
    "by end, last first": ("ix_session_ended_id", by(order="ended_time desc")),
    "by end, between": ("ix_session_ended_id", by('ended_time > "2026-03-01T13:00:00Z"', "ended_time")),
    "by user": ("ix_session_username", by(order="username")),
    "by priority": ("ix_session_priority", by(order="priority")),
    "by priority, highest first": ("ix_session_priority", by(order="priority desc")),
    "of a state": ("ix_session_state", by("state = FAILED")),
    "of a reason": ("ix_session_end_reason", by("end_reason = GPU_LOST")),
    "of two reasons": ("ix_session_end_reason", by("end_reason = GPU_LOST OR end_reason = NODE_LOST")),
    "of a frequent reason": (
        "ix_session_end_reason|ix_session_created",
        by("end_reason = USER_TERMINATED", "created_time desc"),
    ),
    "on a node": ("ix_launch_node", by('node = "node-7"')),
    "on a device": ("ix_launch_device", by('device = "GPU-77" AND priority = 0')),
    "ended in a minute": (
        "ix_session_ended_id",
        by('ended_time >= "2026-03-01T13:00:00Z" AND ended_time < "2026-03-01T13:01:00Z"'),
    ),
    "of an application": ("ix_session_application", by('application = "app-7"')),
    "of a user, named": ("ix_session_username", by('username = "user-7" AND end_reason != CRASHED')),
    "created in a minute": (
        "ix_session_created",
        by('created_time >= "2026-03-01T13:00:00Z" AND created_time <= "2026-03-01T13:01:00Z"'),
    ),
    "changes": ("ix_session_revision", lambda tx: Feed(Position(ROWS - 50, ROWS - 50), lambda: 0.0).read(tx)),
    "what there was": ("ix_session_revision", lambda tx: listing.changed(tx, 500, 20)),
    "whose revision": ("ix_session_revision", lambda tx: holder(tx, 700)),
    "tokens": ("ix_token_created", lambda tx: tokens.page(tx, (NOW, "x"), 20)),
}


@pytest.fixture(scope="module")
def history(_opened: Store) -> Store:
    """A store with sessions enough that a planner prefers indexes, and what it knows of them."""
    clean(_opened)
    asyncio.run(_fill(_opened))
    with _opened.engine.writer.connect() as connection:
        # Vacuumed too: what Postgres otherwise knows of its pages depends on when its own turn comes.
        known = text("VACUUM ANALYZE" if _opened.shared else "ANALYZE")
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(known)
    return _opened


async def _fill(store: Store) -> None:
    reasons = {0: "GPU_LOST", 1: "NODE_LOST", 2: "CRASHED"}
    sessions, launches = [], []
    for number in range(ROWS):
        time = NOW + number * S
        row = SessionRow(
            **values(
                username=f"user-{number % 500}",
                application=f"app-{number % 20}",
                priority=number % 3 - 1,
                state="FAILED" if number % 1000 < 3 else "TERMINATED",
                end_reason=reasons.get(number % 1000, "USER_TERMINATED"),
            ),
            created_time=time,
            ended_time=time + S,
            revision=number + 1,
            launch_id=f"launch-{number}",
        )
        sessions.append(row)
        launch = LaunchRow(
            f"launch-{number}", row.session_id, f"node-{number % 200}", f"GPU-{number % 400}", [0], time,
            state="EXITED", ended_time=time + S,
        )  # fmt: skip
        launches.append(launch)
    holders = [TokenRow(f"t{number}", b"", "NODE", "x", "", NOW + number * S, None, None) for number in range(5000)]
    for table, rows in ((SESSION, sessions), (LAUNCH, launches), (TOKEN, holders)):
        await store.write(partial(Inserter(table), rows=rows))


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_is_read_from_its_index(history: Store, name: str) -> None:
    """On both engines, by what they plan: no list reads or sorts all that ever was."""
    index, read = LISTS[name]
    steps = await history.read(lambda tx: planned(tx, read))

    assert any(each in step for each in index.split("|") for step in steps), steps
    scans = [step for step in steps if step in ("SCAN session", "SCAN launch") or "Seq Scan on" in step]
    assert not [step for step in scans if "on counter" not in step and "on removal" not in step], steps
    if name.startswith("by "):
        # Those that have not ended, of which there are none, Postgres would sort.
        sorts = [
            step
            for step in steps
            if "USE TEMP B-TREE FOR ORDER BY" in step or ("->  Sort" in step and "rows=1 " not in step)
        ]
        assert not sorts, steps


def planned(tx: Transaction, read: Callable[[Transaction], Any]) -> list[str]:
    """Return the steps that a database plans for all statements of a unit."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(tx.connection, "before_cursor_execute", note)
    read(tx)
    event.remove(tx.connection, "before_cursor_execute", note)
    explain = "EXPLAIN" if tx.engine.shared else "EXPLAIN QUERY PLAN"
    plans = [tx.connection.exec_driver_sql(f"{explain} {each}", values) for each, values in statements]
    return [str(row[-1]) for plan in plans for row in plan]
