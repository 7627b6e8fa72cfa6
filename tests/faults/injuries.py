"""Does the faults. Each one hurts one part, waits, and heals what is its own to heal; the rest must heal itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults import victim
from tests.faults.calls import Caller, Refused, Unknown
from tests.faults.cluster import NODES, Cluster
from tests.faults.evidence import LaunchRow, read_rows
from tests.faults.history import Fault, Recorder
from tests.faults.proxy import Way
from tests.faults.sampler import Marked, living
from tests.faults.schedule import Due
from tests.faults.tracing import DISK_CALLS, JOURNAL_CALLS, CannotTrace, failing
from tests.faults.workload import Workload
from tests.system.stack import Process

DAY_S = 86400
_RESTART_S = 60.0


class Skipped(Exception):
    """This kind cannot be done on this machine; the message says why."""


class Nothing(Exception):
    """There is nothing to hurt just now."""


@dataclass(slots=True)
class Wound:
    """What a fault turns out to have done, while it is being done."""

    target: str = ""
    launches: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    device: str = ""
    detail: str = ""
    healed: float = 0.0


@dataclass(slots=True)
class Injuries:
    """Every kind by name; one fault at a time on one part."""

    cluster: Cluster
    recorder: Recorder
    workload: Workload
    harness: Caller
    """For requests in the harness's own name."""
    spared: Callable[[], frozenset[str]]
    """Launches that are never hurt directly: somebody watches them to see that the rest does not hurt them."""
    strangers_killed: list[str] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)

    async def inflict(self, due: Due) -> None:
        """Do one fault, from wound to healing; what goes wrong is noted and costs the run nothing."""
        chance = random.Random(due.seed)
        wound = Wound()
        began = time.monotonic()
        deed: Callable[[random.Random, Wound], Awaitable[None]] = getattr(self, f"_{due.kind}")
        try:
            await deed(chance, wound)
        except Nothing:
            return
        except Skipped as why:
            self.recorder.skipped.setdefault(due.kind, str(why))
            return
        except Exception as error:
            self.recorder.note(f"{due.kind} on {wound.target}: {type(error).__name__}: {error}")
        self.recorder.fault(
            Fault(
                kind=due.kind,
                target=wound.target,
                began=began,
                ended=wound.healed or time.monotonic(),
                launches=wound.launches,
                running=wound.running,
                device=wound.device,
                detail=wound.detail,
            )
        )

    # Processes of ours

    async def _kill_server(self, chance: random.Random, wound: Wound) -> None:
        with self._one("server", wound):
            await self._dead(self.cluster.server)
            await asyncio.sleep(chance.choice((0.0, 0.3, 1.5)))
            wound.healed = time.monotonic()
            await self.revive_server()

    async def _stop_server(self, chance: random.Random, wound: Wound) -> None:
        with self._one("server", wound):
            assert self.cluster.server is not None
            await self._freeze([self.cluster.server.pid], chance.choice((0.5, 2.0, 5.0)))

    async def _kill_agent(self, chance: random.Random, wound: Wound) -> None:
        with self._one(self._node(chance), wound) as node:
            wound.running = await self._serving(node)
            await self._dead(self.cluster.agents[node])
            await asyncio.sleep(chance.choice((0.0, 0.3, 2.0)))
            wound.healed = time.monotonic()
            await self.revive_agent(node)

    async def _restart_agent(self, chance: random.Random, wound: Wound) -> None:
        """An upgrade: stopped on purpose, with its sessions left running."""
        with self._one(self._node(chance), wound) as node:
            wound.running = await self._serving(node)
            with contextlib.suppress(AssertionError):
                await self.cluster.agents[node].stop(10.0)
            wound.healed = time.monotonic()
            await self.revive_agent(node)

    async def _stop_agent(self, chance: random.Random, wound: Wound) -> None:
        with self._one(self._node(chance), wound) as node:
            await self._freeze([self.cluster.agents[node].pid], chance.choice((0.5, 2.0, 6.0)))

    async def _kill_shim(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=True)
        wound.launches = (process.launch_id,)
        _send(process.pid, signal.SIGKILL)

    async def _stop_shim(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=True)
        await self._freeze([process.pid], chance.choice((0.5, 2.0, 4.0)))

    async def _kill_application(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=False)
        wound.launches = (process.launch_id,)
        _send(process.pid, signal.SIGKILL)

    async def _stop_application(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=False)
        await self._freeze([process.pid], chance.choice((0.5, 2.0, 4.0)))

    # Links and clients

    async def _cut_link(self, chance: random.Random, wound: Wound) -> None:
        await self._turn(Way.CUT, chance, wound, (0.1, 2.0, 8.0))

    async def _half_open_link(self, chance: random.Random, wound: Wound) -> None:
        await self._turn(Way.HALF_OPEN, chance, wound, (1.0, 5.0, 12.0))

    async def _slow_link(self, chance: random.Random, wound: Wound) -> None:
        await self._turn(Way.SLOW, chance, wound, (2.0, 6.0))

    async def _vanish_clients(self, chance: random.Random, wound: Wound) -> None:
        wound.target = "clients"
        self.workload.vanish.set()
        await asyncio.sleep(0.4)
        self.workload.vanish.clear()

    async def _rival_writer(self, chance: random.Random, wound: Wound) -> None:
        """A second control plane with a stale view: it leases a slot that is leased. The store must refuse it."""
        wound.target = "store"
        wound.detail = await asyncio.to_thread(_lease_again, self.cluster.database, f"rival-{chance.getrandbits(64):x}")
        if not wound.detail:
            raise Nothing

    async def _duplicate_agent(self, chance: random.Random, wound: Wound) -> None:
        """A cloned machine: the same name and token, a directory and an incarnation of its own."""
        with self._one(self._node(chance), wound) as node:
            data = self.cluster.directory / f"{node}.duplicate"
            other = await self.cluster.launch_agent(node, data, self.cluster.ports["duplicate"], name=f"{node}-twin")
            self.cluster.others.append(other)
            await asyncio.sleep(chance.choice((3.0, 6.0)))
            await self._dead(other)
            await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
            # Where it was let in for a while, what was begun by it died with it; what the other one runs must not.
            wound.launches = await asyncio.to_thread(_begun_by, other.log)

    # Devices

    async def _lose_gpu(self, chance: random.Random, wound: Wound) -> None:
        node = self._node(chance)
        spared = {row.device for row in (await self._launches()).values() if row.launch_id in self.spared()}
        gpus = self.cluster.gpus[node]
        places = [number for number, gpu in enumerate(gpus) if gpu.uuid not in spared and not gpu.lost]
        if not places:
            raise Nothing
        number = chance.choice(places)
        wound.target, wound.device = node, gpus[number].uuid
        self._change_gpu(node, number, lost=True)
        try:
            await asyncio.sleep(chance.choice((0.5, 4.0, 8.0)))
        finally:
            self._change_gpu(node, number, lost=False)

    async def _xid(self, chance: random.Random, wound: Wound) -> None:
        """An error that an application causes and that costs the device nothing."""
        node = self._node(chance)
        number = chance.randrange(len(self.cluster.gpus[node]))
        gpu = self.cluster.gpus[node][number]
        wound.target, wound.detail = node, "31"
        self._change_gpu(node, number, xids=(*gpu.xids, 31))

    # Disks and clocks

    async def _fill_store(self, chance: random.Random, wound: Wound) -> None:
        await self._fill("server", chance, wound)

    async def _fill_journal(self, chance: random.Random, wound: Wound) -> None:
        await self._fill(self._node(chance), chance, wound)

    async def _fail_store(self, chance: random.Random, wound: Wound) -> None:
        with self._one("server", wound):
            assert self.cluster.server is not None
            await self._trace(self.cluster.server, DISK_CALLS, chance)

    async def _fail_journal(self, chance: random.Random, wound: Wound) -> None:
        with self._one(self._node(chance), wound) as node:
            await self._trace(self.cluster.agents[node], JOURNAL_CALLS, chance)

    async def _jump_clock(self, chance: random.Random, wound: Wound) -> None:
        if not self.cluster.clocks:
            raise Skipped("the jumping clock needs a C compiler")
        wound.target, jump = (
            chance.choice(list(self.cluster.clocks)),
            chance.choice((31 * DAY_S, -31 * DAY_S, 3600, -3600)),
        )
        wound.detail = f"{jump:+d} s"
        self.cluster.clocks[wound.target].jump(jump)
        await asyncio.sleep(chance.choice((1.0, 5.0, 10.0)))
        self.cluster.clocks[wound.target].jump(0)

    # Traces

    async def _reuse_pid(self, chance: random.Random, wound: Wound) -> None:
        """An application and its shim die with their agent, and a stranger gets the shim's pid."""
        process = await self._one_of(chance, wound, shim=True)
        node = process.cluster.partition("/")[2]
        with self._one(node, wound):
            wound.launches = (process.launch_id,)
            await self._dead(self.cluster.agents[node])
            for each in await asyncio.to_thread(living, self.cluster.cluster_id):
                if each.launch_id == process.launch_id:
                    _send(each.pid, signal.SIGKILL)
            stranger = await self._stranger(process.pid)
            try:
                wound.healed = time.monotonic()
                await self.revive_agent(node)
                # Whoever took the stranger for the application would now end it.
                row = (await self._launches())[process.launch_id]
                with contextlib.suppress(Unknown, Refused):
                    await self.harness.call("terminate", row.session_id)
                await asyncio.sleep(4.0)
                if not _is_sleep(process.pid):
                    self.strangers_killed.append(f"pid {process.pid}, once the shim of {process.launch_id}")
            finally:
                _send(process.pid, signal.SIGKILL)
                await stranger.wait()

    async def _lose_journal(self, chance: random.Random, wound: Wound) -> None:
        """An agent dies and its record of one launch with it: nobody claims the application."""
        process = await self._one_of(chance, wound, shim=True)
        node = process.cluster.partition("/")[2]
        with self._one(node, wound):
            await self._dead(self.cluster.agents[node])
            entry = self.cluster.directory / node / "journal" / f"{process.launch_id}.json"
            if entry.exists():
                entry.unlink()
                wound.launches = (process.launch_id,)
            wound.healed = time.monotonic()
            await self.revive_agent(node)

    # Healing

    async def revive_server(self) -> None:
        """Start the server until it stays: its disk may be full just now."""
        deadline = time.monotonic() + _RESTART_S
        while True:
            try:
                await self.cluster.start_server()
                return
            except AssertionError as error:
                if time.monotonic() > deadline:
                    raise
                self.recorder.note(f"the server did not start: {str(error)[-400:]}")
                await self._dead(self.cluster.server)
                await asyncio.sleep(0.5)

    async def revive_agent(self, node: str) -> None:
        """Start an agent until it stays."""
        deadline = time.monotonic() + _RESTART_S
        while True:
            agent = await self.cluster.start_agent(node, wait=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3.0):
                    await agent.process.wait()
            if agent.process.returncode is None:
                return
            self.recorder.note(f"{node}'s agent did not start: {agent.tail(3)[-400:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{node}'s agent does not start")
            await asyncio.sleep(0.5)

    async def heal(self) -> None:
        """Undo whatever may be left undone, so that what remains wrong is the system's own."""
        for node in NODES:
            self.cluster.proxies[node].turn(Way.OPEN)
            self.cluster.gpus[node] = tuple(replace(gpu, lost=False) for gpu in self.cluster.gpus[node])
            self.cluster.show_gpus(node)
        for clock in self.cluster.clocks.values():
            clock.jump(0)
        for path in self.cluster.mounted:
            (path / "filler").unlink(missing_ok=True)
        assert self.cluster.server is not None
        if self.cluster.server.process.returncode is not None:
            self.recorder.note(f"the server had ended by itself: {self.cluster.server.tail(5)}")
            await self.revive_server()
        for node, agent in list(self.cluster.agents.items()):
            if agent.process.returncode is not None:
                self.recorder.note(f"{node}'s agent had ended by itself: {agent.tail(5)}")
                await self.revive_agent(node)

    # How

    @contextlib.contextmanager
    def _one(self, target: str, wound: Wound) -> Iterator[str]:
        if target in self._busy:
            raise Nothing
        wound.target = target
        self._busy.add(target)
        try:
            yield target
        finally:
            self._busy.discard(target)

    def _node(self, chance: random.Random) -> str:
        free = [node for node in NODES if node not in self._busy]
        if not free:
            raise Nothing
        return chance.choice(free)

    async def _launches(self) -> dict[str, LaunchRow]:
        try:
            _, launches, _ = await asyncio.to_thread(read_rows, self.cluster.database)
        except sqlite3.Error as error:
            raise Nothing from error
        return launches

    async def _serving(self, node: str) -> tuple[str, ...]:
        rows = (await self._launches()).values()
        return tuple(r.launch_id for r in rows if r.node == node and r.state == "READY" and r.desired == "RUNNING")

    async def _one_of(self, chance: random.Random, wound: Wound, *, shim: bool) -> Marked:
        """Draw a living process of a session."""
        spared = self.spared()
        found = await asyncio.to_thread(living, self.cluster.cluster_id)
        candidates = [each for each in found if each.shim is shim and each.launch_id not in spared]
        if not candidates:
            raise Nothing
        process = chance.choice(sorted(candidates, key=lambda each: each.pid))
        wound.target = process.cluster.partition("/")[2]
        wound.detail = f"{process.launch_id} pid {process.pid}"
        return process

    async def _dead(self, process: Process | None) -> None:
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.process.wait()

    async def _freeze(self, pids: list[int], seconds: float) -> None:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                _send(pid, signal.SIGCONT)

    async def _turn(self, way: Way, chance: random.Random, wound: Wound, seconds: tuple[float, ...]) -> None:
        free = [node for node in NODES if f"{node} link" not in self._busy]
        if not free:
            raise Nothing
        node = chance.choice(free)
        with self._one(f"{node} link", wound):
            wound.detail = f"{(lasting := chance.choice(seconds)):g} s"
            self.cluster.proxies[node].turn(way)
            try:
                await asyncio.sleep(lasting)
            finally:
                self.cluster.proxies[node].turn(Way.OPEN)

    def _change_gpu(self, node: str, number: int, **changes: object) -> None:
        gpus = list(self.cluster.gpus[node])
        gpus[number] = replace(gpus[number], **changes)  # type: ignore[arg-type]  # members by name
        self.cluster.gpus[node] = tuple(gpus)
        self.cluster.show_gpus(node)

    async def _fill(self, name: str, chance: random.Random, wound: Wound) -> None:
        path = self.cluster.directory / name
        if path not in self.cluster.mounted:
            raise Skipped("a disk of its own needs root and mount")
        with self._one(f"{name} disk", wound):
            await asyncio.to_thread(_fill_up, path / "filler")
            try:
                await asyncio.sleep(chance.choice((1.0, 4.0)))
            finally:
                (path / "filler").unlink(missing_ok=True)

    async def _trace(self, process: Process, calls: str, chance: random.Random) -> None:
        """Let a process's system calls fail with EIO for a while: all of them, or every second or third."""
        every, lasting = chance.choice((1, 2, 3)), chance.choice((1.0, 2.5))
        try:
            async with failing(process.pid, calls, when=f"1+{every}"):
                await asyncio.sleep(lasting)
        except CannotTrace as why:
            if process.process.returncode is None:
                raise Skipped(str(why)) from why
            raise Nothing from why

    async def _stranger(self, pid: int) -> asyncio.subprocess.Process:
        for _ in range(40):
            stranger = await asyncio.create_subprocess_exec(
                sys.executable, "-S", str(Path(victim.__file__)), str(pid), stdout=asyncio.subprocess.PIPE
            )
            assert stranger.stdout is not None
            if (await stranger.stdout.readline()).strip() == str(pid).encode():
                return stranger
            await stranger.wait()
            await asyncio.sleep(0.05)
        raise Skipped("clone3 with set_tid was refused: it needs root, and the pid to be free")


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_sleep(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    return False


def _begun_by(log: Path) -> tuple[str, ...]:
    """The launches that an agent has started, by its log."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("event") == "application_started":
                found.append(entry["launch_id"])
    return tuple(found)


def _fill_up(path: Path) -> None:
    """Write until there is no space."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


def _lease_again(database: Path, lease_id: str) -> str:
    """Try to lease a leased slot for another launch; empty where none is leased or the store is not to be had."""
    connection = sqlite3.connect(database, timeout=1.0, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute(
            "SELECT node, device, slot, acquired_time, session_id FROM lease WHERE released_time IS NULL LIMIT 1"
        ).fetchone()
        if row is None:
            connection.execute("ROLLBACK")
            return ""
        node, device, slot, acquired, session_id = row
        try:
            connection.execute(
                "INSERT INTO lease (lease_id, launch_id, session_id, node, device, slot, acquired_time) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (lease_id, lease_id, f"other than {session_id}", node, device, slot, acquired),
            )
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK")
            return "refused"
        connection.execute("COMMIT")
        return "accepted"
    except sqlite3.Error:
        return ""
    finally:
        connection.close()
