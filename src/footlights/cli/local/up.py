"""``footlights up``: a control plane and a node agent on this machine, ready to stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from footlights.agent.config import AgentConfig
from footlights.cli import options
from footlights.cli.exits import TIMEOUT, Failed, exiting
from footlights.cli.local.bond import adopt_orphans, reap_orphans
from footlights.cli.local.children import Child, end_descendants
from footlights.control.settings import ServerSettings
from footlights.errors import NotFound, Unavailable
from footlights.linux.files import replace_file

if TYPE_CHECKING:
    from footlights.client import Client
    from footlights.v1 import node_pb2

_Found = TypeVar("_Found")

APPLICATION: Final = "usd-viewer"
NODE: Final = "local"
_START_S: Final = 60.0
_POLL_S: Final = 0.1
_AGENT_STOP_S: Final = 40.0
_SERVER_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and where."""

    data_dir: Path
    http_port: int
    grpc_port: int
    devices: str
    software_devices: int | None
    environ: Mapping[str, str]
    """The children's environment: ours, but for variables that would change their settings behind our back."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the control plane listens."""

    grpc: str
    http: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(_up)


def _up(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="Its own directory; kept, and used again next time.")
    ] = Path(".footlights/up"),
    http_port: Annotated[
        int, typer.Option("--http-port", help="For REST and the console; another where it is busy.")
    ] = 8080,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="For gRPC; another where it is busy.")] = 50051,
    devices: Annotated[str, typer.Option("--devices", help="auto, nvml, software or fake:FILE.")] = "auto",
    software_devices: Annotated[
        int | None, typer.Option("--software-devices", min=1, help="How many software renderers; one a core without.")
    ] = None,
) -> None:
    """Run everything on this machine: a control plane and a node agent, on 127.0.0.1, with usd-viewer registered.

    Prints a curl command that starts a session, and the console's URL. Ctrl-C ends everything.
    """
    with exiting():
        plan = Plan(data_dir.resolve(), http_port, grpc_port, devices, software_devices, _environ(os.environ))
        asyncio.run(_run(plan))


async def _run(plan: Plan) -> None:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    adopt_orphans()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    children: list[Child] = []

    def on_child_ended() -> None:
        if reap_orphans([child.process.pid for child in children]):
            loop.call_later(_POLL_S, on_child_ended)

    loop.add_signal_handler(signal.SIGCHLD, on_child_ended)
    try:
        await _first(_start_all(plan, children), stop)
        if not stop.is_set():
            await _watch(children, stop)
    finally:
        if children:
            _say("stopping")
        await _first(_stop_all(children), hurry)
        if left := await asyncio.to_thread(end_descendants):
            _say(f"killed what did not end by itself: {left}")


async def _start_all(plan: Plan, children: list[Child]) -> None:
    plan.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    server, endpoints = await _start_server(plan, children)
    from footlights.client import Client

    token = (plan.data_dir / "server" / "admin.token").read_text(encoding="ascii").strip()
    async with Client.connect(endpoints.grpc, token) as client:
        await _alive(server, _poll("the control plane's gRPC", lambda: _reachable(client)))
        _say(f"the control plane is ready (gRPC on {endpoints.grpc})")
        from footlights import recipes

        applied = await client.applications.apply(recipes.load(APPLICATION))
        _say(f"{APPLICATION} is registered: {', '.join(sorted(applied.application.releases.values()))}")
        token_file = await _node_token(plan, client)
        agent = await _start_agent(plan, endpoints, token_file, children)
        node = await _alive(agent, _poll("the node", lambda: _ready_node(client)))
    for line in describe(node):
        _say(line)
    _say(f"data and logs are in {plan.data_dir}; Ctrl-C ends everything")
    token_path = shlex.quote(str(plan.data_dir / "server" / "admin.token"))
    _say(f"for the CLI: export FOOTLIGHTS_SERVER={endpoints.grpc} FOOTLIGHTS_TOKEN_FILE={token_path}")
    typer.echo(
        f"curl -H 'Authorization: Bearer {token}' {endpoints.http}/stream "
        f"-H 'Content-Type: application/json' -d '{json.dumps({'application': APPLICATION}, separators=(',', ':'))}'\n"
        f"{endpoints.http}/console/#token={token}"
    )


async def _start_server(plan: Plan, children: list[Child]) -> tuple[Child, Endpoints]:
    directory = plan.data_dir / "server"
    file = directory / "endpoints.json"
    before = _stamp(file)
    _say("starting the control plane")
    arguments = [
        *("server", "--data-dir", str(directory)),
        *("--http-listen", f"127.0.0.1:{_free(plan.http_port)}", "--grpc-listen", f"127.0.0.1:{_free(plan.grpc_port)}"),
    ]
    server = await Child.start("control plane", arguments, plan.data_dir / "server.log", plan.environ)
    children.append(server)

    async def written() -> Endpoints | None:
        return Endpoints(**json.loads(file.read_text())) if _stamp(file) not in (None, before) else None

    endpoints = await _alive(server, _poll("the control plane", written))
    await _alive(server, _poll("the control plane's health", lambda: asyncio.to_thread(_healthy, endpoints.http)))
    return server, endpoints


async def _start_agent(plan: Plan, endpoints: Endpoints, token_file: Path, children: list[Child]) -> Child:
    _say("starting the node agent")
    arguments = [
        *("agent", "--data-dir", str(plan.data_dir / "agent"), "--server", endpoints.grpc),
        *("--token-file", str(token_file), "--node", NODE, "--public-address", "127.0.0.1"),
        *("--devices", plan.devices, "--drain-on-stop"),
        *("--launchers", "process", "--launchers", "fake"),
    ]
    if plan.software_devices is not None:
        arguments += ["--software-devices", str(plan.software_devices)]
    agent = await Child.start("node agent", arguments, plan.data_dir / "agent.log", plan.environ)
    children.append(agent)
    return agent


async def _node_token(plan: Plan, client: Client) -> Path:
    """The node's token, in a file that the agent reads; made at the first start."""
    from footlights.v1 import token_pb2

    path = plan.data_dir / "node.token"
    if not path.exists():
        request = token_pb2.CreateTokenRequest(role=token_pb2.Token.NODE, subject=NODE, description="footlights up")
        created = await client.tokens.create(request)
        _write_secret(path, created.secret)
    return path


def describe(node: node_pb2.Node) -> list[str]:
    """What the node offers, and why it is that."""
    from footlights.cli.show import name_of
    from footlights.devices.kinds import traits_of_kind

    kinds: dict[str, int] = {}
    for device in node.devices:
        software = not traits_of_kind(name_of(device, "kind")).hardware
        label = f"software device ({device.name})" if software else device.name or name_of(device, "kind")
        kinds[label] = kinds.get(label, 0) + 1
    offered = ", ".join(f"{count} x {label}" for label, count in kinds.items()) or "no device"
    lines = [f"the node '{node.node}' is ready and offers {offered}"]
    kinds_offered = [traits_of_kind(name_of(device, "kind")) for device in node.devices]
    if not any(kind.hardware and not kind.simulated for kind in kinds_offered):
        lines.append("no GPU is offered; sessions render in software")
    else:
        lines.append("usd-viewer draws on the CPU also where it is given a GPU; applications that need one draw on it")
    return [*lines, *(f"  {note}" for note in node.facts.notes)]


async def _watch(children: list[Child], stop: asyncio.Event) -> None:
    """Wait for the signal to stop; raise where a child ends first."""

    async def first_to_end() -> Failed:
        ends = [asyncio.create_task(child.ended()) for child in children]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in ends:
                task.cancel()

    failed = await _first(first_to_end(), stop)
    if failed is not None:
        raise failed


async def _stop_all(children: list[Child]) -> None:
    """The agent first: it ends its launches, and tells the control plane so."""
    for child in reversed(children):
        await child.stop(_AGENT_STOP_S if child.name == "node agent" else _SERVER_STOP_S)


async def _first(work: Coroutine[Any, Any, _Found], stop: asyncio.Event) -> _Found | None:
    """Do the work, or give it up when ``stop`` is set."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _alive(child: Child, work: Coroutine[Any, Any, _Found]) -> _Found:
    """Do the work, or say how the child ended in the meantime."""
    working, ended = asyncio.create_task(work), asyncio.create_task(child.ended())
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ended.result()
        return working.result()
    finally:
        working.cancel()
        ended.cancel()
        await asyncio.gather(working, ended, return_exceptions=True)


async def _poll(what: str, ask: Callable[[], Awaitable[_Found | None]]) -> _Found:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while True:
                if (found := await ask()) is not None:
                    return found
                await asyncio.sleep(_POLL_S)
    raise Failed(f"{what} was not ready after {_START_S:g} s. See the logs in the data directory.", TIMEOUT)


async def _reachable(client: Client) -> bool | None:
    try:
        await client.tokens.caller()
    except Unavailable:
        return None
    return True


async def _ready_node(client: Client) -> node_pb2.Node | None:
    from footlights.v1 import node_pb2

    try:
        node = await client.nodes.get(NODE)
    except NotFound:
        return None
    return None if node.state == node_pb2.Node.UNREACHABLE else node


def _write_secret(path: Path, secret: str) -> None:
    replace_file(path, f"{secret}\n".encode("ascii"))


def _healthy(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:  # noqa: S310  # our own server's URL
            return bool(answer.status == 200) or None
    except (urllib.error.URLError, OSError):
        return None


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    settings = {options.variable(field.name) for record in (ServerSettings, AgentConfig) for field in fields(record)}
    return {name: value for name, value in environ.items() if name not in settings}


def _free(port: int) -> int:
    """``port`` where it is free, else 0: the server then takes one that is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def _say(text: str) -> None:
    typer.echo(f"footlights: {text}", err=True)
