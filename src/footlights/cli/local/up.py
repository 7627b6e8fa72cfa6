"""``footlights up``: a control plane and a node agent on this machine, ready to stream."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from footlights.agent.config import AgentConfig
from footlights.cli import options
from footlights.cli.exits import exiting
from footlights.cli.local.bond import adopt_orphans, reap_orphans
from footlights.cli.local.children import Child, end_descendants
from footlights.cli.local.waits import POLL_S, first_to_end, poll, unless_stopped, while_alive
from footlights.control.settings import ServerSettings
from footlights.errors import NotFound, Unavailable
from footlights.linux.files import replace_file

if TYPE_CHECKING:
    from footlights.client import Client
    from footlights.v1 import node_pb2

APPLICATION: Final = "usd-viewer"
NODE: Final = "local"
KAS_USER: Final = "kas"
"""The user that clients of Kit App Streaming call as, which send no token."""
_AGENT_STOP_S: Final = 40.0
_SERVER_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class LocalSetup:
    """What to run, and where."""

    data_dir: Path
    http_port: int
    grpc_port: int
    devices: str
    software_devices: int | None
    kas: bool
    kit_library: Path | None
    nvcf: bool
    environ: Mapping[str, str]
    """The children's environment: ours without the variables that would change their settings."""


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
        Path, typer.Option("--data-dir", metavar="DIR", help="Data directory; kept, and used again at the next start.")
    ] = Path(".footlights/up"),
    http_port: Annotated[
        int, typer.Option("--http-port", help="Port of REST and the console; a free one if it is in use.")
    ] = 8080,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="Port of gRPC; a free one if it is in use.")] = 50051,
    devices: Annotated[str, typer.Option("--devices", help="auto, nvml, software or fake:FILE.")] = "auto",
    *,
    software_devices: Annotated[
        int | None,
        typer.Option("--software-devices", min=1, help="Number of software renderers; default: one per core."),
    ] = None,
    kas: Annotated[
        bool,
        typer.Option(
            "--kas",
            help="Serve clients of Kit App Streaming too. They send no token: all that reaches this machine's loopback "
            f"is the user {KAS_USER!r}.",
        ),
    ] = False,
    kit_library: Annotated[
        Path | None,
        typer.Option(
            "--kit-library",
            metavar="DIR",
            help="NVIDIA's streaming library, to watch Kit in the console (docs/kit.md).",
        ),
    ] = None,
    nvcf: Annotated[
        bool, typer.Option("--nvcf", help="Serve portals too that were written for NVIDIA Cloud Functions.")
    ] = False,
) -> None:
    """Run everything on this machine: a control plane and a node agent on 127.0.0.1, with usd-viewer registered.

    Prints a curl command that starts a session, and the console's URL. Ctrl-C stops everything.
    """
    with exiting():
        setup = LocalSetup(
            data_dir=data_dir.resolve(),
            http_port=http_port,
            grpc_port=grpc_port,
            devices=devices,
            software_devices=software_devices,
            kas=kas,
            kit_library=kit_library,
            environ=_environ(os.environ),
            nvcf=nvcf,
        )
        asyncio.run(_run(setup))


async def _run(setup: LocalSetup) -> None:
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
            loop.call_later(POLL_S, on_child_ended)

    loop.add_signal_handler(signal.SIGCHLD, on_child_ended)
    try:
        await unless_stopped(_start_all(setup, children), stop)
        if not stop.is_set():
            failed = await unless_stopped(first_to_end(children), stop)
            if failed is not None:
                raise failed
    finally:
        if children:
            _print("stopping")
        await unless_stopped(_stop_all(children), hurry)
        if left := await asyncio.to_thread(end_descendants):
            _print(f"killed {left} processes that did not end by themselves")


async def _start_all(setup: LocalSetup, children: list[Child]) -> None:
    setup.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    server, endpoints = await _start_server(setup, children)
    from footlights.client import Client

    token = (setup.data_dir / "server" / "admin.token").read_text(encoding="ascii").strip()
    async with Client.connect(endpoints.grpc, token) as client:
        await while_alive(server, poll("the control plane's gRPC", lambda: _reachable(client)))
        _print(f"the control plane is ready (gRPC on {endpoints.grpc})")
        from footlights import recipes

        applied = await client.applications.apply(recipes.load(APPLICATION))
        _print(f"{APPLICATION} is registered: {', '.join(sorted(applied.application.releases.values()))}")
        token_file = await _node_token(setup, client)
        agent = await _start_agent(setup, endpoints, token_file, children)
        node = await while_alive(agent, poll("the node", lambda: _ready_node(client)))
    for line in describe(node):
        _print(line)
    _print(f"data and logs are in {setup.data_dir}; Ctrl-C stops everything")
    if setup.kas:
        _print(f"for clients of Kit App Streaming: appServer and streamServer are both {endpoints.http}")
    if setup.nvcf:
        signaling = f"ws{endpoints.http.removeprefix('http')}"
        _print(
            f'for a portal: nvcf_control_endpoint and ngc_endpoint are "{endpoints.http}", nvcf_signaling_endpoint is '
            f'"{signaling}"; its key is a token, as below'
        )
    token_path = shlex.quote(str(setup.data_dir / "server" / "admin.token"))
    _print(f"for the CLI: export FOOTLIGHTS_SERVER={endpoints.grpc} FOOTLIGHTS_TOKEN_FILE={token_path}")
    typer.echo(
        f"curl -H 'Authorization: Bearer {token}' {endpoints.http}/v1/sessions "
        f"-H 'Content-Type: application/json' -d '{json.dumps({'application': APPLICATION}, separators=(',', ':'))}'\n"
        f"{endpoints.http}/console/#token={token}"
    )


async def _start_server(setup: LocalSetup, children: list[Child]) -> tuple[Child, Endpoints]:
    directory = setup.data_dir / "server"
    file = directory / "endpoints.json"
    before = _stamp(file)
    _print("starting the control plane")
    arguments = [
        *("server", "--data-dir", str(directory), "--auto-accept"),
        *(
            "--http-listen",
            f"127.0.0.1:{_free(setup.http_port)}",
            "--grpc-listen",
            f"127.0.0.1:{_free(setup.grpc_port)}",
        ),
        *("--min-isolation", "none"),
        *(("--kas", "--kas-user", KAS_USER) if setup.kas else ()),
        *(("--kit-library", str(setup.kit_library.resolve())) if setup.kit_library else ()),
        *(("--nvcf",) if setup.nvcf else ()),
    ]
    server = await Child.start("control plane", arguments, setup.data_dir / "server.log", setup.environ)
    children.append(server)

    async def written() -> Endpoints | None:
        return Endpoints(**json.loads(file.read_text())) if _stamp(file) not in (None, before) else None

    endpoints = await while_alive(server, poll("the control plane", written))
    await while_alive(server, poll("the control plane's health", lambda: asyncio.to_thread(_healthy, endpoints.http)))
    return server, endpoints


async def _start_agent(setup: LocalSetup, endpoints: Endpoints, token_file: Path, children: list[Child]) -> Child:
    _print("starting the node agent")
    arguments = [
        *("agent", "--data-dir", str(setup.data_dir / "agent"), "--server", endpoints.grpc),
        *("--token-file", str(token_file), "--node", NODE, "--public-address", "127.0.0.1"),
        *("--devices", setup.devices, "--drain-on-stop"),
        *("--launchers", "process", "--launchers", "fake"),
    ]
    if setup.software_devices is not None:
        arguments += ["--software-devices", str(setup.software_devices)]
    agent = await Child.start("node agent", arguments, setup.data_dir / "agent.log", setup.environ)
    children.append(agent)
    return agent


async def _node_token(setup: LocalSetup, client: Client) -> Path:
    """Return the file of the node's token, which the agent reads; it is created at the first start."""
    from footlights.v1 import token_pb2

    path = setup.data_dir / "node.token"
    if not path.exists():
        request = token_pb2.CreateTokenRequest(role=token_pb2.Token.NODE, subject=NODE, description="footlights up")
        created = await client.tokens.create(request)
        _write_secret(path, created.secret)
    return path


def describe(node: node_pb2.Node) -> list[str]:
    """Describe what the node offers, and why."""
    from footlights.devices.kinds import traits_of_kind
    from footlights.protocol.enums import field_name

    kinds: dict[str, int] = {}
    for device in node.devices:
        software = not traits_of_kind(field_name(device, "kind")).hardware
        label = f"software device ({device.name})" if software else device.name or field_name(device, "kind")
        kinds[label] = kinds.get(label, 0) + 1
    offered = ", ".join(f"{count} x {label}" for label, count in kinds.items()) or "no device"
    lines = [f"the node '{node.node}' is ready and offers {offered}"]
    kinds_offered = [traits_of_kind(field_name(device, "kind")) for device in node.devices]
    if not any(kind.hardware and not kind.simulated for kind in kinds_offered):
        lines.append("no GPU is offered; sessions render in software")
    else:
        lines.append("usd-viewer renders on the CPU even with a GPU; applications that need a GPU render on it")
    return [*lines, *(f"  {note}" for note in node.facts.notes)]


async def _stop_all(children: list[Child]) -> None:
    """Stop the agent first: it ends its launches and reports that to the control plane."""
    for child in reversed(children):
        await child.stop(_AGENT_STOP_S if child.name == "node agent" else _SERVER_STOP_S)


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


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy: what is asked is on this machine."""


def _healthy(url: str) -> bool | None:
    try:
        with _direct.open(f"{url}/healthz", timeout=5) as answer:
            return bool(answer.status == 200) or None
    except (urllib.error.URLError, OSError):
        return None


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    settings = {options.variable(field.name) for record in (ServerSettings, AgentConfig) for field in fields(record)}
    return {name: value for name, value in environ.items() if name not in settings}


def _free(port: int) -> int:
    """Return ``port`` if it is free, else 0: the server then chooses a free one."""
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


def _print(text: str) -> None:
    typer.echo(f"footlights: {text}", err=True)
