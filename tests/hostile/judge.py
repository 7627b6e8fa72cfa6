"""Says whether an attack succeeded, for any launcher.

``Setting`` says how to start applications; ``judge`` puts a stand-in for the agent and a neighbour on the node, starts
the attacker, and looks from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from footlights.v1.application_pb2 import Version

from footlights.launch.launcher import Launcher, LaunchPlan, Phase, Ports, Status
from footlights.linux import procfs
from tests.hostile import node, program
from tests.launch.plans import make_plan
from tests.launch.waiting import until

ATTACKS = {
    "read-files": "read another session's files",
    "read-environment": "read another session's environment and memory",
    "read-key": "read the agent's key",
    "kill-others": "kill the agent or another session",
    "kill-supervisor": "kill what supervises it",
    "escape": "outlive its session by a double fork with an empty environment",
    "forge-exit": "forge its exit and go on",
    "fill-disk": "fill the disk with files",
    "fill-log": "fill the disk with output",
    "fork-bomb": "fork without end",
    "use-memory": "use memory without end",
    "listen": "listen on a neighbour's port",
    "reach-loopback": "reach the node's loopback, its abstract sockets and its engine's socket",
    "reach-neighbour": "reach what another session listens on beside its published ports",
    "read-device": "read the node's disk, memory or kernel log by a device node",
    "gain-rights": "have rights beyond an ordinary user's",
}
"""Each mode of `program`, and what it would achieve."""
MIB = 1 << 20
DEADLINE_S = 60.0
_SOURCES = {module: Path(str(module.__file__)).read_text(encoding="utf-8") for module in (program, node)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How applications are started, and how much each of them may use."""

    launcher: Launcher
    root: Path
    """Where launches have their directories."""
    version: Callable[[list[str]], Version]
    """Makes the version that runs a command under the launcher."""
    python: str = "/usr/bin/python3"
    """The interpreter, as the application sees it."""
    on_node: tuple[str, ...] = ()
    """A command that runs another one on the node, where that is not where the tests run, such as ``nsenter …``."""
    node_python: str = "/usr/bin/python3"
    first_port: int = 29200
    """Nine ports from here on are used."""
    allowed_bytes: int = 64 * MIB
    """What an application's files may take up at most, and its output; attackers try twice as much."""
    allowed_memory_bytes: int = 256 * MIB
    allowed_tasks: int = 256
    kept_in: tuple[Path, ...] = ()
    """Directories in which the launcher and its engine keep what applications write; ``root`` is one of them."""
    own_network: bool = False
    """Whether applications have a network of their own."""
    loses_output: bool = False
    """Whether the launcher drops output where there is too much of it, so that an attacker's last words may be lost."""
    sockets: tuple[str, ...] = ()
    """Unix sockets of the node that no application may reach, such as the engine's."""


@dataclass(frozen=True)
class Verdict:
    """What came of an attack."""

    attack: str
    succeeded: bool
    evidence: str


class Judge:
    """One attack: the node, the neighbour, the attacker."""

    def __init__(self, setting: Setting, attack: str) -> None:
        self.setting = setting
        self.attack = attack
        mark = secrets.token_hex(8)
        self.token = f"hostile-token-{mark}"
        self.mark = f"hostile-agent-{mark}"
        self.secret = {name: f"SECRET_{name}_{secrets.token_hex(8)}" for name in ("neighbour", "loopback", "key")}
        first = setting.first_port
        self.ports = [Ports(signal=port, media=port + 1, http=port + 2) for port in (first, first + 4)]
        self.loopback_port = first + 8
        self.unused_port = first + 9
        self.private_port = first + 10

    async def run(self) -> Verdict:
        """Set everything up, attack, judge, and remove it all."""
        setting = self.setting
        key = setting.root.parent / "agent" / "key.pem"
        key.parent.mkdir(mode=0o700, exist_ok=True)
        key.write_text(self.secret["key"])
        key.chmod(0o600)
        async with self._agent() as (agent, agent_pid), self._started("neighbour", 0, {}) as neighbour:
            said = await self._said(neighbour, "done")
            used = self._used()
            hints = self._hints(neighbour, await setting.launcher.status(neighbour), agent_pid, key)
            hints["addresses"] = last(said, "addresses", [])
            async with self._started(self.attack, 1, hints) as attacker:
                supervisor = await self._supervisor()
                succeeded, evidence = await self._verdict(attacker, neighbour, agent, supervisor, used)
        return Verdict(self.attack, succeeded, evidence)

    async def _verdict(
        self,
        attacker: LaunchPlan,
        neighbour: LaunchPlan,
        agent: asyncio.subprocess.Process,
        supervisor: procfs.Identity | None,
        used: int,
    ) -> tuple[bool, str]:
        setting, launcher = self.setting, self.setting.launcher
        said = await self._said(attacker, "done")
        match self.attack:
            case "read-files" | "read-environment" | "read-key" | "reach-loopback" | "reach-neighbour":
                found = sorted(set(last(said, "secrets", [])) & set(self.secret.values()))
                reached = last(said, "reached", [])
                return bool(found or reached), f"found {found}, reached {reached}"
            case "kill-others":
                alive = (procfs.Identity.of(agent.pid) is not None, (await launcher.status(neighbour)).phase)
                return alive != (True, Phase.RUNNING), f"agent alive: {alive[0]}, neighbour {alive[1].name}"
            case "kill-supervisor":
                gone = supervisor is not None and not supervisor.alive()
                await launcher.stop(attacker, kill=True)
                code = (await self._ended(attacker)).exit_code
                return gone or code is None, f"supervisor gone: {gone}, exit status {code}"
            case "escape":
                with contextlib.suppress(AssertionError):
                    await self._ended(attacker, deadline_s=3.0)
                await launcher.stop(attacker, kill=True)
                await self._ended(attacker)
                left = with_argument(self.token)
                return bool(left), f"alive after its end: {[process.pid for process in left]}"
            case "forge-exit":
                return await self._forged(attacker)
            case "fill-disk" | "fill-log":
                reported, grown = last(said, "bytes", 0), self._used() - used
                text = f"{reported // MIB} MiB written, {grown // MIB} MiB kept"
                return max(reported, grown) > setting.allowed_bytes, text
            case "fork-bomb":
                tasks = last(said, "tasks", 0)
                return tasks > setting.allowed_tasks, f"{tasks} processes"
            case "use-memory":
                held = last(said, "bytes", 0)
                return held > setting.allowed_memory_bytes, f"{held // MIB} MiB"
            case "listen":
                heard = await self._on_node("ask", str(self.unused_port))
                return self.token in heard, f"the node's port answers {heard.split()}"
            case "read-device":
                devices = last(said, "devices", [])
                return bool(devices), f"read {devices}"
            case "gain-rights":
                gained = last(said, "gained", [])
                return bool(gained), f"gained {gained}"
            case other:
                raise AssertionError(other)

    async def _forged(self, attacker: LaunchPlan) -> tuple[bool, str]:
        """Whether its end was believed while it went on, or its status was not the one that it ended with."""
        end = time.monotonic() + 10.0
        while True:
            status = await self.setting.launcher.status(attacker)
            if status.phase is not Phase.RUNNING or time.monotonic() > end:
                break
            await asyncio.sleep(0.05)
        alive = bool(with_argument(self.token))
        believed = alive and status.phase is not Phase.RUNNING
        return believed or status.exit_code != 7, f"{status.phase.name} with status {status.exit_code}, alive: {alive}"

    def _hints(self, neighbour: LaunchPlan, status: Status, agent_pid: int, key: Path) -> dict[str, Any]:
        setting = self.setting
        root = os.stat("/").st_dev
        paths = [str(neighbour.directory), str(setting.root), *(str(path) for path in setting.kept_in)]
        sizes = {"use-memory": setting.allowed_memory_bytes}
        ports = {
            "listen": [self.unused_port],
            "reach-loopback": [self.loopback_port],
            "reach-neighbour": [self.private_port],
        }
        return {
            "paths": paths,
            "pids": sorted(status.pids),
            "agent_pids": [agent_pid],
            "mark": self.mark,
            "key": str(key),
            "spared": [os.getpid(), os.getppid()],
            "token": self.token,
            "directories": [str(setting.root / self._launch_id(1))],
            "bytes": 2 * sizes.get(self.attack, setting.allowed_bytes),
            "tasks": 2 * setting.allowed_tasks,
            "ports": ports.get(self.attack, []),
            "abstract": [self.mark],
            "sockets": list(setting.sockets),
            "devices": [["b", os.major(root), os.minor(root)], ["c", 1, 1], ["c", 1, 11]],
            **({"lasts_s": 2.0, "code": 7} if self.attack == "forge-exit" else {}),
        }

    def _launch_id(self, number: int) -> str:
        return f"l-{self.token[-8:]}-{number}"

    @contextlib.asynccontextmanager
    async def _started(self, mode: str, number: int, hints: dict[str, Any]) -> AsyncIterator[LaunchPlan]:
        setting, ports = self.setting, self.ports[number]
        hints = hints or {"file": "hostile-neighbour", "ports": [self.private_port]}
        # The token is an argument of its own: the judge finds the attacker by it.
        argv = [setting.python, "-I", "-c", _SOURCES[program], mode, json.dumps(hints)]
        version = setting.version([*argv, self.token if mode != "escape" else "-"])
        if mode == "neighbour":
            version.command[-1] = "neighbour"
            version.environment["NEIGHBOUR_SECRET"] = self.secret["neighbour"]
        launch_id, own_network = self._launch_id(number), setting.own_network
        plan = make_plan(version, setting.root, ports=ports, launch_id=launch_id, grace_s=1.0, own_network=own_network)
        await setting.launcher.prepare(plan)
        secret = self.secret["neighbour"] if mode == "neighbour" else "nothing"
        try:
            await setting.launcher.start(plan, json.dumps({"secret": secret}).encode())
            yield plan
        finally:
            with contextlib.suppress(AssertionError):
                await setting.launcher.stop(plan, kill=True)
                await self._ended(plan, deadline_s=20.0)
            for process in with_argument(self.token):
                process.send(signal.SIGKILL)
            with contextlib.suppress(AssertionError):
                await self._ended(plan, deadline_s=20.0)
            await setting.launcher.discard(plan)

    @contextlib.asynccontextmanager
    async def _agent(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
        setting = self.setting
        command = [*setting.on_node, setting.node_python, "-I", "-c", _SOURCES[node], "agent", self.secret["loopback"]]
        process = await asyncio.create_subprocess_exec(
            *(*command, str(self.loopback_port), self.mark, self.mark),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "AGENT_KEY": self.secret["key"]},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, int(await process.stdout.readline())
        finally:
            # What brought it to the node may be another process: the end of its input ends it there too.
            process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def _on_node(self, *arguments: str) -> str:
        command = [*self.setting.on_node, self.setting.node_python, "-I", "-c", _SOURCES[node], *arguments]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return said.decode()

    async def _supervisor(self) -> procfs.Identity | None:
        """Find what started the attacker; None where it has ended already."""
        for process in with_argument(self.token):
            stat = procfs.read_stat(process.pid)
            if stat is not None and stat.parent > 1:
                return procfs.Identity.of(stat.parent)
        return None

    async def _said(self, plan: LaunchPlan, member: str) -> list[dict[str, Any]]:
        """Wait until the program said ``member`` or has ended, and return all that it said."""
        end = time.monotonic() + DEADLINE_S
        while True:
            status = await self.setting.launcher.status(plan)
            said = await self._lines(plan)
            if errors := [line["error"] for line in said if "error" in line]:
                raise AssertionError(f"the program failed in mode {self.attack}: {errors}")
            if any(member in line for line in said):
                return said
            if status.phase is not Phase.RUNNING:
                # An attacker may be killed for what it does; but it must have begun.
                assert said, f"it ended before it said anything: {status}"
                return said
            if self.attack == "fill-log" and self.setting.loses_output and time.monotonic() > end - DEADLINE_S / 2:
                return said
            assert time.monotonic() < end, f"not done in time: {said[-3:]}"
            await asyncio.sleep(0.1)

    async def _lines(self, plan: LaunchPlan) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(1000):
            part = await self.setting.launcher.log(plan, cursor=cursor)
            found += [json.loads(line[8:]) for line in part.lines if line.startswith("HOSTILE ")]
            if not part.lines or part.cursor == cursor:
                break
            cursor = part.cursor
        return found

    async def _ended(self, plan: LaunchPlan, deadline_s: float = DEADLINE_S) -> Status:
        return await until(
            lambda: self.setting.launcher.status(plan),
            lambda status: status.phase is not Phase.RUNNING,
            deadline_s=deadline_s,
        )

    def _used(self) -> int:
        """The bytes on disk below the places that the launcher keeps things in."""
        total = 0
        for place in {self.setting.root, *self.setting.kept_in}:
            for folder, _, names in os.walk(place):
                for name in names:
                    with contextlib.suppress(OSError):
                        total += os.lstat(os.path.join(folder, name)).st_blocks * 512
        return total


async def judge(setting: Setting, attack: str) -> Verdict:
    """Carry out one of `ATTACKS` and say what came of it."""
    return await Judge(setting, attack).run()


def with_argument(argument: str) -> list[procfs.Identity]:
    """Find the living processes of this machine, containers included, that have an argument."""
    found = []
    for pid in procfs.pids():
        with contextlib.suppress(OSError):
            if argument.encode() in (procfs.PROC / str(pid) / "cmdline").read_bytes().split(b"\0"):
                found.append(procfs.Identity.of(pid))
    return [process for process in found if process is not None]


def last(said: list[dict[str, Any]], member: str, default: Any) -> Any:
    """Return what was said of ``member`` last."""
    return next((line[member] for line in reversed(said) if member in line), default)
