"""Acknowledged means on disk: through kill -9 and through a disk that is full."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from footlights import errors
from footlights.store import Store, Transaction, open_store
from footlights.store.sessions import session_rows
from tests.store.rows import create

pytestmark = pytest.mark.slow

Fresh = tuple[Path, str]

_CHILD = """
import asyncio, sys
from pathlib import Path
from footlights.store import open_store
from tests.store.rows import create

async def main():
    store = open_store(Path(sys.argv[1]), sys.argv[2])
    async def write():
        while True:
            row = await store.write(create_one)
            sys.stdout.write(row.session_id + "\\n")
            sys.stdout.flush()
    await asyncio.gather(*(write() for _ in range(16)))

def create_one(tx):
    return create(tx, queue_limit=10**9)

asyncio.run(main())
"""


async def test_whatever_was_acknowledged_survives_kill_9(fresh: Fresh) -> None:
    """A process that writes as fast as it can is killed in the middle; every id that it printed is there."""
    directory, url = fresh
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, str(directory), url, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            acknowledged = [(await child.stdout.readline()).decode().strip() for _ in range(150)]
    finally:
        child.kill()
        rest = (await child.stdout.read()).decode()
        await child.wait()
    # A line that the kill cut off was not said.
    acknowledged += rest.splitlines() if rest.endswith("\n") else rest.splitlines()[:-1]
    assert all(len(session_id) == 36 for session_id in acknowledged)

    store = open_store(directory, url)
    try:
        missing = await store.read(lambda tx: [each for each in acknowledged if session_rows.get(tx, each) is None])
        assert missing == []
        await store.write(create)
    finally:
        await store.close()


async def test_a_full_disk_is_said_and_heals_by_itself(tmp_path: Path) -> None:
    """Writes are refused as Unavailable, nothing acknowledged is lost, nothing refused is kept; space ends it."""
    store = open_store(tmp_path)

    def limit(tx: Transaction, pages: int) -> None:
        used = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {used + pages}")

    async def write(number: int) -> str:
        session_id = f"{number:04}"
        await store.write(lambda tx: create(tx, session_id=session_id, labels={"pad": "x" * 2000}))
        return session_id

    try:
        await store.write(lambda tx: limit(tx, 20))
        together = await asyncio.gather(*(write(number) for number in range(40)), return_exceptions=True)
        alone = [(await asyncio.gather(write(number), return_exceptions=True))[0] for number in range(100, 110)]
        outcomes = [*together, *alone]

        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        kept = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert refused
        assert all(isinstance(error, errors.Unavailable) for error in refused), refused
        assert "full" in str(refused[0])
        there = await store.read(lambda tx: [row.session_id for row in session_rows.pending_page(tx, 1000).sessions])
        assert sorted(there) == sorted(kept)

        await store.write(lambda tx: limit(tx, 10_000))
        assert await write(999) == "0999"
    finally:
        await store.close()


async def test_a_database_that_goes_away_is_said_and_comes_back(
    store: Store, database: str, request: pytest.FixtureRequest
) -> None:
    """Postgres ends every connection, as in a failover: calls are Unavailable for a moment, then well."""
    if not database:
        pytest.skip("SQLite has no connections to lose")
    import psycopg

    server = request.getfixturevalue("a_postgres")
    await store.write(create)
    await asyncio.gather(*(store.read(lambda tx: session_rows.pending_page(tx, 1).sessions) for _ in range(4)))
    with psycopg.connect(server.uri, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    outcomes: list[object] = []
    async with asyncio.timeout(20):
        while not outcomes or isinstance(outcomes[-1], Exception):
            outcomes += await asyncio.gather(store.write(create), return_exceptions=True)
        while isinstance((await asyncio.gather(_read(store), return_exceptions=True))[0], errors.Unavailable):
            pass

    assert all(isinstance(outcome, errors.Unavailable) for outcome in outcomes[:-1])
    assert await _read(store) == 2


async def _read(store: Store) -> int:
    return len(await store.read(lambda tx: session_rows.pending_page(tx, 10).sessions))
