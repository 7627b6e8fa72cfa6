"""Applications in real containers: what they are given works, on podman and Docker, seen from the node and beyond.

``tests/hostile`` shows what they are not given.
"""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from footlights.v1 import application_pb2
from footlights.v1.application_pb2 import Version
from google.protobuf import json_format

import footlights
from footlights.launch.caches import CacheStore
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from footlights.launch.launcher import LaunchPlan, Phase, Ports
from footlights.launch.probes.readiness import presence, why_unready
from tests.hostile.engines import IMAGE, OWNED, OWNER, RealEngine, cable, real_engine
from tests.launch.plans import make_plan
from tests.launch.waiting import ended, logged, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

NODE, VIEWER = "198.51.100.1", "198.51.100.2"
APPLICATION = """
import json, os, socket, sys, threading
signal, media, http, mounted = sys.argv[1:]
def serve(port, name):
    listener = socket.create_server(("0.0.0.0", int(port)))
    while True:
        connection, where = listener.accept()
        connection.sendall(name + b" " + where[0].encode())
        if name != b"signal":
            connection.close()
for port, name in ((signal, b"signal"), (http, b"http")):
    threading.Thread(target=serve, args=(port, name), daemon=True).start()
places = [os.environ["HOME"], os.environ["HOME"] + "/.cache/kept", "/tmp", "/var/tmp", "/dev/shm"]
for place in places:
    with open(place + "/state", "a+") as file:
        file.write("state")
        file.seek(0)
        print(place, "was new" if file.read() == "state" else "was kept")
print("secret", json.load(open(os.environ["FOOTLIGHTS_SESSION_FILE"]))["secret"])
print("mounted", open(mounted).read())
try:
    open(mounted, "w")
except OSError as error:
    print("mounted read-only:", error.strerror)
print("up", flush=True)
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", int(media)))
while True:
    data, where = udp.recvfrom(2048)
    udp.sendto(b"media " + where[0].encode(), where)
"""
ASK = """
import socket, sys
kind, host, port = sys.argv[1:]
client = socket.socket(type=getattr(socket, kind))
client.settimeout(3)
try:
    client.connect((host, int(port)))
    client.send(b"x")
    print(client.recv(100).decode() or "closed")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module", params=["docker", "podman"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine(request.param, tmp_path_factory.mktemp(request.param)) as engine:
        yield engine


@pytest.fixture(scope="module")
def viewer(real: RealEngine) -> Iterator[tuple[str, ...]]:
    """The command that runs another one on a viewer's machine, which has a cable to the node."""
    with cable(NODE, VIEWER) as enter:
        yield enter


@pytest.fixture
async def launcher(real: RealEngine, root: Path, tmp_path: Path) -> AsyncIterator[ContainerLauncher]:
    rules = ContainerRules(
        allowed_roots=(str(tmp_path), sysconfig.get_paths()["purelib"], "/usr/lib", *_packages()),
        shared_volumes=("shared-*:rw",),
    )
    made = ContainerLauncher(root, [real.engine], rules, caches=CacheStore(tmp_path / "caches"))
    yield made
    await made.close()


def plan_of(root: Path, ports: Ports, command: list[str], container: dict[str, Any], **members: Any) -> LaunchPlan:
    version = Version(version="1.0.0", command=[token.replace("{", "{{").replace("}", "}}") for token in command])
    json_format.ParseDict({"container": {"image": IMAGE, **container}, **members}, version)
    return make_plan(version, root, ports=ports, own_network=True, grace_s=2.0)


async def ask(kind: str, host: str, port: int, enter: tuple[str, ...] = ()) -> str:
    process = await asyncio.create_subprocess_exec(
        *(*enter, sys.executable, "-I", "-c", ASK, kind, host, str(port)), stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode().strip()


@pytest.mark.parametrize("spliced", [False, True])
async def test_what_an_application_is_given(
    spliced: bool,
    launcher: ContainerLauncher,
    viewer: tuple[str, ...],
    root: Path,
    tmp_path: Path,
) -> None:
    """It keeps state where it may, reads its secrets and its mounts, and is reached on its ports by whom they are for.

    Viewers reach media and, where the agent is not in front of it, signalling; only the node reaches the rest. The
    application sees who calls. What it wrote is gone in the next session, except in a volume that is shared.
    """
    first = 29300 + 4 * spliced
    ports = Ports(signal=first, media=first + 1, http=first + 2, splice=first + 3 if spliced else 0)
    stage = tmp_path / "stage"
    await asyncio.to_thread(stage.write_text, "a stage")
    await asyncio.to_thread(stage.chmod, 0o644)
    command = [*("/usr/bin/python3", "-I", "-c", APPLICATION), *(str(first + number) for number in range(3)), "/stage"]
    volumes = [
        {"source": str(tmp_path / "stage"), "target": "/stage", "read_only": True},
        {"source": "shared-1" if spliced else "own", "target": OWNED},
    ]
    members = {
        "environment": {"HOME": "/home/user"},
        "readiness": {"check": "TCP"},
        "presence": {"source": "CONNECTIONS"},
    }
    for round_number in range(2):
        user = {"user": str(OWNER)} if spliced else {}  # a volume belongs to whom the image's directory does
        plan = plan_of(root, ports, command, {"volume_mounts": volumes, **user}, **members)
        await launcher.prepare(plan)
        await launcher.start(plan, b'{"secret": "hunter2"}')
        try:
            said = await logged(launcher, plan, "up")
            kept = "was kept" if spliced and round_number else "was new"
            assert {"/home/user was new", "/tmp was new", "/var/tmp was new", "/dev/shm was new"} <= {*said}
            assert f"{OWNED} {kept}" in said
            assert {"secret hunter2", "mounted a stage", "mounted read-only: Read-only file system"} <= {*said}
            pids = (await launcher.status(plan)).pids
            assert not await why_unready(plan, _no_log, pids=pids)

            assert (await ask("SOCK_STREAM", "127.0.0.1", ports.signal)).startswith("signal")
            assert (await ask("SOCK_STREAM", "127.0.0.1", ports.http)).startswith("http")
            assert (await ask("SOCK_DGRAM", NODE, ports.media, viewer)) == f"media {VIEWER}"
            from_outside = await ask("SOCK_STREAM", NODE, ports.signal, viewer)
            assert from_outside == ("ConnectionRefusedError" if spliced else f"signal {VIEWER}")
            assert await ask("SOCK_STREAM", NODE, ports.http, viewer) == "ConnectionRefusedError"
            assert await _viewers(plan, pids, ports.signal) == (0, 1)
        finally:
            await launcher.stop(plan, kill=True)
            await ended(launcher, plan)
            await launcher.discard(plan)


async def test_what_is_kept_for_its_version(launcher: ContainerLauncher, root: Path, tmp_path: Path) -> None:
    """A cache is there, warm and read-only; beside it its home is its own."""
    warm = tmp_path / "warm" / "home" / ".cache" / "ov"
    await asyncio.to_thread(warm.mkdir, parents=True)
    await asyncio.to_thread((warm / "shader").write_text, "compiled\n")
    text = "cat ~/.cache/ov/shader; echo bad >~/.cache/ov/shader; echo own >~/.cache/own && echo over"
    plan = plan_of(root, Ports(29330, 29331, 29332), ["/bin/sh", "-c", text], {}, cache_paths=["~/.cache/ov"])
    plan.version.application = "kit"
    take = partial(CacheStore(tmp_path / "caches").take, owner=os.geteuid(), most_bytes=1 << 20)
    await asyncio.to_thread(take, plan.version, str(tmp_path / "warm"), "/home")

    await launcher.start(plan, b"{}")
    await ended(launcher, plan)
    lines = (await launcher.log(plan)).lines
    await launcher.discard(plan)

    assert sorted(lines)[-1] == "over"
    assert "compiled" in lines
    assert sum("Read-only file system" in line for line in lines) == 1


async def test_the_reference_application(launcher: ContainerLauncher, viewer: tuple[str, ...], root: Path) -> None:
    """The viewer that ships with Footlights starts in a container, opens a stage, and answers on its ports."""
    ports = Ports(signal=29320, media=29321, http=29322)
    site = sysconfig.get_paths()["purelib"]
    source, generated = _packages()
    stages = Path(footlights.__file__).parent / "viewer" / "stages"
    assert stages.is_dir()
    command = [
        *("/usr/bin/python3", "-m", "footlights.viewer", "--bind", "0.0.0.0", "--public-address", NODE),
        *("--signal-port", str(ports.signal), "--media-port", str(ports.media), "--http-port", str(ports.http)),
        *("--usd-stage-uri", str(stages / "orrery.usdc"), "--device-uuid", "software-0"),
    ]
    shown = [site, source, generated, f"/usr/lib/{os.uname().machine}-linux-gnu"]
    volumes = [{"source": path, "target": path, "read_only": True} for path in shown]
    environment = {"PYTHONPATH": f"{source}:{generated}:{site}", "PYTHONDONTWRITEBYTECODE": "1"}
    plan = plan_of(root, ports, command, {"volume_mounts": volumes}, environment=environment)
    await launcher.prepare(plan)
    await launcher.start(plan, b"{}")
    try:
        await until(lambda: _ready_or_over(launcher, plan), bool, deadline_s=60.0)
        found = await presence(plan)
        answer = await ask("SOCK_STREAM", NODE, ports.signal, viewer)
    finally:
        await launcher.stop(plan)
        status = await ended(launcher, plan)
        log = (await launcher.log(plan)).lines
        await launcher.discard(plan)

    assert found.viewers == 0, "\n".join(log)
    assert "400 Bad Request" in answer, "one byte is no request"
    assert status.exit_code == 0, "\n".join(log)


async def _viewers(plan: LaunchPlan, pids: frozenset[int], port: int) -> tuple[int | None, int | None]:
    """How many viewers are counted without and with a connection."""
    before = await until(lambda: presence(plan, pids=pids), lambda found: found.viewers == 0)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    during = await until(lambda: presence(plan, pids=pids), lambda found: found.viewers == 1)
    writer.close()
    await writer.wait_closed()
    return before.viewers, during.viewers


async def _ready_or_over(launcher: ContainerLauncher, plan: LaunchPlan) -> bool:
    return not await why_unready(plan, _no_log) or (await launcher.status(plan)).phase is Phase.EXITED


async def _no_log(cursor: str) -> Any:
    raise AssertionError(cursor)


def _packages() -> tuple[str, str]:
    """Where the package and its generated part lie."""
    source = Path(footlights.__file__).parents[1]
    return str(source), str(Path(str(application_pb2.__file__)).parents[2])
