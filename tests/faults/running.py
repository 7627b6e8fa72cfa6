"""One run from start to proof."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import evidence as seen
from tests.faults.audience import Audience
from tests.faults.calls import Caller, Rest
from tests.faults.checker import Violation, prove
from tests.faults.cluster import NODES, Cluster
from tests.faults.evidence import Evidence, Snapshot
from tests.faults.history import Recorder
from tests.faults.injuries import Injuries
from tests.faults.sampler import Sampler, by_launch, living
from tests.faults.schedule import SHARES, draw
from tests.faults.workload import Workload

SETTLE_S = 80.0
"""Also longer than a launch may wait to be claimed by the agent that has it."""
ORPHANS_S = 110.0
"""An orphan is looked for every 15 s, and is given 60 s to be claimed."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run."""

    seed: int = 1
    seconds: float = 120.0
    directory: Path = Path("build/faults")
    every_s: float = 1.1
    """Seconds between faults, on average."""
    clients: int = 6
    viewers: int = 1
    kinds: tuple[str, ...] = tuple(SHARES)
    program: Sequence[str] = ("-m", "footlights")
    drop_index: bool = False
    """Plants a bug: the store lets a slot be leased twice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown."""

    recorder: Recorder
    evidence: Evidence
    violations: list[Violation]


async def run(options: Options) -> Outcome:
    """Run once; everything it started is ended when it returns or raises."""
    await asyncio.to_thread(shutil.rmtree, options.directory, ignore_errors=True)
    options.directory.mkdir(parents=True)
    recorder = Recorder(options.directory / "history.jsonl")
    async with Cluster(options.directory.absolute(), program=options.program) as cluster:
        behaviors = await cluster.register_applications()
        if options.drop_index:
            await asyncio.to_thread(_drop_index, cluster.database)
        audience = Audience(cluster)
        sampler = Sampler(cluster.database, cluster.cluster_id)
        workload = Workload(cluster.http, cluster.grpc, cluster.token, recorder, options.seed, options.clients)
        harness = Caller("harness", Rest(cluster.http, cluster.token), recorder)
        injuries = Injuries(cluster, recorder, workload, harness, lambda: _watched(cluster, audience))
        try:
            if options.viewers:
                await audience.start()
            recorder.started = time.monotonic()
            sampling = asyncio.create_task(sampler.run(), name="sampler")
            working = asyncio.create_task(workload.run(), name="workload")
            await _hurt(options, injuries)
            await injuries.heal()
            faults_over = time.monotonic()
            await asyncio.sleep(3.0)  # a last look at recovery
            workload.stopping.set()
            await working
            await _linked(cluster, recorder)
            settled = await _settle(cluster, recorder, final=False)
            frames = _frames(audience) if options.viewers else []
            closed_by = await _terminate_all(cluster)
            await audience.stop()
            final = await _settle(cluster, recorder, final=True)
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
        finally:
            await audience.stop()
            await harness.transport.close()
        evidence = Evidence(
            operations=tuple(recorder.operations),
            faults=tuple(recorder.faults),
            holds=tuple(sampler.holds.values()),
            meetings=tuple(sampler.meetings),
            strangers_killed=tuple(injuries.strangers_killed),
            settled=settled,
            final=final,
            behaviors=behaviors,
            closed_by=closed_by,
            faults_over=faults_over,
        )
    return Outcome(recorder, evidence, [*prove(evidence), *frames])


async def _hurt(options: Options, injuries: Injuries) -> None:
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for due in draw(options.seed, options.seconds, every_s=options.every_s, kinds=options.kinds):
            await asyncio.sleep(max(0.0, started + due.at - time.monotonic()))
            group.create_task(injuries.inflict(due), name=f"{due.kind} at {due.at:.1f}")


async def _linked(cluster: Cluster, recorder: Recorder) -> None:
    """Wait until every node is back."""
    deadline = time.monotonic() + SETTLE_S
    states: dict[str, str] = {}
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            states = {node["node"]: node["state"] for node in (await cluster.get("/nodes"))["items"]}
            if all(states.get(node) == "READY" for node in NODES):
                return
        await asyncio.sleep(0.3)
    recorder.note(f"the nodes did not come back within {SETTLE_S:g} s: {states}")


async def _settle(cluster: Cluster, recorder: Recorder, *, final: bool) -> Snapshot:
    """Photograph until nothing is in motion any more, at most as long as things may take."""
    began = time.monotonic()
    while True:
        snapshot = await _photograph(cluster)
        waited = time.monotonic() - began
        orphans = _orphans(snapshot)
        restless = _restless(snapshot, final=final)
        if not orphans and not restless:
            return snapshot
        if waited > (ORPHANS_S if orphans else SETTLE_S):
            recorder.note(f"not settled after {waited:.0f} s: {(restless or orphans)[:5]}")
            return snapshot
        await asyncio.sleep(0.5)


def _restless(snapshot: Snapshot, *, final: bool) -> list[str]:
    states = ("PENDING", "STARTING", "TERMINATING", *(("READY", "ACTIVE") if final else ()))
    found = [f"{each.session_id} {each.state}" for each in snapshot.sessions.values() if each.state in states]
    return found + [f"lease {each.lease_id}" for each in snapshot.leases if final and each.released is None]


def _orphans(snapshot: Snapshot) -> list[str]:
    alive = {launch.launch_id for launch in snapshot.launches.values() if not launch.ended}
    return sorted({*snapshot.processes, *snapshot.shims} - alive)


async def _photograph(cluster: Cluster) -> Snapshot:
    """Take the processes before the rows, for what was started after they were read is no leak; the API after them,
    for what was released meanwhile it no longer shows.
    """
    processes = await asyncio.to_thread(living, cluster.cluster_id)
    sessions, launches, leases = await asyncio.to_thread(seen.read_rows, cluster.database)
    nodes = (await cluster.get("/nodes"))["items"]
    listed: set[str] = set()
    token = ""
    while True:
        page = await cluster.get("/stream", limit=1000, **({"page_token": token} if token else {}))
        listed |= {item["session_id"] for item in page["items"]}
        token = page.get("next_page_token", "")
        if not token:
            break
    return Snapshot(
        sessions=sessions,
        launches=launches,
        leases=leases,
        processes=by_launch(processes),
        shims=by_launch(processes, shims=True),
        slots_leased={
            (node["node"], device["uuid"]): int(device["slots_leased"]) for node in nodes for device in node["devices"]
        },
        listed=frozenset(listed),
        launchers={name: "fake" if name.startswith("fake") else "process" for name in _applications(sessions)},
    )


def _applications(sessions: dict[str, seen.SessionRow]) -> set[str]:
    return {session.application for session in sessions.values()}


async def _terminate_all(cluster: Cluster) -> frozenset[str]:
    items = (await cluster.get("/stream", limit=1000))["items"]
    for item in items:
        await cluster.delete(f"/stream/{item['session_id']}")
    return frozenset(item["session_id"] for item in items)


def _watched(cluster: Cluster, audience: Audience) -> frozenset[str]:
    """The launches that have a real viewer."""
    with contextlib.suppress(sqlite3.Error):
        sessions, _, _ = seen.read_rows(cluster.database)
        row = sessions.get(audience.session_id)
        if row is not None:
            audience.launch_ids |= {row.launch_id}
    return audience.launch_ids


def _frames(audience: Audience) -> list[Violation]:
    if audience.lost:
        return [Violation("viewer", f"the viewer lost its picture: {audience.lost}")]
    return []


def _drop_index(database: Path) -> None:
    connection = sqlite3.connect(database, timeout=5.0)
    with contextlib.closing(connection):
        connection.execute("DROP INDEX uq_lease_live_slot")
        connection.commit()
