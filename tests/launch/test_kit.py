"""Kit's recipes, and `probes.offer`, against the stand-in for Kit: no real one was ever met."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Readiness, Version
from websockets.asyncio.client import connect

from footlights import recipes
from footlights.errors import InvalidArgument
from footlights.launch.container.rules import ContainerRules
from footlights.launch.launcher import LaunchPlan, LogPart, Phase, Ports
from footlights.launch.probes import loopback
from footlights.launch.probes.readiness import presence, why_unready
from footlights.launch.process import ownership
from footlights.launch.process.launcher import ProcessLauncher
from footlights.launch.recipe.recipe import validate
from tests.launch.plans import make_plan
from tests.launch.standin_kit import parse
from tests.launch.waiting import ended, logged, until
from tests.system.kit import lay_out

STAGE = "/srv/stages/factory.usd"
IN_CONTAINER = "/run/footlights/kit_stage.py"
"""The program that opens the stage, as the node puts it there."""
PROCESS, UNIT, CONTAINER = "1.3.0-process", "1.3.0-unit", "1.3.0-container"
GENERATIONS = {"106": "kit-106", "107": "kit-107", "108": "kit-108-110"}
"""What the stand-in calls it, and its recipe."""


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
        return lay_out(tmp_path / "kit-app", generation)

    return make


def versions(generation: str, kit: Path = Path("/opt/kit-app")) -> dict[str, Version]:
    manifest = recipes.load(GENERATIONS[generation], {"KIT_ROOT": str(kit)})
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


OLD = "/app/livestream"
STREAM = "/exts/omni.kit.livestream.app/primaryStream"
SESSION = "/exts/omni.services.livestream.session"
HTTP = "/exts/omni.services.transport.server.http"
FLAGS_106 = [
    f"{OLD}/port=101",
    *(f"{OLD}/{name}HostPort=102" for name in ("fixed", "min", "max")),
    f"{OLD}/allowResize=true",
    f"{OLD}/nvcf/quitOnSessionEnded=false",
    f"{OLD}/nvcf/sessionResumeTimeoutSeconds=120",
    f"{OLD}/nvcf/waitForCustomReadyEvent=false",
]
FLAGS = {
    "106": FLAGS_106,
    "107": [
        *FLAGS_106,
        f"{OLD}/publicEndpointAddress=192.0.2.7",
        f"{OLD}/publicEndpointPort=102",
        f"{OLD}/allowDynamicResize=true",
    ],
    "108": [
        f"{STREAM}/publicIp=192.0.2.7",
        f"{STREAM}/signalPort=101",
        f"{STREAM}/streamPort=102",
        f"{STREAM}/streamType=webrtc",
        f"{STREAM}/targetFps=60",
        f"{STREAM}/allowDynamicResize=true",
        f"{OLD}/allowResize=true",
        f"{STREAM}/enableEventTracing=false",
        f"{SESSION}/quitOnSessionEnded=false",
        f"{SESSION}/resumeTimeoutSeconds=120",
        f"{SESSION}/waitForSessionReadyEvent=false",
    ],
}


def flags(generation: str, *, gpu: int) -> list[str]:
    """The settings of a generation, as its command has them, sorted."""
    common = [
        f"{HTTP}/port=103",
        f"{HTTP}/host=127.0.0.1",
        f"{HTTP}/allow_port_range=false",
        f"/renderer/activeGpu={gpu}",
        "/renderer/multiGpu/enabled=false",
        "/renderer/multiGpu/autoEnable=false",
        "/physics/cudaDevice=0",
        "/app/fastShutdown=true",
    ]
    return sorted(f"--{flag}" for flag in (*FLAGS[generation], *common))


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The settings of a command, sorted, and what else it has."""
    return sorted(token for token in argv if token.startswith("--/")), [
        token for token in argv if not token.startswith("--/")
    ]


def first(generation: str, base: str) -> list[str]:
    old = ["omni.services.livestream.nvcf"]
    enabled = ["omni.kit.livestream.app", "omni.services.livestream.session"] if generation == "108" else old
    named = [token for name in enabled for token in ("--enable", name)]
    start = [f"{base}/kit/kit", f"{base}/apps/streaming.kit", "--no-window", "--allow-root"]
    return [*start, "--ext-folder", f"{base}/exts", *named]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_command_line(generation: str, root: Path) -> None:
    """Kit itself is named, with the settings that its generation has; in a unit and a container it sees one GPU.

    Its media port is fixed by all settings, its control API is on loopback and on no other port, and it may be resized.
    """
    found = versions(generation)

    for name, base, gpu, opens in (
        (PROCESS, "/opt/kit-app", 3, ["--exec", str(recipes.KIT_STAGE)]),
        (UNIT, "/opt/kit-app", 0, ["--exec", str(recipes.KIT_STAGE)]),
        (CONTAINER, "/app", 0, ["--exec", IN_CONTAINER]),
    ):
        plan = kit_plan(found[name], root, Ports(101, 102, 103))
        assert split(plan.argv) == (flags(generation, gpu=gpu), [*first(generation, base), *opens]), name
        assert dict(plan.secret_environment) == {"OMNI_USER": "{omni_user}", "OMNI_PASS": "{omni_pass}"}
        assert dict(plan.environment)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert list(plan.version.cache_paths) == ["~/.cache/ov", "~/.cache/nvidia/GLCache", "~/.nv/ComputeCache"]
        parse(generation, list(plan.argv[2:]))
    process, container = (kit_plan(found[name], root, Ports(101, 102, 103)) for name in (PROCESS, CONTAINER))
    assert dict(process.environment)["CUDA_VISIBLE_DEVICES"] == "GPU-0000"
    assert dict(container.environment)["NVIDIA_DRIVER_CAPABILITIES"] == "all"
    assert container.mounts == ("/srv/stages:/srv/stages:ro",)
    assert container.version.container.HasField("entrypoint")


def test_isaac_sim(root: Path) -> None:
    """Kit is run instead of the image's script, as the image's user, in a home that hides nothing of the image.

    Its licence is accepted by the operator, and what its application's directory must take is the session's own.
    """
    (version,) = recipes.load("isaac-sim-6", {"ACCEPT_EULA": "Y"}).versions
    validate(version)
    plan = make_plan(
        version,
        root,
        ports=Ports(101, 102, 103),
        device_kind="GPU",
        device_uuid="GPU-0000",
        device_index=3,
        public_address="192.0.2.7",
    )
    base, environment = "/isaac-sim", dict(plan.environment)

    enabled = ["--enable", "omni.kit.livestream.app", "--enable", "omni.services.livestream.session"]
    start = [f"{base}/kit/kit", f"{base}/apps/isaacsim.exp.full.streaming.kit", "--no-window"]
    assert split(plan.argv) == (flags("108", gpu=0), [*start, *enabled, "--exec", IN_CONTAINER])
    assert set(dict(plan.secret_environment)) == {"OMNI_USER", "OMNI_PASS"}
    parse("isaac-6", list(plan.argv[2:]))
    assert (version.container.user, version.container.HasField("entrypoint")) == ("1234:1234", True)
    assert (environment["ACCEPT_EULA"], environment["PRIVACY_CONSENT"]) == ("Y", "N")
    assert not Path(environment["HOME"]).is_relative_to(base)
    own = tuple(f"footlights-isaac-{name}:{base}/kit/{name}" for name in ("cache", "data", "logs"))
    assert plan.mounts == (*own, "/srv/stages:/srv/stages:ro")
    assert ContainerRules().mounts(own) == (
        (),
        tuple(f"{base}/kit/{name}" for name in ("cache", "data", "logs")),
    )
    assert version.readiness.check == Readiness.OFFER
    for answer in ({}, {"ACCEPT_EULA": ""}, {"ACCEPT_EULA": "N"}, {"ACCEPT_EULA": "yes"}):
        with pytest.raises(InvalidArgument, match="set it to 'Y' where you agree"):
            recipes.load("isaac-sim-6", answer)


def test_a_recipe_that_was_renamed_is_found_by_its_old_name() -> None:
    """An operator who has registered kit-108 gets the new versions for that application."""
    old, new = recipes.load("kit-108"), recipes.load("kit-108-110")

    assert (old.application.application, new.application.application) == ("kit-108", "kit-108-110")
    assert (list(old.versions), dict(old.releases)) == (list(new.versions), dict(new.releases))
    assert "kit-108" not in recipes.names()


@pytest.mark.parametrize("generation", GENERATIONS)
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
    assert settings["/renderer/activeGpu"] == 3

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


async def test_taken_port(root: Path, kit_root: Callable[[str], Path]) -> None:
    """Kit that silently moved to the next port is not ready on its own: the listeners are not its tree's."""
    version = versions("108", kit_root("108"))[PROCESS]
    ports = free_ports()
    plan = kit_plan(version, root, ports)
    launcher = ProcessLauncher(root)
    with squatting("0.0.0.0", ports.signal):
        await launcher.start(plan, b"")
        await logged(launcher, plan, "Streaming server started")
        pids = (await launcher.status(plan)).pids

        outside = ownership.listeners_outside(ports, pids)
        assert [one.port for one in outside] == [ports.signal]
    await launcher.stop(plan)
    await ended(launcher, plan)


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_the_control_api_does_not_wander(generation: str, root: Path, kit_root: Callable[[str], Path]) -> None:
    """Where its port is taken it is on no other one, on which nobody would find it."""
    ports = free_ports()
    plan = kit_plan(versions(generation, kit_root(generation))[PROCESS], root, ports)
    launcher = ProcessLauncher(root)
    with squatting("127.0.0.1", ports.http):
        await launcher.start(plan, b"")
        assert (await ended(launcher, plan)).exit_code == 1
    assert (await launcher.log(plan)).lines[-1] == f"[Error] http port {ports.http} is taken"


@contextmanager
def squatting(host: str, port: int) -> Iterator[None]:
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((host, port))
        squatter.listen()
        yield


async def test_unknown_setting(root: Path, kit_root: Callable[[str], Path]) -> None:
    """The stand-in refuses a setting of the other generation, so that a recipe cannot be wrong unseen."""
    version = versions("107", kit_root("106"))[PROCESS]
    plan = kit_plan(version, root, free_ports())
    launcher = ProcessLauncher(root)

    await launcher.start(plan, b"")

    status = await ended(launcher, plan)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 1)
    assert "unknown setting '--/app/livestream/publicEndpointAddress" in (await launcher.log(plan)).lines[-1]


@pytest.mark.parametrize("generation", GENERATIONS)
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

    assert not [token for token in plan.argv if "store" in token]
    assert "sig=secret" not in str(plan)


async def test_the_stand_in_says_what_was_published(
    root: Path, tmp_path: Path, kit_root: Callable[[str], Path]
) -> None:
    """Its control API has the bodies of Kit's: before a session, in it, after it, and once nobody has resumed it."""
    gate = tmp_path / "ready"
    version = versions("108", kit_root("108"))[PROCESS]
    version.environment.update({"STANDIN_READY_FILE": str(gate), "STANDIN_CREDS": "no relay"})
    for index, word in enumerate(version.command):
        if "resumeTimeoutSeconds" in word:
            version.command[index] = word.replace("=120", "=1")
    ports = free_ports()
    plan = kit_plan(version, root, ports, public_address="127.0.0.1")
    launcher = ProcessLauncher(root)
    base = "/v1/streaming"

    async def status() -> tuple[int, str]:
        code, body = await loopback.ask(ports.http, f"{base}/ready")
        return code, json.loads(body)["statusMessage"]

    async def post(path: str, body: object) -> tuple[int, dict[str, object]]:
        code, answer = await loopback.ask(ports.http, f"{base}/{path}", method="POST", body=json.dumps(body).encode())
        return code, json.loads(answer)

    await launcher.start(plan, b"")
    await logged(launcher, plan, "Streaming server started")
    assert await status() == (503, "Rtx not ready")
    gate.touch()
    assert await status() == (200, "Ready for connection")
    relay = {"stunIp": "192.0.2.1", "stunPort": 3478, "username": "u", "password": "p"}
    assert await post("creds", relay) == (200, {"success": False, "errorMessage": "no relay"})
    assert (await post("creds", relay | {"stunPort": "3478"}))[0] == 422
    assert await post("endsession", {"sessionId": "s", "gracefulShutdown": False}) == (
        200,
        {"sessionStatus": "COMPLETE"},
    )
    async with connect(f"ws://127.0.0.1:{ports.signal}/prefix/sign_in?peer_id=peer-1&version=2", proxy=None) as player:
        for _ in range(3):
            message = json.loads(await player.recv())
        assert json.loads(message["peer_msg"]["msg"])["type"] == "offer"
        answer = json.dumps({"type": "answer", "sdp": "v=0"})
        await player.send(json.dumps({"peer_msg": {"from": 3, "to": 1, "msg": answer}}))
        await until(status, lambda said: said == (200, "Streaming session active (keep alive)"))
        graceful = {"sessionId": "s", "gracefulShutdown": True}
        assert await post("endsession", graceful) == (200, {"sessionStatus": "AWAITING_RESUME"})
        assert await status() == (200, "Awaiting session resume (keep alive)")
    await until(status, lambda said: said == (503, "Streaming session ended (recycle instance)"))
    await launcher.stop(plan)
    await ended(launcher, plan)


async def test_one_that_fails_as_it_starts_has_ended(root: Path, kit_root: Callable[[str], Path]) -> None:
    """With its status and its last words."""
    version = versions("108", kit_root("108"))[PROCESS]
    version.environment["STANDIN_MODES"] = "fails"
    plan = kit_plan(version, root, free_ports())
    launcher = ProcessLauncher(root)

    await launcher.start(plan, b"")

    assert (await ended(launcher, plan)).exit_code == 3
    assert "[Fatal]" in (await launcher.log(plan)).lines[-1]
