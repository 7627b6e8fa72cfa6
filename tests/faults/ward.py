"""What injuries are done with: whom they may hurt, the tools, and how everything is made well again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults import victim
from tests.faults.calls import Caller
from tests.faults.cluster import NODES, Cluster
from tests.faults.evidence import LaunchRow, read_rows
from tests.faults.history import Recorder
from tests.faults.proxy import Way
from tests.faults.sampler import Marked, living
from tests.faults.tracing import CannotTrace, failing
from tests.faults.workload import Workload
from tests.system.stack import Process

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
class Ward:
    """The system under test as something to be hurt, one fault at a time on one part."""

    cluster: Cluster
    recorder: Recorder
    workload: Workload
    harness: Caller
    """For requests in the harness's own name."""
    spared: Callable[[], frozenset[str]]
    """Launches that are never hurt directly: somebody watches them to see that the rest does not hurt them."""
    strangers_killed: list[str] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)

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
        self.cluster.deaf.unlink(missing_ok=True)
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
            send(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                send(pid, signal.SIGCONT)

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


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def is_sleep(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    return False


def _fill_up(path: Path) -> None:
    """Write until there is no space."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass
