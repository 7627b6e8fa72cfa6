"""What five thousand agents cost the hub: memory a link, the herd that comes back at once, and heartbeats under load.

Each link is a TCP connection of its own that has said hello with four devices (see `wire`). The server has one core,
the links and wrk the other. All three measurements share the links, for opening them takes long.

A heartbeat's round trip is timed by one in `PROBE_EVERY` that reports the end of a launch that never was: the hub
records that, with the heartbeat, and answers with a forget. So it holds the way in, a transaction, and the way out.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.bench.figures import Bench, Figure
from tests.bench.plane import Plane, Served, durable_postgres, generating, plane, wrk
from tests.bench.wire import Links

LINKS = 5000
DEVICES = 4
ROUNDS = 2
HEARTBEAT_S = 5.0
PROBE_EVERY = 5
WINDOW_S = 6.0
SETTLE_S = 3.0
OPEN_S = 100.0
AT_ONCE = 250
"""Links that are being opened at one time, where it is not the herd that is measured."""


async def measure(directory: Path) -> list[Figure]:
    """Take memory, reconnection and heartbeats of one process with every role on SQLite."""
    with generating():
        async with plane(directory / "one", "--heartbeat-interval", "5s", nodes=LINKS) as one:
            served = await one.start()
            await one.register_fake(served)
            async with Links(served.grpc, one.nodes, devices=DEVICES, heartbeat_s=HEARTBEAT_S) as links:
                before, spent = served.rss(), served.cpu_s()
                await links.open_all(OPEN_S, at_once=AT_ONCE)
                open_us = [1e6 * (served.cpu_s() - spent) / LINKS]
                await asyncio.sleep(SETTLE_S)
                rss_kib = [(served.rss() - before) / 1024 / LINKS]
                idle, busy = await _beats(one, served, served, links)
                seconds, failed = [], []
                for _ in range(ROUNDS):
                    served, took, refused = await _herd(one, served, links)
                    seconds.append(took)
                    failed.append(float(refused))
    return [
        Figure("link_rss_kib", rss_kib, "KiB", f"growth of the server's memory a link, {LINKS} links", "<= 64"),
        Figure("link_open_cpu_us", open_us, "us", f"the server's processor time to open one, {AT_ONCE} at a time"),
        Figure("reconnect_5000_s", seconds, "s", "from a restarted server's listening until all are welcomed", "<= 10"),
        Figure("reconnect_failed", failed, "", "of those, attempts that failed meanwhile", "0"),
        *_figures("", idle, busy, "one process, SQLite"),
    ]


async def measure_apart(directory: Path) -> list[Figure]:
    """Take the heartbeats of a hub that is a process of its own, beside the API, on Postgres."""
    with durable_postgres() as server:
        async with plane(directory / "two", "--heartbeat-interval", "5s", nodes=LINKS, database=server.create()) as two:
            hub = await two.start(("hub",), name="hub")
            api = await two.start(("api", "frontdoor", "loops"), name="api")
            await two.register_fake(api)
            async with Links(hub.grpc, two.nodes, devices=DEVICES, heartbeat_s=HEARTBEAT_S) as links:
                await links.open_all(OPEN_S, at_once=AT_ONCE)
                await asyncio.sleep(SETTLE_S)
                idle, busy = await _beats(two, hub, api, links)
    return _figures("_apart", idle, busy, "hub and API apart, Postgres")


async def _beats(made: Plane, hub: Served, api: Served, links: Links) -> tuple[list[float], list[float]]:
    """Return the p99 of heartbeats in seconds, idle and with REST saturated, window by window in turn."""
    async with made.client(api) as client:
        answer = await client.post("/stream", json={"application": "fake"})
        assert answer.status_code == 202, answer.text
        url = f"{api.http}/stream/{answer.json()['session_id']}"
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for busy in (False, True):
            links.seen.probes.clear()
            load = asyncio.create_task(
                wrk(url, "-t1", "-c16", f"-d{WINDOW_S:g}s", "-H", f"Authorization: Bearer {made.token}")
                if busy
                else asyncio.sleep(0, "")
            )
            links.probe_every = PROBE_EVERY
            await asyncio.sleep(WINDOW_S)
            links.probe_every = 0
            await load
            await _answered(links)
            if links.seen.lost:
                raise RuntimeError(f"links were lost: {links.seen.lost}\n{hub.process.tail(3)}")
            found[busy].append(sorted(links.seen.probes)[int(0.99 * len(links.seen.probes))])
    return found[False], found[True]


async def _answered(links: Links) -> None:
    """Wait for the answers that are under way: the latest are the ones that count."""
    wanted = int(LINKS / HEARTBEAT_S * WINDOW_S / PROBE_EVERY * 0.98)
    async with asyncio.timeout(20):
        while len(links.seen.probes) < wanted:
            links.seen.changed.clear()
            await links.seen.changed.wait()


async def _herd(made: Plane, served: Served, links: Links) -> tuple[Served, float, int]:
    """Kill the server, start it anew, and let all links dial at once; return also how many attempts failed."""
    await made.kill(served)
    await links.until_gone(30)
    links.seen.lost.clear()
    again = await made.start(listen=served, name="server-0")
    links.seen.refused.clear()
    began = time.perf_counter()
    async with asyncio.timeout(OPEN_S):
        while len(links.open) < LINKS:
            links.seen.changed.clear()
            await links.dial()
            await links.seen.changed.wait()
    return again, time.perf_counter() - began, links.seen.refused.total()


def _figures(suffix: str, idle: list[float], busy: list[float], where: str) -> list[Figure]:
    ratios = [loaded / calm for calm, loaded in zip(idle, busy, strict=True)]
    return [
        Figure(
            f"heartbeat_p99_busy_vs_idle{suffix}", ratios, "", f"a heartbeat's p99, REST saturated: {where}", "<= 10"
        ),
        Figure(f"heartbeat_p99_idle_ms{suffix}", [each * 1000 for each in idle], "ms", "that p99 without load"),
        Figure(f"heartbeat_p99_busy_ms{suffix}", [each * 1000 for each in busy], "ms", "that p99 under load"),
    ]


BENCH = Bench(
    ("link_rss_kib", "link_open_cpu_us", "reconnect_5000_s", "reconnect_failed", "heartbeat_p99_busy_vs_idle",
     "heartbeat_p99_idle_ms", "heartbeat_p99_busy_ms"), measure,
)  # fmt: skip
APART = Bench(
    ("heartbeat_p99_busy_vs_idle_apart", "heartbeat_p99_idle_ms_apart", "heartbeat_p99_busy_ms_apart"), measure_apart
)
