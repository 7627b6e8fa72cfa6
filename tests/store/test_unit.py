"""What a transaction makes of rows: records that mypy knows, and rows that cannot be decoded left out.

Of `schema.columns` and the tables of `schema.catalog`, `schema.fleet`, `schema.sessions`, `schema.launches` and
`schema.cluster`.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text, update
from structlog.testing import capture_logs

from footlights import errors
from footlights.lifecycle import EndReason, LaunchState
from footlights.store import Store, Transaction
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.schema import SESSION, LaunchRow, NodeRow, ReplicaRow, SessionRow, TokenRow, table_of
from footlights.store.sessions import listing, session_rows
from footlights.store.sessions.feed import Feed, Position
from footlights.store.sessions.listing import Filter, Order
from tests.store import lists
from tests.store.rows import NOW, S, begin, create, end, join, observe, read

ROOT = Path(__file__).parents[2]
SNIPPET = """
from footlights.store.schema import SESSION, SessionRow
from footlights.store.unit import Transaction
from sqlalchemy import select

def read(tx: Transaction) -> None:
    for row in tx.all(select(SESSION), SessionRow):
        row.model_dump()
        row.state = "READY"
        row._replace(revision="1")
        row.labels["team"]
"""


@pytest.mark.slow
def test_mypy_refuses_what_a_row_cannot_do(tmp_path: Path) -> None:
    """A row is a frozen record and no model: what would crash is refused, and nothing else."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)

    done = subprocess.run([sys.executable, "-m", "mypy", snippet], cwd=ROOT, capture_output=True, text=True)

    found = [line.partition("error: ")[2] for line in done.stdout.splitlines() if "error: " in line]
    assert len(found) == 3, done.stdout
    assert '"SessionRow" has no attribute "model_dump"' in found[0]
    assert 'Property "state" defined in "SessionRow" is read-only' in found[1]
    assert 'incompatible type "str"; expected "int"' in found[2]


def test_a_tables_columns_are_the_fields_of_its_record() -> None:
    """In the same order, since a row is read by position."""
    for row in (SessionRow, LaunchRow, NodeRow, ReplicaRow, TokenRow):
        declared = table_of(row)
        assert declared is not None
        assert tuple(declared.c.keys()) == row._fields


def damage(tx: Transaction, table: str, column: str, key: str, value: str) -> None:
    """Make a column of a row what no version of Footlights can read."""
    # Postgres keeps text that is not JSON out of the column; a number may still be one that Python refuses.
    bad = "9" * 5000 if tx.engine.shared else "{not json"
    statement = f"UPDATE {table} SET {column} = :bad WHERE {key} = :value"
    tx.execute(
        text(statement.replace(":bad", "CAST(:bad AS json)") if tx.engine.shared else statement),
        {"bad": bad, "value": value},
    )


async def test_a_row_that_cannot_be_decoded_is_left_out_of_reads_of_many(store: Store) -> None:
    """Every other session is placed, listed and followed; the log names the row, and says so once."""
    ids = [(await store.write(lambda tx, n=n: create(tx, now=NOW + n * S))).session_id for n in range(9)]  # type: ignore[misc]
    feed = await store.read(lambda tx: Feed(Position.now(tx), lambda: 0.0))
    await store.write(
        lambda tx: session_rows.set_queue(
            tx, [(row, {}) for row in session_rows.pending_page(tx, 99).sessions], now=NOW
        )
    )
    for column in ("arguments", "queue"):
        await store.write(lambda tx, column=column: damage(tx, "session", column, "session_id", ids[3]))  # type: ignore[misc]
    good = [each for each in ids if each != ids[3]]

    with capture_logs() as logs:
        pending = await store.read(lambda tx: session_rows.pending_page(tx, 99).sessions)
        first = await store.read(lambda tx: lists.page(tx, Filter(), Order(), limit=5))
        rest = await store.read(partial(lists.page, wanted=Filter(), order=Order(), limit=5, after=first.following))
        changed = await store.read(lambda tx: listing.changed(tx, 0, 99))
        followed = await store.read(feed.read)
        some = await store.read(lambda tx: session_rows.some(tx, ids))

    assert [row.session_id for row in pending] == good
    assert [row.session_id for row in (*first.items, *rest.items)] == good
    for rows in (changed, followed, some):
        assert sorted(row.session_id for row in rows) == sorted(good)
    assert [entry["event"] for entry in logs] == ["row_unreadable"]
    assert ids[3] in logs[0]["key"]
    with pytest.raises(errors.Internal, match="session cannot be decoded") as caught:
        await store.read(lambda tx: session_rows.get(tx, ids[3]))
    assert caught.value.reason == "ROW_UNREADABLE"


async def test_a_page_whose_last_row_cannot_be_decoded_is_not_the_last_page(store: Store) -> None:
    """Leaving one out must not end the list early."""
    ids = [(await store.write(lambda tx, n=n: create(tx, now=NOW + n * S))).session_id for n in range(6)]  # type: ignore[misc]
    await store.write(lambda tx: damage(tx, "session", "arguments", "session_id", ids[2]))

    page = await store.read(lambda tx: lists.page(tx, Filter(), Order(), limit=2))
    token, found = page.following, [row.session_id for row in page.items]
    while token:
        page = await store.read(partial(lists.page, wanted=Filter(), order=Order(), limit=2, after=token))
        token, found = page.following, [*found, *(row.session_id for row in page.items)]

    assert found == [each for each in ids if each != ids[2]]


async def test_the_launches_of_a_damaged_session_keep_no_others_from_being_read(store: Store) -> None:
    """Nor does a node, a launch or a state that cannot be understood keep the rest of a node from being derived."""

    def write(tx: Transaction) -> list[str]:
        join(tx, "node-a", "GPU-0", "GPU-1")
        join(tx, "node-b")
        launches = [begin(tx, create(tx), slot, device=device) for device in ("GPU-0", "GPU-1") for slot in (0, 1)]
        for launch in launches:
            observe(tx, launch, LaunchState.READY)
        damage(tx, "session", "timeline", "session_id", launches[0].session_id)
        damage(tx, "launch", "log_tail", "launch_id", launches[1].launch_id)
        damage(tx, "node", "notices", "node", "node-b")
        tx.execute(text("UPDATE launch SET state = 'DREAMING' WHERE launch_id = :id"), {"id": launches[2].launch_id})
        return [launch.session_id for launch in launches]

    ids = await store.write(write)
    live = await store.read(lambda tx: launch_rows.live_on(tx, "node-a"))
    nodes = (await store.read(lambda tx: node_rows.page(tx, "", 1000))).rows
    silent = await store.write(lambda tx: node_rows.set_silent(tx, "node-a", 1, now=NOW))
    kept = [await store.read(lambda tx, each=each: read(tx, each)) for each in ids[1:3]]  # type: ignore[misc]
    last = await store.read(lambda tx: read(tx, ids[3]))

    assert {session.session_id for _, session in live} == {ids[2], ids[3]}
    assert [row.node for row in nodes] == ["node-a"]
    assert silent
    assert [(row.state, row.condition) for row in kept] == [("READY", "OK")] * 2
    assert last.condition == "UNREACHABLE"
    with pytest.raises(errors.Internal, match="cannot be read"):
        await store.write(lambda tx: end(tx, read(tx, ids[1]), EndReason.USER_TERMINATED, "", now=NOW))


@pytest.mark.slow
async def test_readers_of_changes_go_on_past_many_rows_that_cannot_be_decoded(store: Store) -> None:
    """However many there are in a row: what comes after them is met."""
    bad = await store.write(create)
    columns = SESSION.c.keys()
    replaced = {"session_id": "'bad-' || n", "revision": "n + 1000"}
    copied = ", ".join(replaced.get(name, name) for name in columns)
    start = await store.read(Position.now)
    await store.write(lambda tx: damage(tx, "session", "arguments", "session_id", bad.session_id))
    await store.write(
        lambda tx: tx.execute(
            text(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1100) "
                f"INSERT INTO session ({', '.join(columns)}) SELECT {copied} FROM session, numbers"
            )
        )
    )
    good = await store.write(lambda tx: create(tx, now=NOW + S, queue_limit=10**9))
    await store.write(
        lambda tx: tx.execute(update(SESSION).where(SESSION.c.session_id == good.session_id).values(revision=5000))
    )

    changed = await store.read(lambda tx: listing.changed(tx, 0, 100))
    followed = await store.read(Feed(start, lambda: 0.0).read)

    assert [row.session_id for row in changed] == [good.session_id]
    assert [row.session_id for row in followed] == [good.session_id]
