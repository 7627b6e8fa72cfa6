"""A stand-in for Docker's Engine API, on a Unix socket: its containers are processes of this machine.

It keeps the API's shapes and statuses for what the launcher uses (Engine API 1.44 and later: containers
create/json/start/stop/kill/logs/list/remove, images json/create, networks, info, version) and, unlike the real engine,
refuses members and parameters that it does not know. An image may have an `Entrypoint` and a `Cmd`; a container's own
entry point replaces both. A mount is a renaming: an environment variable whose value is a
mount's target gets its source. Networks are names. A container ends as a pid namespace does: when its first process
ends, all others are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from footlights.launch.process.launcher import LAUNCH_MARK
from footlights.linux import procfs

CREATE_MEMBERS = {
    *("Image", "Cmd", "Env", "User", "WorkingDir", "Labels", "Tty", "OpenStdin", "StopSignal", "StopTimeout"),
    *("ExposedPorts", "HostConfig", "Entrypoint"),
}
HOST_MEMBERS = {
    *("Binds", "NetworkMode", "Init", "AutoRemove", "RestartPolicy", "LogConfig", "ShmSize", "DeviceRequests"),
    *("PortBindings", "IpcMode", "CapDrop", "SecurityOpt", "ReadonlyRootfs", "Tmpfs", "Memory", "MemorySwap"),
    *("NanoCpus", "PidsLimit"),
}


@dataclass
class Container:
    """One container and its process."""

    name: str
    config: dict[str, Any]
    status: str = "created"
    exit_code: int = 0
    process: asyncio.subprocess.Process | None = None
    lines: list[tuple[str, int, str]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def environment(self) -> dict[str, str]:
        targets = {}
        for bind in self.config["HostConfig"].get("Binds") or []:
            source, target, *_ = bind.split(":")
            targets[target] = source
        pairs = [entry.partition("=") for entry in self.config.get("Env") or []]
        given = {name: targets.get(value, value) for name, _, value in pairs}
        return {"PATH": "/usr/bin:/bin", **given}


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StandinEngine:
    """The engine's state; `application` is its API."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {"app:1": {"User": "", "Volumes": None}}
        """What is here, with what the image says of itself."""
        self.networks: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, str] = {}
        """What podman keeps."""
        self.info: dict[str, Any] = {
            **dict.fromkeys(("MemoryLimit", "CpuCfsQuota", "PidsLimit"), True),
            # Its containers are processes of this machine and of the tests' user: as in a user namespace.
            "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=rootless"],
        }
        self.registry = {"app:1", "app:2"}
        """What can be pulled."""
        self.devices = {"nvidia.com/gpu=GPU-0000"}
        self.containers: dict[str, Container] = {}
        self.created: list[dict[str, Any]] = []
        self.pulled: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for name in list(self.containers):
            await self.remove(name)
        await asyncio.gather(*self._tasks)

    # What an engine does

    def create(self, name: str, config: dict[str, Any]) -> None:
        if unknown := set(config) - CREATE_MEMBERS | set(config["HostConfig"]) - HOST_MEMBERS:
            raise Refusal(400, f"unknown members {sorted(unknown)}")
        if config["Image"] not in self.images:
            raise Refusal(404, f"No such image: {config['Image']}")
        network = config["HostConfig"]["NetworkMode"]
        if network not in ("host", *self.networks):
            raise Refusal(404, f"network {network} not found")
        if name in self.containers:
            raise Refusal(409, f'Conflict. The container name "/{name}" is already in use')
        self.created.append(config)
        self.containers[name] = Container(name, config)

    def create_network(self, network: dict[str, Any]) -> None:
        if network["Name"] in self.networks:
            raise Refusal(409, f"network with name {network['Name']} already exists")
        self.networks[network["Name"]] = {"Id": network["Name"], **network}

    async def start(self, name: str) -> None:
        container = self.get(name)
        if container.status == "running":
            raise Refusal(304, "")
        for request in container.config["HostConfig"].get("DeviceRequests") or []:
            if missing := set(request["DeviceIDs"]) - self.devices:
                raise Refusal(500, f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
        try:
            container.process = await asyncio.create_subprocess_exec(
                *self.command(container.config),
                env=container.environment,
                cwd=container.config.get("WorkingDir") or "/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            command = self.command(container.config)[0]
            container.exit_code = 127
            raise Refusal(400, f'exec: "{command}": executable file not found in $PATH: unknown') from None
        container.status = "running"
        task = asyncio.create_task(self._follow(container, container.process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def command(self, config: dict[str, Any]) -> list[str]:
        image = self.images[config["Image"]]
        own, command = config.get("Entrypoint"), config.get("Cmd") or []
        first = (image.get("Entrypoint") or []) if own is None else own
        return [*first, *(command or (image.get("Cmd") or [] if own is None else []))]

    async def stop(self, name: str, grace_s: float) -> None:
        container = self.get(name)
        if container.status != "running" or container.process is None:
            raise Refusal(304, "")
        _signal(container.process, signal.SIGTERM)
        try:
            await asyncio.wait_for(container.ended.wait(), grace_s)
        except TimeoutError:
            _signal(container.process, signal.SIGKILL)
            await container.ended.wait()

    def kill(self, name: str) -> None:
        container = self.get(name)
        if container.status != "running" or container.process is None:
            raise Refusal(409, f"container {name} is not running")
        _signal(container.process, signal.SIGKILL)

    async def remove(self, name: str) -> None:
        container = self.get(name)
        if container.status == "running":
            self.kill(name)
            await container.ended.wait()
        del self.containers[name]

    def get(self, name: str) -> Container:
        if name not in self.containers:
            raise Refusal(404, f"No such container: {name}")
        return self.containers[name]

    def pull(self, image: str) -> None:
        if image not in self.registry:
            raise Refusal(404, f"pull access denied for {image}, repository does not exist")
        self.pulled.append(image)
        self.images.setdefault(image, {"User": "", "Volumes": None})

    def state(self, name: str) -> dict[str, Any]:
        container = self.get(name)
        return {
            "Status": container.status,
            "Running": container.status == "running",
            "Paused": False,
            "Restarting": False,
            "OOMKilled": False,
            "Dead": False,
            "Pid": container.process.pid if container.process and container.status == "running" else 0,
            "ExitCode": container.exit_code,
            "Error": "",
        }

    def listed(self, labels: list[str]) -> list[dict[str, Any]]:
        return [
            {"Id": one.name, "Names": [f"/{one.name}"], "Labels": one.config["Labels"], "State": one.status}
            for one in self.containers.values()
            if all(one.config["Labels"].get(label.partition("=")[0]) == label.partition("=")[2] for label in labels)
        ]

    def logs(self, name: str, since: int, tail: str) -> list[tuple[str, int, str]]:
        lines = self.get(name).lines
        fresh = [line for line in lines if datetime.fromisoformat(line[0][:19] + "+00:00").timestamp() >= since]
        return fresh if tail == "all" else fresh[-int(tail) :]

    async def _follow(self, container: Container, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            asyncio.create_task(self._read(container, number, stream))
            for number, stream in ((1, process.stdout), (2, process.stderr))
        ]
        # Not `wait`, which also waits for what its children have of its output.
        while (code := process.returncode) is None:  # noqa: ASYNC110 - asyncio has no event for it
            await asyncio.sleep(0.02)
        mark = container.environment.get(LAUNCH_MARK, container.name)
        while left := procfs.marked({LAUNCH_MARK: mark}):
            procfs.kill(left, signal.SIGKILL)
            await asyncio.sleep(0.01)
        await asyncio.gather(*readers)
        container.exit_code = 128 - code if code < 0 else code
        container.status = "exited"
        container.ended.set()

    async def _read(self, container: Container, number: int, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            now = datetime.now(UTC)
            time = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}000Z"
            container.lines.append((time, number, line.decode().rstrip("\n")))


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a process that runs. Its own ``kill`` would reap it first, and asyncio would lose its exit status."""
    if process.returncode is None:
        # Gone already, when asyncio has reaped it and not yet said so.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def application(engine: StandinEngine) -> web.Application:
    """The Engine API over ``engine``."""
    routes = web.RouteTableDef()

    @routes.get("/version")
    @routes.get("/{v}/version")
    async def version(request: web.Request) -> web.Response:
        return web.json_response({"Version": "28.2.2", "ApiVersion": "1.50", "MinAPIVersion": "1.24"})

    @routes.get("/{v}/images/{image:.+}/json")
    async def image(request: web.Request) -> web.Response:
        name = request.match_info["image"]
        if name not in engine.images:
            raise Refusal(404, f"No such image: {name}")
        return web.json_response({"Id": f"sha256:{name}", "RepoTags": [name], "Config": engine.images[name]})

    @routes.get("/{v}/info")
    async def info(request: web.Request) -> web.Response:
        return web.json_response(engine.info)

    @routes.get("/{v}/networks")
    async def networks(request: web.Request) -> web.Response:
        wanted = json.loads(_only(request, "filters")["filters"])["name"]
        found = [network for name, network in engine.networks.items() if f"^{name}$" in wanted]
        return web.json_response(found)

    @routes.post("/{v}/networks/create")
    async def create_network(request: web.Request) -> web.Response:
        engine.create_network(await request.json())
        return web.json_response({"Id": "1", "Warning": ""}, status=201)

    @routes.get("/{v}/networks/{name}")
    async def network(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in engine.networks:
            raise Refusal(404, f"network {name} not found")
        return web.json_response(engine.networks[name])

    @routes.post("/{v}/images/create")
    async def pull(request: web.Request) -> web.StreamResponse:
        name = _only(request, "fromImage", "tag")["fromImage"]
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await answer.write(json.dumps({"status": f"Pulling from {name}"}).encode() + b"\r\n")
        try:
            engine.pull(name)
            await answer.write(json.dumps({"status": "Downloaded newer image"}).encode() + b"\r\n")
        except Refusal as refusal:  # as the engine does: the status has gone out long before
            error = {"errorDetail": {"message": str(refusal)}, "error": str(refusal)}
            await answer.write(json.dumps(error).encode() + b"\r\n")
        return answer

    @routes.post("/{v}/containers/create")
    async def create(request: web.Request) -> web.Response:
        name = _only(request, "name")["name"]
        engine.create(name, await request.json())
        return web.json_response({"Id": name, "Warnings": []}, status=201)

    @routes.get("/{v}/containers/json")
    async def listing(request: web.Request) -> web.Response:
        query = _only(request, "all", "filters")
        found = engine.listed(json.loads(query.get("filters", "{}")).get("label", []))
        everything = query.get("all") in ("true", "1", "True")
        return web.json_response([one for one in found if everything or one["State"] == "running"])

    @routes.get("/{v}/containers/{name}/json")
    async def inspect(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        state = engine.state(name)
        return web.json_response({"Id": name, "Name": f"/{name}", "State": state, "Config": engine.get(name).config})

    @routes.post("/{v}/containers/{name}/start")
    async def start(request: web.Request) -> web.Response:
        await engine.start(request.match_info["name"])
        return web.Response(status=204)

    @routes.post("/{v}/containers/{name}/stop")
    async def stop(request: web.Request) -> web.Response:
        await engine.stop(request.match_info["name"], float(_only(request, "t")["t"]))
        return web.Response(status=204)

    @routes.post("/{v}/containers/{name}/kill")
    async def kill(request: web.Request) -> web.Response:
        assert _only(request, "signal") == {"signal": "SIGKILL"}
        engine.kill(request.match_info["name"])
        return web.Response(status=204)

    @routes.delete("/{v}/containers/{name}")
    async def remove(request: web.Request) -> web.Response:
        _only(request, "force", "v", "link")
        await engine.remove(request.match_info["name"])
        return web.Response(status=204)

    @routes.get("/{v}/containers/{name}/logs")
    async def logs(request: web.Request) -> web.Response:
        query = _only(request, "stdout", "stderr", "follow", "timestamps", "since", "tail")
        lines = engine.logs(request.match_info["name"], int(query.get("since", "0")), query.get("tail", "all"))
        frames = [(number, f"{time} {text}\n".encode()) for time, number, text in lines]
        body = b"".join(struct.pack(">BxxxL", number, len(text)) + text for number, text in frames)
        return web.Response(body=body, headers={"Content-Type": "application/vnd.docker.multiplexed-stream"})

    @routes.post("/standin/{call}")
    async def standin(request: web.Request) -> web.Response:
        """What the stand-in for podman's command asks; no part of the Engine API."""
        call, wants = request.match_info["call"], await request.json()
        return web.json_response(await _podman(engine, call, wants))

    server = web.Application(middlewares=[_refusals])
    server.add_routes(routes)
    return server


async def serve(engine: StandinEngine, socket: Path) -> web.AppRunner:
    """Serve the API on a Unix socket until the runner is cleaned up."""
    runner = web.AppRunner(application(engine), shutdown_timeout=1.0)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    os.chmod(socket, 0o600)
    return runner


async def _podman(engine: StandinEngine, call: str, wants: Mapping[str, Any]) -> Any:
    match call:
        case "create":
            return engine.create(wants["name"], wants["config"])
        case "start":
            return await engine.start(wants["name"])
        case "stop":
            return await engine.stop(wants["name"], wants["grace_s"])
        case "kill":
            return engine.kill(wants["name"])
        case "remove":
            return await engine.remove(wants["name"])
        case "inspect":
            return engine.state(wants["name"])
        case "logs":
            return engine.logs(wants["name"], wants["since"], wants["tail"])
        case "list":
            return engine.listed(wants["labels"])
        case "image":
            return engine.images.get(wants["image"])
        case "info":
            seccomp = any(option.startswith("name=seccomp") for option in engine.info["SecurityOptions"])
            return {
                "host": {
                    "cgroupVersion": "v2",
                    "cgroupControllers": [
                        "cpuset",
                        "cpu",
                        "io",
                        *(["memory"] if engine.info["MemoryLimit"] else []),
                        "pids",
                    ],
                    "security": {
                        "rootless": "name=rootless" in engine.info["SecurityOptions"],
                        "seccompEnabled": seccomp,
                    },
                }
            }
        case "create_network":
            return engine.create_network(
                {"Name": wants["name"], "Options": wants["options"], "Subnet": wants["subnet"]}
            )
        case "remove_network":
            return engine.networks.pop(wants["name"], None)
        case "create_secret":
            if wants["name"] in engine.secrets:
                raise Refusal(500, f"{wants['name']}: secret name in use")
            engine.secrets[wants["name"]] = wants["value"]
            return None
        case "read_secret":
            return engine.secrets[wants["name"]]
        case "list_secrets":
            return list(engine.secrets)
        case "remove_secret":
            if wants["name"] not in engine.secrets:
                raise Refusal(404, wants["name"])
            del engine.secrets[wants["name"]]
            return None
        case "pull":
            return engine.pull(wants["image"])
        case _:
            raise Refusal(404, call)


def _only(request: web.Request, *known: str) -> dict[str, str]:
    if unknown := set(request.query) - set(known):
        raise Refusal(400, f"unknown parameters {sorted(unknown)}")
    return dict(request.query)


@web.middleware
async def _refusals(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except Refusal as refusal:
        if refusal.status == 304:
            return web.Response(status=304)
        return web.json_response({"message": str(refusal)}, status=refusal.status)
    return answer
