"""Creating sessions over REST, end to end, against pgbench that only inserts the row.

Ten thousand nodes of eight devices each are linked to the server: really linked, by the least costly means (`wire`),
for the store alone does not make a node one that sessions may be placed on. Their heartbeats are a minute apart, so
that they are no load of their own. wrk creates sessions from 16 connections with a token; each is written durably,
placed among the 80,000 slots, and told to its node. That all were placed is looked up at the end.

pgbench inserts the same session row with prepared statements from 16 clients, durably, into a table with the same
columns and indexes: what a create would cost if it were nothing but its insert. The server, and Postgres, have one
core; wrk, the links and pgbench have the other.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from footlights.store import open_store
from tests.bench import storing
from tests.bench.figures import Bench, Figure
from tests.bench.plane import Plane, Served, durable_postgres, generating, plane, wrk
from tests.bench.wire import Links
from tests.store.databases import Postgres

NODES = 10_000
DEVICES = 8
CLIENTS = 16
HEARTBEAT_S = 60.0
ROUNDS = 3
SECONDS = 5
OPEN_S = 70.0
PLACED_S: Final = 15.0
_LUA: Final = """wrk.method = 'POST'
wrk.body = '{"application": "fake", "labels": {"team": "bench"}}'
wrk.headers['content-type'] = 'application/json'
wrk.headers['authorization'] = 'Bearer %s'
"""


@dataclass(frozen=True, slots=True)
class _Sample:
    rps: float
    p99_ms: float
    cpu_us: float


async def measure(directory: Path) -> list[Figure]:
    """Take ``create_rps_vs_pgbench_c16`` with SQLite under the server."""
    return await _measure(directory, on_postgres=False)


async def measure_postgres(directory: Path) -> list[Figure]:
    """Take the same with Postgres under the server."""
    return await _measure(directory, on_postgres=True)


async def _measure(directory: Path, *, on_postgres: bool) -> list[Figure]:
    ours: list[_Sample] = []
    theirs: list[float] = []
    with generating(), durable_postgres() as server:
        database = server.create() if on_postgres else ""
        options = ("--heartbeat-interval", f"{HEARTBEAT_S:g}s", "--queue-limit", "100000")
        async with plane(directory / "plane", *options, nodes=NODES, database=database) as made:
            served = await made.start()
            await made.register_fake(served)
            script = directory / "create.lua"
            await asyncio.to_thread(script.write_text, _LUA % made.token)
            peer = await asyncio.to_thread(_peer, server, directory)
            async with Links(served.grpc, made.nodes, devices=DEVICES, heartbeat_s=HEARTBEAT_S) as links:
                await links.open_all(OPEN_S)
                await _create(served, script, 1)
                for _ in range(ROUNDS):
                    ours.append(await _create(served, script, SECONDS))
                    theirs.append(await _pgbench(server, peer, directory, SECONDS))
                await _check(made, served)
    suffix, engine = ("_postgres", "Postgres") if on_postgres else ("", "SQLite")
    ratios = [a.rps / b for a, b in zip(ours, theirs, strict=True)]
    what = f"REST creates placed among {NODES * DEVICES} slots on {engine}, over pgbench's inserts of that row"
    return [
        Figure(f"create_rps_vs_pgbench_c16{suffix}", ratios, "", what, ">= 0.3"),
        Figure(f"create_rps_c16{suffix}", [each.rps for each in ours], "/s", "those creates, 16 connections"),
        Figure(f"create_p99_ms_c16{suffix}", [each.p99_ms for each in ours], "ms", "their p99, saturated"),
        Figure(f"create_cpu_us{suffix}", [each.cpu_us for each in ours], "us", "the server's processor time for one"),
        Figure(f"create_pgbench_c16{suffix}", theirs, "/s", "those inserts, pgbench -M prepared -c16, one core"),
    ]


async def _create(served: Served, script: Path, seconds: int) -> _Sample:
    before = served.cpu_s()
    output = await wrk(f"{served.http}/stream", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--latency", "-s", script)
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", output)
    if found is None or p99 is None or "Non-2xx" in output:
        raise RuntimeError(f"creates failed: {output}\n{served.process.tail(3)}")
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[p99.group(2)]
    count, spent = int(found.group(1)), served.cpu_s() - before
    return _Sample(count / float(found.group(2)), float(p99.group(1)) * unit, 1e6 * spent / count)


async def _check(made: Plane, served: Served) -> None:
    """Hold that what was created has been placed: nothing waits, with tens of thousands of slots free."""
    async with made.client(served) as client, asyncio.timeout(PLACED_S):
        while True:
            waiting = (await client.get("/stream", params={"state": "PENDING", "limit": 1})).json()
            if not waiting["items"]:
                break
            await asyncio.sleep(0.2)
        starting = (await client.get("/stream", params={"state": "STARTING", "limit": 1})).json()
    assert starting["items"], starting
    assert starting["items"][0]["node"], starting


def _peer(server: Postgres, directory: Path) -> str:
    """Make a database with our schema and one session in it, for pgbench to copy; return its URL."""
    uri = server.create()
    open_store(directory / "peer", uri).close_now()
    return uri


async def _pgbench(server: Postgres, uri: str, directory: Path, seconds: int) -> float:
    script = directory / "insert.sql"
    await asyncio.to_thread(script.write_text, storing.INSERT)
    process = await asyncio.create_subprocess_exec(
        server.bin / "pgbench", "-n", "-M", "prepared", f"-c{CLIENTS}", f"-T{seconds}", "-f", str(script), uri,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, complaint = await process.communicate()
    found = re.search(r"tps = ([\d.]+) \(without", out.decode())
    if process.returncode or found is None:
        raise RuntimeError(f"pgbench failed: {complaint.decode()}{out.decode()}")
    return float(found[1])


BENCH = Bench(
    ("create_rps_vs_pgbench_c16", "create_rps_c16", "create_p99_ms_c16", "create_cpu_us", "create_pgbench_c16"), measure
)
POSTGRES = Bench(
    ("create_rps_vs_pgbench_c16_postgres", "create_rps_c16_postgres", "create_p99_ms_c16_postgres",
     "create_cpu_us_postgres", "create_pgbench_c16_postgres"), measure_postgres,
)  # fmt: skip
