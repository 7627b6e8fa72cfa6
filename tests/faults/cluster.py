"""The system under test: a server and three agents, each process killable and each link cuttable."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from footlights.devices.fake_state import FakeGpu, FakeState
from tests.devices.standin import Standin, build
from tests.faults import app, deaf
from tests.faults.clocks import Clock
from tests.faults.clocks import build as build_clock
from tests.faults.proxy import Proxy
from tests.faults.sampler import living
from tests.system.stack import Process, Stack, until

NODES = {"node-a": (2, 1), "node-b": (3, 1), "node-c": (2, 2)}
"""Node -> how many GPUs, and how many slots each."""
DISK_BYTES = 48 << 20
_PORTS = 120
"""How many ports a node's launches may use."""


class Cluster(Stack):
    """A stack whose every part can be hurt. Leaving it ends, heals and unmounts everything."""

    def __init__(self, directory: Path, *, program: Sequence[str] = ("-m", "footlights")) -> None:
        super().__init__(directory, server_options=("--heartbeat-interval", "1s", "--log-format", "json"))
        self.program = tuple(program)
        """What agents are started with: planted bugs are programs of their own."""
        self.proxies: dict[str, Proxy] = {}
        self.machines: dict[str, Standin] = {}
        self.gpus: dict[str, tuple[FakeGpu, ...]] = {}
        self.generations: dict[str, int] = {}
        self.cluster_id = ""
        self.ports: dict[str, int] = {}
        self.others: list[Process] = []
        """Duplicates, strace and the like, ended with the rest."""
        self.mounted: list[Path] = []
        self.deaf = directory / "deaf"
        """While this file is there, nobody in the server is woken."""
        self.clocks: dict[str, Clock] = {}
        """Whose wall clock can jump."""

    @property
    def database(self) -> Path:
        return self.directory / "server" / "footlights.db"

    async def __aenter__(self) -> Cluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        library = await asyncio.to_thread(build)
        clock = await asyncio.to_thread(build_clock)
        for name in ("server", *NODES):
            self._disk(self.directory / name)
            self.clocks[name] = Clock(clock, self.directory / f"{name}.clock")
        first = _free_ports(2 + 4 * _PORTS)
        self.grpc, self.http = f"127.0.0.1:{first}", f"http://127.0.0.1:{first + 1}"
        try:
            await self.start_server()
            for index, (node, (count, _)) in enumerate(NODES.items()):
                self.ports[node] = first + 2 + index * _PORTS
                self.proxies[node] = Proxy(("127.0.0.1", first))
                await self.proxies[node].start()
                self.machines[node] = Standin(library, self.directory / f"{node}.gpus")
                self.gpus[node] = tuple(FakeGpu(uuid=_uuid(index, number)) for number in range(count))
                self.generations[node] = 0
                self.show_gpus(node)
            self.ports["duplicate"] = first + 2 + len(NODES) * _PORTS
            await asyncio.gather(*(self.start_agent(node) for node in NODES))
            self.cluster_id = await self._read_cluster_id()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    # Starting

    async def start_server(self) -> None:
        """Start the server on the ports it had before. Raises AssertionError where it does not come up."""
        data = self.directory / "server"
        (data / "endpoints.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "tests.faults.deaf", "server", "--data-dir", str(data)]
        argv += ["--grpc-listen", self.grpc, "--http-listen", self.http.removeprefix("http://"), *self.server_options]
        environment = {**self._environment("server"), deaf.VARIABLE: str(self.deaf)}
        self.server = await Process.start("server", argv, self.directory / "server.log", environment)
        server = self.server

        async def listening() -> bool:
            assert server.process.returncode is None, f"the server ended:\n{server.tail(5)}"
            return (data / "endpoints.json").exists()

        await until(listening, what="the server listens", timeout_s=30)
        self.token = (data / "admin.token").read_text().strip()
        if self._client is None:
            self._client = self.client(self.token)

    async def start_agent(  # type: ignore[override]  # its options are this cluster's own
        self, node: str = "node-a", *, wait: bool = True
    ) -> Process:
        """Start a node's agent behind its proxy."""
        agent = await self.launch_agent(node, self.directory / node, self.ports[node], name=node)
        self.agents[node] = agent

        async def linked() -> bool:
            assert agent.process.returncode is None, f"the agent ended:\n{agent.tail(5)}"
            answer = await self.call("GET", f"/nodes/{node}")
            return answer.status_code == 200 and answer.json()["state"] == "READY"

        if wait:
            await until(linked, what=f"{node} is READY", timeout_s=30)
        return agent

    async def launch_agent(
        self, node: str, data: Path, first_port: int, *, name: str, server: str = "", program: Sequence[str] = ()
    ) -> Process:
        """Start a process that is an agent of ``node``; it need not be the only one, nor behind the node's proxy."""
        token = self.directory / f"{node}.token"
        if not token.exists():
            token.write_text((await self.post("/tokens", {"role": "NODE", "subject": node}))["secret"])
        argv = [sys.executable, *(program or self.program), "agent", "--node", node]
        argv += ["--server", server or self.proxies[node].address]
        argv += ["--token-file", str(token), "--data-dir", str(data), "--devices", "nvml"]
        argv += ["--launchers", "fake", "--launchers", "process", "--slots-per-device", str(NODES[node][1])]
        argv += ["--first-port", str(first_port), "--last-port", str(first_port + _PORTS - 1)]
        argv += ["--device-interval", "1s", "--log-format", "json"]
        environment = {**self._environment(node), **self.machines[node].environment}
        return await Process.start(name, argv, self.directory / f"{name}.log", environment)

    # Hurting and healing

    def show_gpus(self, node: str) -> None:
        """Let the node's driver answer what ``gpus`` has."""
        self.machines[node].set(FakeState(gpus=self.gpus[node], generation=self.generations[node]))

    async def register_applications(self) -> dict[str, frozenset[str]]:
        """Register what sessions run; returns the end reasons that each has by design."""
        python, source = sys.executable, str(Path(app.__file__))

        def process(*arguments: str) -> dict[str, object]:
            return {
                "version": "1.0.0",
                "command": [python, "-S", source, "{http_port}", "{signal_port}", *arguments],
                "limits": {"stop_grace_period": "1s", "start_timeout": "40s"},
            }

        limits = {"stop_grace_period": "1s", "start_timeout": "40s"}
        viewer = [str(Path(python).with_name("footlights-viewer")), "--signal-port", "{signal_port}"]
        viewer += ["--media-port", "{media_port}", "--http-port", "{http_port}", "--public-address", "{public_address}"]
        viewer += ["--width", "320", "--height", "180", "--fps", "10", "--ssaa", "1", "--codec", "vp8"]
        versions: dict[str, tuple[dict[str, object], frozenset[str]]] = {
            "fake": ({"version": "1.0.0", "fake": {"ready_after": "0.1s"}, "limits": limits}, frozenset()),
            "fake-slow": ({"version": "1.0.0", "fake": {"ready_after": "2s", "stop_after": "0.5s"}}, frozenset()),
            "fake-brief": ({"version": "1.0.0", "fake": {"exit_after": "4s"}}, frozenset({"COMPLETED"})),
            "fake-crash": (
                {"version": "1.0.0", "fake": {"exit_after": "3s", "exit_code": 7}},
                frozenset({"CRASHED"}),
            ),
            # Ends before it is ready, always: a crash loop, which must be bounded.
            "fake-broken": (
                {"version": "1.0.0", "fake": {"ready_after": "30s", "exit_after": "0.2s", "exit_code": 3}},
                frozenset({"LAUNCH_FAILED"}),
            ),
            "app": (process(), frozenset()),
            "app-family": (process("--children", "2"), frozenset()),
            "app-stubborn": (process("--children", "1", "--stubborn"), frozenset()),
            "app-slow": (process("--slow", "1.5"), frozenset()),
            "app-brief": (process("--exit-after", "4"), frozenset({"COMPLETED"})),
            "viewer": (
                {
                    "version": "1.0.0",
                    "command": viewer,
                    "limits": {"stop_grace_period": "2s", "start_timeout": "90s"},
                    "signaling": {"whep_path": "/whep"},
                    "presence": {"source": "HTTP"},
                },
                frozenset(),
            ),
        }
        for name, (version, _) in versions.items():
            await self.put(
                f"/applications/{name}",
                {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}},
            )
        return {name: reasons for name, (_, reasons) in versions.items()}

    # Ending

    async def _close(self) -> None:
        for process in self.others:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.process.wait()
        for proxy in self.proxies.values():
            await proxy.close()
        if self.cluster_id:
            for agent in self.agents.values():
                agent.kill()
            for _ in range(20):
                left = await asyncio.to_thread(living, self.cluster_id)
                if not left:
                    break
                for each in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each.pid, signal.SIGKILL)
                await asyncio.sleep(0.1)
        await super()._close()
        await asyncio.to_thread(self._unmount)

    def _environment(self, name: str) -> dict[str, str]:
        return self.clocks[name].environment if name in self.clocks else {}

    def _disk(self, path: Path) -> None:
        """Give a directory a small disk of its own, that can be filled without hurting anybody else."""
        path.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() != 0:
            return
        options = f"size={DISK_BYTES},mode=0700"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=False)
        if done.returncode == 0:
            self.mounted.append(path)

    def _unmount(self) -> None:
        """Take the disks away again, and keep what was on them for whoever looks into a failed run."""
        for path in self.mounted:
            kept = path.with_name(f"{path.name}.kept")
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(path, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("filler", "output"))
            subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
        self.mounted.clear()

    async def _read_cluster_id(self) -> str:
        file = self.directory / "node-a" / "cluster.json"

        async def there() -> bool:
            return file.exists()

        await until(there, what="the agent knows its cluster")
        return str(json.loads(file.read_text())["cluster_id"])


def _uuid(node: int, number: int) -> str:
    return f"GPU-{node:08x}-0000-0000-0000-{number:012x}"


def _free_ports(count: int) -> int:
    """Find so many free ports in a row below Linux's ephemeral range, so that nobody is given one by chance."""
    for first in range(15000 + os.getpid() % 97 * 20, 30000, 700):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count, 7):
                    held.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", port))
                for port in (first, first + 1):
                    if port != first:
                        held.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError(f"no {count} free ports in a row")
