"""How long nobody can create a session after one of three replicas was killed.

Three server processes with every role on one Postgres, a small simulated fleet linked to all of them, and clients that
create sessions all the time: each asks one replica and, where that one does not answer, the next one with the same
request id. One replica is killed (SIGKILL) under that load. What counts is the time from the kill to the first
acknowledged creation that was asked for after it, by clients that asked the dead one first, too: the slower of the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from footlights.ids import new_id
from tests.bench.figures import Bench, Figure
from tests.bench.plane import Plane, Served, durable_postgres, generating, plane
from tests.bench.wire import Links
from tests.system.stack import until

ROUNDS = 3
REPLICAS = 3
NODES = 30
DEVICES = 8
HEARTBEAT_S = 2.0
CLIENTS = 6
EVERY_S = 0.05
PATIENCE_S = 2.0
"""After so long a client takes a replica for dead."""
LOAD_S = 2.0


@dataclass
class _Load:
    """What the clients have had acknowledged: when asked, when answered, and whether the dead one was asked first."""

    answered: list[tuple[float, float, bool]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)


async def measure(directory: Path) -> list[Figure]:
    """Take ``failover_s``."""
    with generating(), durable_postgres() as server:
        options = ("--heartbeat-interval", f"{HEARTBEAT_S:g}s")
        async with plane(directory / "plane", *options, nodes=NODES, database=server.create()) as made:
            replicas = [await made.start() for _ in range(REPLICAS)]
            await made.register_fake(replicas[0])
            # The links are to the replicas that live: what is measured is creating, not how agents come back.
            address = replicas[-1].grpc
            async with Links(address, made.nodes, devices=DEVICES, heartbeat_s=HEARTBEAT_S, obedient=True) as links:
                await links.open_all(30)
                seconds = [await _kill_one(made, replicas) for _ in range(ROUNDS)]
    return [Figure("failover_s", seconds, "s", "from kill -9 of a replica to the next acknowledged create")]


async def _kill_one(made: Plane, replicas: list[Served]) -> float:
    load, victim = _Load(), replicas[0]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(made.client(each)) for each in replicas]
        work = [asyncio.create_task(_ask(load, clients, at % REPLICAS)) for at in range(CLIENTS)]
        try:
            await asyncio.sleep(LOAD_S)
            killed = time.perf_counter()
            await made.kill(victim)

            async def both() -> bool:
                after = [each for each in load.answered if each[0] >= killed]
                return {first for _, _, first in after} == {True, False}

            await until(both, timeout_s=30, what="sessions are created again")
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        await _known(clients[-1], load.sessions)
    replicas[0] = await made.start(listen=victim, name=victim.process.name)
    after = [each for each in load.answered if each[0] >= killed]
    return max(min(answered for _, answered, first in after if first is of) - killed for of in (True, False))


async def _ask(load: _Load, clients: list[httpx2.AsyncClient], first: int) -> None:
    while True:
        body = {"application": "fake", "request_id": new_id()}
        asked = time.perf_counter()
        for turn in range(100):
            client = clients[(first + turn) % len(clients)]
            with contextlib.suppress(httpx2.HTTPError):
                answer = await client.post("/stream", json=body, timeout=PATIENCE_S)
                if answer.status_code in (200, 202):
                    load.answered.append((asked, time.perf_counter(), first == 0))
                    load.sessions.append(answer.json()["session_id"])
                    break
        await asyncio.sleep(EVERY_S)


async def _known(client: httpx2.AsyncClient, sessions: list[str]) -> None:
    """Hold that no acknowledged session was lost."""
    for session_id in sessions:
        answer = await client.get(f"/stream/{session_id}")
        assert answer.status_code in (200, 202), f"{session_id} was acknowledged and is lost: {answer.text}"
        await client.delete(f"/stream/{session_id}")


BENCH = Bench(("failover_s",), measure)
