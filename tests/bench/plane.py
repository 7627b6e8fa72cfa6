"""Servers to measure: one process or several, on SQLite or Postgres, each pinned to the core of what is measured.

What generates load runs on the other core, this process included while it is ``generating``. Node tokens are written
to the store before a server starts: ten thousand calls to create them would take as long as the measurement.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil

from footlights.auth import tokens
from footlights.auth.secrets import ClusterKey
from footlights.store import Transaction, open_store
from footlights.store import tokens as rows
from footlights.store.schema import TokenRow
from tests.store.databases import Postgres, postgres
from tests.system.stack import Process, until

ALL: tuple[str, ...] = ()
"""The roles of a process that is given none: every one."""


@dataclass(frozen=True, slots=True)
class Served:
    """One server process."""

    process: Process
    http: str
    grpc: str

    def rss(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@dataclass
class Plane:
    """A control plane under measurement."""

    directory: Path
    database: str
    options: tuple[str, ...]
    nodes: dict[str, str] = field(default_factory=dict)
    """Node -> its token."""
    token: str = ""
    servers: list[Served] = field(default_factory=list)

    async def start(self, roles: Sequence[str] = ALL, *, name: str = "", listen: Served | None = None) -> Served:
        """Start one more process; ``listen`` is one whose addresses it takes over."""
        name = name or f"server-{len(self.servers)}"
        data = self.directory / name if self.database else self.directory / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        (data / "endpoints.json").unlink(missing_ok=True)
        grpc = listen.grpc if listen else f"127.0.0.1:{_free_port()}"
        http = listen.http.removeprefix("http://") if listen else "127.0.0.1:0"
        argv = ["taskset", "-c", str(cores()[0]), sys.executable, "-m", "footlights", "server"]
        argv += ["--data-dir", str(data), "--grpc-listen", grpc, "--http-listen", http, "--log-level", "error"]
        argv += ["--max-connections-per-ip", "0"]
        argv += [*(["--database", self.database] if self.database else []), *self.options]
        argv += ["--roles", ",".join(roles)] if roles else []
        key = (self.directory / "data" / "cluster.key").read_text().strip()
        log = self.directory / f"{name}.log"
        process = await Process.start(name, argv, log, {"FOOTLIGHTS_CLUSTER_KEY": key})

        async def listening() -> bool:
            if process.process.returncode is not None:
                raise RuntimeError(f"{name} ended:\n{process.tail(5)}")
            return (data / "endpoints.json").exists()

        try:
            await until(listening, timeout_s=30, what=f"{name} listens")
        except BaseException:
            process.kill()
            raise
        found = json.loads((data / "endpoints.json").read_text())
        served = Served(process, found["http"], found["grpc"])
        self.servers.append(served)
        return served

    async def kill(self, served: Served) -> None:
        """Kill a process, as kill -9 does."""
        served.process.kill()
        await served.process.process.wait()
        self.servers.remove(served)

    @contextlib.asynccontextmanager
    async def client(self, served: Served) -> AsyncIterator[httpx2.AsyncClient]:
        """An operator's HTTP client of one process."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(base_url=served.http, headers=headers, timeout=30) as client:
            yield client

    async def register_fake(self, served: Served) -> None:
        """Register an application that any node here can run."""
        version = {"version": "1.0.0", "fake": {}}
        body = {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}}
        async with self.client(served) as client:
            answer = await client.put("/applications/fake", json=body)
            assert answer.status_code == 200, answer.text


@contextlib.asynccontextmanager
async def plane(directory: Path, *options: str, nodes: int = 0, database: str = "") -> AsyncIterator[Plane]:
    """Prepare a control plane whose store knows ``nodes`` tokens; every process that is started is ended."""
    made = Plane(directory, database, options)
    await asyncio.to_thread(_seed, made, nodes)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield made
    finally:
        for served in made.servers:
            served.process.kill()
            await served.process.process.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def durable_postgres() -> Iterator[Postgres]:
    """A Postgres that loses nothing, on the core of what is measured."""
    with generating(cores()[0]), postgres(durable=True) as server:
        os.sched_setaffinity(0, {cores()[-1]})
        yield server


@contextlib.contextmanager
def generating(core: int | None = None) -> Iterator[None]:
    """Keep this process, and those that it starts, on one core meanwhile: by default the last."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[-1] if core is None else core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores() -> list[int]:
    """The cores of the machine that this process could have."""
    return sorted(_CORES)


_CORES = os.sched_getaffinity(0)


def _seed(made: Plane, nodes: int) -> None:
    data = made.directory / "data"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ClusterKey.load_or_create(data / "cluster.key", {}).derive("tokens")
    now = datetime.now(UTC)
    wanted: list[tuple[str, str]] = [("OPERATOR", "bench"), *(("NODE", f"bench-{at:05d}") for at in range(nodes))]

    def write(tx: Transaction) -> None:
        for role, subject in wanted:
            minted = tokens.mint()
            presented = tokens.parse(minted.text)
            assert presented is not None
            digest = tokens.digest(presented, key)
            rows.add(tx, TokenRow(minted.token_id, digest, role, subject, "", now, None, None))
            if role == "NODE":
                made.nodes[subject] = minted.text
            else:
                made.token = minted.text

    async def seed() -> None:
        store = open_store(data, made.database)
        try:
            await store.write(write)
        finally:
            await store.close()

    asyncio.run(seed())


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wrk(url: str, *options: Any) -> str:
    """Run wrk on the last core; return what it says. Raises RuntimeError where answers were not of 2xx."""
    argv = ["taskset", "-c", str(cores()[-1]), "wrk", *map(str, options), url]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output = (await process.communicate())[0].decode()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode or "Requests/sec" not in output:
        raise RuntimeError(f"wrk failed: {output}")
    return output
