"""Durable session inserts through the store, on both engines, against pgbench on the same machine.

The store writes as a server does: ``IN_FLIGHT`` callers each create a session, wait until it is on disk, and create
the next. pgbench inserts the same row, into a table with the same columns and indexes, from 16 clients with prepared
statements. Postgres is the same for both, with its own defaults, which are durable; SQLite has ``synchronous=FULL``.
Rounds of all three alternate, each into what the rounds before it left behind.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import update

from footlights import ids
from footlights.store import Store, Transaction, applications, open_store
from footlights.store.schema import SESSION
from footlights.store.sessions import create
from footlights.store.sessions.create import Creation
from tests.bench.figures import Bench, Figure
from tests.store.databases import postgres

ROUNDS = 5
IN_FLIGHT = 64
BURSTS = 8
INSERTS = BURSTS * IN_FLIGHT * 15
"""A round's; a burst fills the queue nearly to its default limit, and is placed by a stroke of the pen after it."""
CLIENTS = 16


async def measure(directory: Path) -> list[Figure]:
    """Take the two ratios and the rates that they are made of."""
    with postgres(durable=True) as server:
        uri, peer_uri = server.create(), server.create()
        with (
            _opened(directory / "peer", peer_uri),
            _opened(directory / "a") as lite,
            _opened(directory / "b", uri) as pg,
        ):
            script = directory / "insert.sql"
            script.write_text(INSERT)
            rates: dict[str, list[float]] = {"sqlite": [], "postgres": [], "pgbench": []}
            for number in range(ROUNDS + 1):
                round_ = {
                    "pgbench": await _pgbench(server.bin, peer_uri, script),
                    "sqlite": await _create(lite),
                    "postgres": await _create(pg),
                }
                if number:  # The first one warms caches and makes files.
                    for name, rate in round_.items():
                        rates[name].append(rate)
    base = rates["pgbench"]
    ratios = {
        name: [ours / theirs for ours, theirs in zip(rates[name], base, strict=True)] for name in ("sqlite", "postgres")
    }
    what = "durable session inserts through the store, 64 in flight, over pgbench's from 16 clients"
    return [
        Figure("sqlite_inserts_vs_pgbench_c16", ratios["sqlite"], "", f"SQLite: {what}", ">= 0.9"),
        Figure("postgres_inserts_vs_pgbench_c16", ratios["postgres"], "", f"Postgres: {what}", ">= 1.5"),
        Figure("sqlite_inserts_per_s", rates["sqlite"], "/s", "through the store on SQLite"),
        Figure("postgres_inserts_per_s", rates["postgres"], "/s", "through the store on Postgres"),
        Figure("pgbench_c16_inserts_per_s", base, "/s", "pgbench -M prepared -c16, the same row"),
    ]


@contextmanager
def _opened(directory: Path, uri: str = "") -> Iterator[Store]:
    store = open_store(directory, uri)
    try:
        yield store
    finally:
        store.close_now()


async def _create(store: Store) -> float:
    """Create sessions; return how many a second."""

    def prepare(tx: Transaction) -> None:
        tx.execute(update(SESSION).where(SESSION.c.state == "PENDING").values(state="READY"))
        if applications.version(tx, "usd-viewer", "1.4.2") is None:
            applications.put(tx, "usd-viewer", "", "", [], now=datetime.now(UTC))
            applications.add_version(tx, "usd-viewer", "1.4.2", b"", now=datetime.now(UTC))

    async def caller() -> None:
        for _ in range(INSERTS // BURSTS // IN_FLIGHT):
            creation = Creation({"session_id": ids.new_id(), **_ROW}, datetime.now(UTC), 1_000)
            await store.write_batched(create.SESSIONS, creation)

    took = 0.0
    for _ in range(BURSTS):
        await store.write(prepare)
        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        took += time.perf_counter() - began
    return INSERTS / took


async def _pgbench(bin_: Path, uri: str, script: Path) -> float:
    process = await asyncio.create_subprocess_exec(
        bin_ / "pgbench", "-n", "-M", "prepared", f"-c{CLIENTS}", f"-t{INSERTS // CLIENTS}", "-f", script, uri,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    found = re.search(r"tps = ([\d.]+) \(without", out.decode())
    assert process.returncode == 0, err.decode()
    assert found is not None, out.decode()
    return float(found[1])


_ROW: dict[str, Any] = {
    "application": "usd-viewer",
    "application_version": "1.4.2",
    "username": "ann@example.com",
    "created_by": "portal",
    "profile": "standard",
    "arguments": {"usd_stage_uri": "https://assets.example.com/stages/kitchen.usd", "quality": 5},
    "usd_stage_uri": "https://assets.example.com/stages/kitchen.usd",
    "labels": {"team": "design", "purpose": "review"},
    "needs": bytes(range(24)),
    "limits": bytes(range(16)),
    "max_total_s": 7200.0,
}

INSERT = r"""
INSERT INTO session (
    session_id, application, application_version, username, created_by, profile, priority, request_id, arguments,
    usd_stage_uri, secrets, labels, needs, limits, max_total_s, launcher, created_time, intent, wish, wish_message,
    launch_id, launch_count, failures, queue, state, condition, end_reason, status_message, timeline, ready_time,
    ended_time, revision)
VALUES (
    '01930000-0000-7000-8000-' || lpad(to_hex(nextval('revision_seq')), 12, '0'), 'usd-viewer', '1.4.2',
    'ann@example.com', 'portal', 'standard', 0, '',
    '{"usd_stage_uri": "https://assets.example.com/stages/kitchen.usd", "quality": 5}',
    'https://assets.example.com/stages/kitchen.usd', '', '{"team": "design", "purpose": "review"}',
    '\x000102030405060708090a0b0c0d0e0f1011121314151617', '\x000102030405060708090a0b0c0d0e0f', 7200.0, 'process',
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 'RUN', '', '', NULL, 0, 0, '{}', 'PENDING', 'OK', '',
    '', '[["QUEUED", 1764307200000000]]', NULL, NULL, nextval('revision_seq'));
"""

BENCH = Bench(
    (
        "sqlite_inserts_vs_pgbench_c16",
        "postgres_inserts_vs_pgbench_c16",
        "sqlite_inserts_per_s",
        "postgres_inserts_per_s",
        "pgbench_c16_inserts_per_s",
    ),
    measure,
)
