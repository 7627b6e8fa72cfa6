"""Kit's recipes, and `probes.offer`, against the stand-in for Kit: no real one was ever met."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Version

from footlights import recipes
from footlights.launch.launcher import LaunchPlan, LogPart, Phase, Ports
from footlights.launch.probes import loopback
from footlights.launch.probes.readiness import presence, why_unready
from footlights.launch.process import ownership
from footlights.launch.process.launcher import ProcessLauncher
from footlights.launch.recipe.recipe import validate
from tests.launch.plans import make_plan
from tests.launch.waiting import ended, logged, until

STAGE = "/srv/stages/factory.usd"
PROCESS = "1.2.0-process"
CONTAINER = "1.2.0-container"


def free_ports() -> Ports:
    """Three ports that nobody has, each with a free one after it."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < 3:
            one = stack.enter_context(closing(socket.socket()))
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            after = stack.enter_context(closing(socket.socket()))
            try:
                after.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            found.append(port)
        return Ports(*found)


@pytest.fixture
def kit_root(tmp_path: Path) -> Callable[[str], Path]:
    """Lay out a built application whose Kit is the stand-in."""

    def make(generation: str) -> Path:
        folder = tmp_path / "kit-app"
        (folder / "kit").mkdir(parents=True)
        kit = folder / "kit" / "kit"
        standin = Path(__file__).with_name("standin_kit.py")
        kit.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {standin} {generation} "$@"\n')
        kit.chmod(0o755)
        return folder

    return make


def versions(generation: str, kit: Path = Path("/opt/kit-app")) -> dict[str, Version]:
    manifest = recipes.load(f"kit-{generation}", {"KIT_ROOT": str(kit)})
    for version in manifest.versions:
        validate(version)
    return {version.version: version for version in manifest.versions}


def kit_plan(version: Version, root: Path, ports: Ports, public_address: str = "192.0.2.7") -> LaunchPlan:
    return make_plan(
        version,
        root,
        ports=ports,
        usd_stage_uri=STAGE,
        device_kind="GPU",
        device_uuid="GPU-0000",
        device_index=3,
        public_address=public_address,
    )


FLAGS_106 = [
    "--enable",
    "omni.services.livestream.nvcf",
    "--/app/livestream/publicEndpointAddress=192.0.2.7",
    "--/app/livestream/port=101",
    "--/app/livestream/fixedHostPort=102",
    "--/app/livestream/nvcf/quitOnSessionEnded=false",
    "--/app/livestream/nvcf/sessionResumeTimeoutSeconds=120",
    "--/app/livestream/nvcf/waitForCustomReadyEvent=false",
]
FLAGS_108 = [
    "--enable",
    "omni.kit.livestream.app",
    "--enable",
    "omni.services.livestream.session",
    "--/exts/omni.kit.livestream.app/primaryStream/publicIp=192.0.2.7",
    "--/exts/omni.kit.livestream.app/primaryStream/signalPort=101",
    "--/exts/omni.kit.livestream.app/primaryStream/streamPort=102",
    "--/exts/omni.kit.livestream.app/primaryStream/streamType=webrtc",
    "--/exts/omni.kit.livestream.app/primaryStream/targetFps=60",
    "--/exts/omni.kit.livestream.app/primaryStream/enableEventTracing=false",
    "--/exts/omni.services.livestream.session/quitOnSessionEnded=false",
    "--/exts/omni.services.livestream.session/resumeTimeoutSeconds=120",
    "--/exts/omni.services.livestream.session/waitForSessionReadyEvent=false",
]


def expected(generation: str, *, base: str, gpu: int) -> list[str]:
    return [
        f"{base}/kit/kit",
        f"{base}/apps/streaming.kit",
        "--no-window",
        "--allow-root",
        "--ext-folder",
        f"{base}/exts",
        *(FLAGS_106 if generation == "106" else FLAGS_108),
        "--/exts/omni.services.transport.server.http/port=103",
        f"--/renderer/activeGpu={gpu}",
        "--/renderer/multiGpu/enabled=false",
        "--/renderer/multiGpu/autoEnable=false",
        "--/physics/cudaDevice=0",
        "--/app/fastShutdown=true",
        f"--/app/auto_load_usd={STAGE}",
        *([] if base == "/app" else ["--exec", str(recipes.KIT_STAGE)]),
    ]


@pytest.mark.parametrize("generation", ["106", "108"])
def test_command_line(generation: str, root: Path) -> None:
    """The command is exactly the documented flags, as a process and in a container, where Kit sees one device."""
    found = versions(generation)

    process = kit_plan(found[PROCESS], root, Ports(101, 102, 103))
    container = kit_plan(found[CONTAINER], root, Ports(101, 102, 103))

    assert list(process.argv) == expected(generation, base="/opt/kit-app", gpu=3)
    assert list(container.argv) == expected(generation, base="/app", gpu=0)
    assert dict(process.environment)["CUDA_VISIBLE_DEVICES"] == "GPU-0000"
    assert dict(container.environment)["NVIDIA_DRIVER_CAPABILITIES"] == "all"
    assert container.mounts == (
        "/srv/stages:/srv/stages:ro",
        f"footlights-kit-{generation}-GPU-0000:/home/ubuntu/.cache/ov",
        f"footlights-kit-{generation}-data-GPU-0000:/home/ubuntu/.local/share/ov",
    )


@pytest.mark.parametrize("generation", ["106", "108"])
async def test_life(generation: str, root: Path, tmp_path: Path, kit_root: Callable[[str], Path]) -> None:
    """Launched by its recipe, Kit is not ready at first, then ready on its own ports, and ends when told."""
    version = versions(generation, kit_root(generation))[PROCESS]
    gate, report = tmp_path / "ready", tmp_path / "reports" / "report"
    report.parent.mkdir()
    version.environment.update({"STANDIN_READY_FILE": str(gate), "STANDIN_REPORT": str(report)})
    ports = free_ports()
    plan = kit_plan(version, root, ports, public_address="127.0.0.1")
    launcher = ProcessLauncher(root)

    async def read(cursor: str) -> LogPart:
        return await launcher.log(plan, cursor=cursor)

    await launcher.start(plan, b"")
    await logged(launcher, plan, f"Streaming server started on {ports.signal}.")
    assert await why_unready(plan, read)
    gate.touch()
    await until(lambda: why_unready(plan, read), lambda why: not why)
    pids = (await launcher.status(plan)).pids
    assert {ports.signal, ports.http} <= {one.port for one in ownership.listeners_inside(ports, pids)}
    assert ownership.listeners_outside(ports, pids) == ()
    settings = json.loads(report.read_text())
    assert (settings["/app/auto_load_usd"], settings["/renderer/activeGpu"]) == (STAGE, 3)

    assert (await presence(plan)).viewers == 0
    with socket.create_connection(("127.0.0.1", ports.signal)):
        assert (await presence(plan)).viewers == 1

    await launcher.stop(plan)
    assert (await ended(launcher, plan)).exit_code == 0
    assert (await launcher.log(plan)).lines[-1] == "Shutting down."
    assert ownership.listeners_inside(ports, pids) == ()


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"STANDIN_MODES": "silent"}, "no offer came by {} within 1.6 s"),
        ({"STANDIN_MODES": "deaf"}, "no offer came by {} within 1.6 s"),
        ({"STANDIN_MODES": "audio"}, "the offer that came by {} has no picture"),
        ({"STANDIN_MODES": "refuses"}, "no offer came by {}: server rejected WebSocket connection: HTTP 500"),
        (
            {"STANDIN_LEAVES": "\x1b[2Jno"},
            "no offer came by {}: received 1008 (policy violation) [2Jno; then sent 1008 (policy violation) [2Jno",
        ),
    ],
)
async def test_one_that_offers_nothing_is_not_ready(
    root: Path, kit_root: Callable[[str], Path], knobs: dict[str, str], says: str
) -> None:
    """It listens, says that it is ready and takes a player: none of that shows a picture, and sound is none."""
    version = versions("108", kit_root("108"))[PROCESS]
    version.environment.update(knobs)
    ports = free_ports()
    plan = kit_plan(version, root, ports, public_address="127.0.0.1")
    launcher = ProcessLauncher(root)

    async def read(cursor: str) -> LogPart:
        return await launcher.log(plan, cursor=cursor)

    await launcher.start(plan, b"")
    await logged(launcher, plan, f"Streaming server started on {ports.signal}.")
    expected = says.format(f"127.0.0.1:{ports.signal}/sign_in")
    assert await until(lambda: why_unready(plan, read, timeout_s=2.0), lambda why: why == expected) == expected
    await launcher.stop(plan)
    await ended(launcher, plan)


@pytest.mark.parametrize("knobs", [{}, {"STANDIN_MODES": "no-subprotocol"}, {"STANDIN_OFFER_AFTER": "0.5"}])
async def test_one_that_offers_is_ready_and_its_probe_is_no_viewer(
    root: Path, tmp_path: Path, kit_root: Callable[[str], Path], knobs: dict[str, str]
) -> None:
    """Whether it chooses a subprotocol or none, at once or late; what it says is acknowledged, and it stays free."""
    journal = tmp_path / "reports" / "journal"
    journal.parent.mkdir()
    version = versions("108", kit_root("108"))[PROCESS]
    version.environment.update({**knobs, "STANDIN_JOURNAL": str(journal)})
    ports = free_ports()
    plan = kit_plan(version, root, ports, public_address="127.0.0.1")
    launcher = ProcessLauncher(root)

    async def read(cursor: str) -> LogPart:
        return await launcher.log(plan, cursor=cursor)

    await launcher.start(plan, b"")
    for _ in range(2):
        await until(lambda: why_unready(plan, read), lambda why: not why)

    async def noted() -> list[dict[str, object]]:
        return [json.loads(line) for line in journal.read_text().splitlines()]

    acknowledgement: dict[str, object] = {"message": {"ack": 1}}
    await until(noted, lambda lines: acknowledgement in lines)
    assert (await noted())[0]["handshake"]["query"].startswith("peer_id=peer-")  # type: ignore[index]  # JSON
    assert await loopback.ask(ports.http, "/v1/streaming/ready") == (200, b'{"statusMessage": "Ready for connection"}')
    await launcher.stop(plan)
    await ended(launcher, plan)


@pytest.mark.parametrize("taken", ["signal", "http"])
async def test_taken_port(taken: str, root: Path, kit_root: Callable[[str], Path]) -> None:
    """Kit that silently moved to the next port is not ready on its own: the listeners are not its tree's."""
    version = versions("108", kit_root("108"))[PROCESS]
    ports = free_ports()
    plan = kit_plan(version, root, ports)
    launcher = ProcessLauncher(root)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("0.0.0.0", getattr(ports, taken)))
        squatter.listen()

        await launcher.start(plan, b"")
        await logged(launcher, plan, "Streaming server started")
        pids = (await launcher.status(plan)).pids

        outside = ownership.listeners_outside(ports, pids)
        assert [one.port for one in outside] == [getattr(ports, taken)]
    await launcher.stop(plan)
    await ended(launcher, plan)


async def test_unknown_setting(root: Path, kit_root: Callable[[str], Path]) -> None:
    """The stand-in refuses a setting of the other generation, so that a recipe cannot be wrong unseen."""
    version = versions("106", kit_root("108"))[PROCESS]
    plan = kit_plan(version, root, free_ports())
    launcher = ProcessLauncher(root)

    await launcher.start(plan, b"")

    status = await ended(launcher, plan)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 1)
    assert "unknown setting '--/app/livestream/publicEndpointAddress" in (await launcher.log(plan)).lines[-1]


@pytest.mark.parametrize("generation", ["106", "108"])
def test_a_signed_address_is_in_the_session_file_alone(generation: str, root: Path) -> None:
    """Of a process: its command line has it without the signature, and runs what opens it."""
    version = versions(generation)[PROCESS]
    version.allowed_stage_roots.append("https://store/")

    plan = make_plan(
        version,
        root,
        ports=Ports(101, 102, 103),
        usd_stage_uri="https://store/a.usd?sig=secret",
        device_kind="GPU",
        device_uuid="GPU-0",
        device_index=0,
        public_address="192.0.2.7",
    )

    assert "--/app/auto_load_usd=https://store/a.usd?[redacted]" in plan.argv
    assert "secret" not in str(plan)
