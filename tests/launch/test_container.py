"""What is particular to containers: images, devices, mounts, and what the engine is asked.

Also the tests of ``docker``, ``podman`` and ``engine``.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from footlights.v1.application_pb2 import StageDelivery, Version
from google.protobuf import json_format

from footlights.launch.container.docker import DockerEngine, container_config
from footlights.launch.container.engine import ContainerNetwork, ContainerSpec, EngineError, ImageFacts, PublishedPort
from footlights.launch.container.launcher import FIRST_USER, HOME, ContainerLauncher, user_of
from footlights.launch.container.podman import PodmanEngine, create_arguments
from footlights.launch.container.rules import ContainerRules
from footlights.launch.launcher import LaunchError, LaunchPlan, Phase
from tests.launch.plans import CLUSTER, make_plan, script
from tests.launch.standin_engine import StandinEngine, serve
from tests.launch.waiting import ended, logged

SPEC = ContainerSpec(
    name="footlights-x",
    image="img:1",
    program="cmd",
    command=("arg",),
    environment=(("A", "b"),),
    mounts=("/a:/b:ro", "cache:/c"),
    network=ContainerNetwork(own="10.213.9.0/30", shared="10.213.252.0/22"),
    ports=(PublishedPort(8010, "tcp", "127.0.0.1"), PublishedPort(8011, "udp")),
    directories=("/tmp",),
    directory_bytes=4096,
    memory_bytes=1 << 30,
    processors=2.5,
    tasks=512,
    labels={"dev.footlights.launch": "l"},
    user="1000:1000",
    working_directory="/w",
    shm_size_bytes=1 << 30,
    stop_grace_s=30,
    device="nvidia.com/gpu=GPU-abc",
)


@dataclass
class Around:
    engine: StandinEngine
    launcher: ContainerLauncher
    root: Path

    def plan(self, container: dict[str, Any], text: str = "echo up; exec sleep 60", **members: Any) -> LaunchPlan:
        version = script(text)
        json_format.ParseDict({"container": {"image": "app:1", **container}}, version)
        return make_plan(version, self.root, **members)


def podman_program(directory: Path, socket: Path) -> str:
    """Make a stand-in for podman's command, over the stand-in engine at ``socket``."""
    program = directory / "podman"
    standin = Path(__file__).with_name("standin_podman.py")
    program.write_text(f'#!/bin/sh\nSTANDIN_SOCKET={socket} exec {sys.executable} -I -S {standin} "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture(params=["docker", "podman"])
async def around(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> AsyncIterator[Around]:
    engine = StandinEngine()
    runner = await serve(engine, socket := tmp_path / "engine.sock")
    chosen = (
        DockerEngine(socket) if request.param == "docker" else PodmanEngine(program=podman_program(tmp_path, socket))
    )
    launcher = ContainerLauncher(root, [chosen], ContainerRules())
    yield Around(engine, launcher, root)
    await launcher.close()
    await runner.cleanup()
    await engine.close()


def test_the_same_as_dockers_own_command() -> None:
    """The request to create a container is, member by member, what `docker create` of Docker 28.2 sends for it.

    Recorded from: docker create --name footlights-x --network footlights-sessions --init
    --device nvidia.com/gpu=GPU-abc
    -v /a:/b:ro -v cache:/c --user 1000:1000 --shm-size 1073741824 --stop-signal SIGTERM --stop-timeout 30 -w /w
    -e A=b --label dev.footlights.launch=l --log-driver json-file --log-opt max-size=1m --log-opt max-file=8
    --cap-drop ALL --security-opt no-new-privileges --read-only --ipc private --memory 1073741824
    --memory-swap 1073741824 --cpus 2.5 --pids-limit 512
    --tmpfs /tmp:rw,nosuid,nodev,exec,size=4096,mode=1777,uid=1000,gid=1000
    -p 127.0.0.1:8010:8010/tcp -p 8011:8011/udp --entrypoint cmd img:1 arg
    """
    recorded = json.loads(Path(__file__).with_name("docker_cli_create.json").read_text())
    recorded["HostConfig"]["DeviceRequests"] = [
        {name: value for name, value in request.items() if value not in (None, 0)}
        for request in recorded["HostConfig"]["DeviceRequests"]
    ]

    ours = container_config(SPEC)

    host = ours.pop("HostConfig")
    assert isinstance(host, dict)
    assert {name: recorded[name] for name in ours} == ours
    assert {name: recorded["HostConfig"][name] for name in host} == host


def test_podmans_command_line() -> None:
    """podman gets the same container by its options: a network, the device by CDI, no proxies of the agent's."""
    line = create_arguments(SPEC, "footlights-x")

    assert line[-2:] == ["img:1", "arg"]
    pairs = set(itertools.pairwise(line))
    assert {
        ("--device", "nvidia.com/gpu=GPU-abc"),
        ("--network", "footlights-x"),
        ("--publish", "127.0.0.1:8010:8010/tcp"),
        ("--publish", "8011:8011/udp"),
        ("--cap-drop", "all"),
        ("--security-opt", "no-new-privileges"),
        ("--ipc", "private"),
        ("--memory", "1073741824b"),
        ("--memory-swap", "1073741824b"),
        ("--cpus", "2.5"),
        ("--pids-limit", "512"),
        ("--tmpfs", "/tmp:rw,nosuid,nodev,exec,size=4096,mode=1777,notmpcopyup"),
        ("--volume", "/a:/b:ro"),
        ("--user", "1000:1000"),
        ("--shm-size", "1073741824b"),
        ("--stop-timeout", "30"),
        ("--env", "A=b"),
        ("--entrypoint", '["cmd"]'),
    } <= pairs
    assert {"--http-proxy=false", "--read-only", "--read-only-tmpfs=false"} <= {*line}
    assert "--network" not in create_arguments(SPEC, "")


async def test_device(around: Around) -> None:
    """A launch on a GPU asks for exactly that one by CDI and UUID; one on no GPU asks for none."""
    plan = around.plan({}, device_kind="GPU", device_uuid="GPU-0000")
    await around.launcher.start(plan, b"")
    other = around.plan({})
    await around.launcher.start(other, b"")

    assert [config["HostConfig"]["DeviceRequests"] for config in around.engine.created] == [
        [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-0000"]}],
        [],
    ]
    for one in (plan, other):
        await around.launcher.stop(one, kill=True)
        await ended(around.launcher, one)


async def test_unknown_device(around: Around) -> None:
    """A device that CDI does not know is a launch error with the engine's words, and no container is left."""
    with pytest.raises(LaunchError, match="unresolvable CDI devices") as caught:
        await around.launcher.start(around.plan({}, device_kind="GPU", device_uuid="GPU-gone"), b"")

    assert (caught.value.reason, caught.value.rejected) == ("DEVICE_UNRESOLVABLE", True)
    assert "nvidia-ctk cdi generate" in caught.value.message
    assert around.engine.containers == {}


async def test_pull_policies(around: Around) -> None:
    """`missing` pulls what is not there, `always` always, `never` never."""
    await around.launcher.prepare(around.plan({}))
    assert around.engine.pulled == []
    await around.launcher.prepare(around.plan({"image": "app:2"}))
    await around.launcher.prepare(around.plan({"image": "app:2"}))
    assert around.engine.pulled == ["app:2"]
    await around.launcher.prepare(around.plan({"image": "app:2", "pull_policy": "always"}))
    assert around.engine.pulled == ["app:2", "app:2"]
    with pytest.raises(LaunchError, match="pull_policy is never") as caught:
        await around.launcher.prepare(around.plan({"image": "app:3", "pull_policy": "never"}))
    assert caught.value.reason == "IMAGE_NOT_FOUND"
    with pytest.raises(LaunchError, match="pull access denied for app:3") as caught:
        await around.launcher.prepare(around.plan({"image": "app:3"}))
    assert caught.value.reason == "IMAGE_PULL_FAILED"


async def test_kits_program_for_stages_is_in_its_container(around: Around) -> None:
    """Where its version takes the stage from the session file; no image has that program."""
    user = {"user": f"{os.getuid()}:{os.getgid()}"}
    plain, plan = around.plan(user), around.plan(user, "grep -c FOOTLIGHTS_SESSION_FILE $SCRIPT; exec sleep 60")
    plan.version.stage_delivery.method = StageDelivery.SESSION_FILE
    plan = replace(plan, environment=(*plan.environment, ("SCRIPT", "/run/footlights/kit_stage.py")))

    for each in (plain, plan):
        await around.launcher.start(each, b"{}")
    await logged(around.launcher, plan, "1")

    mounted = f"{plan.directory}/kit_stage.py:/run/footlights/kit_stage.py:ro"
    assert [mounted in each["HostConfig"]["Binds"] for each in around.engine.created] == [False, True]
    for each in (plain, plan):
        await around.launcher.stop(each, kill=True)
        await ended(around.launcher, each)
        await around.launcher.discard(each)
    assert not (plan.directory / "kit_stage.py").exists()


def test_a_secret_is_on_no_command_line() -> None:
    """Podman is told a name of it; Docker, over its socket, the value."""
    spec = replace(SPEC, secret_environment=(("OMNI_PASS", "hunter2"),))

    line = create_arguments(spec, "", {"OMNI_PASS": "footlights-x-secret-0"})

    assert "footlights-x-secret-0,type=env,target=OMNI_PASS" in line
    assert "hunter2" not in " ".join(line)
    assert "OMNI_PASS=hunter2" in json.dumps(container_config(spec))
    assert "hunter2" not in repr(spec)


async def test_podman_keeps_no_secret(around: Around) -> None:
    """Its secrets are gone once the container has begun, and with a container that never did."""
    version = {"user": f"{os.getuid()}:{os.getgid()}"}
    plan, lost = (
        replace(each, secret_environment=(("KEY", "{key}"),))
        for each in (
            around.plan(version, "echo got $KEY; exec sleep 60"),
            around.plan(version, device_kind="GPU", device_uuid="GPU-gone"),
        )
    )

    await around.launcher.start(plan, b'{"key": "hunter2"}')
    with pytest.raises(LaunchError):
        await around.launcher.start(lost, b'{"key": "hunter2"}')

    await logged(around.launcher, plan, "got hunter2")
    assert around.engine.secrets == {}
    await around.launcher.stop(plan, kill=True)


async def test_session_file(around: Around) -> None:
    """Secrets reach the container by a mounted file, and neither its environment nor its labels."""
    user = f"{os.getuid()}:{os.getgid()}"
    plan = around.plan({"user": user}, 'cat "$FOOTLIGHTS_SESSION_FILE"; echo; exec sleep 60')

    await around.launcher.start(plan, b'{"password": "hunter2"}')

    await logged(around.launcher, plan, "hunter2")
    assert "hunter2" not in json.dumps(around.engine.created)
    session = plan.directory / "session.json"
    assert stat.S_IMODE(session.parent.stat().st_mode) == 0o700
    assert f"{session}:/run/footlights/session.json:ro" in around.engine.created[0]["HostConfig"]["Binds"]
    assert set(around.engine.created[0]["Labels"].values()) == {CLUSTER, plan.launch_id, plan.session_id}
    await around.launcher.stop(plan, kill=True)
    await ended(around.launcher, plan)


@pytest.mark.parametrize("namespace", [True, False])
async def test_who_reads_the_session_file(namespace: bool, around: Around) -> None:
    """The container's user does, whoever that is on the node: where it cannot be the owner, by the file's mode."""
    if not namespace:
        around.engine.info["SecurityOptions"].remove("name=rootless")
    around.engine.images["app:1"]["User"] = "1000"
    plan = around.plan({})
    plan.version.command[:] = ["/no/such/program"]
    plan = make_plan(plan.version, around.root)

    with pytest.raises(LaunchError, match="no/such/program"):
        await around.launcher.start(plan, b"{}")

    found = (plan.directory / "session.json").stat()
    given = not namespace and os.geteuid() == 0
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == ((1000, 0o600) if given else (os.geteuid(), 0o644))


async def test_a_network_is_left_by_nothing(around: Around) -> None:
    """A launch's own network goes when the launch is discarded, also where its container is gone or never was."""
    around.engine.info["SecurityOptions"].remove("name=rootless")
    plan = make_plan(containered(), around.root, own_network=True)
    name = f"footlights-{plan.launch_id}"
    around.engine.create_network({"Name": name})
    assert await around.launcher.unavailable() == ""

    await around.launcher.discard(plan)

    own = around.launcher._engines.all[0].name == "podman"  # Docker's containers share one that keeps them apart
    assert (name in around.engine.networks) is not own


async def test_both_streams(around: Around) -> None:
    """What goes to stdout and to stderr is one log, in the order of its times."""
    plan = around.plan({}, "echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three")
    await around.launcher.start(plan, b"")
    await ended(around.launcher, plan)

    assert (await around.launcher.log(plan)).lines == ("one", "two", "three")


async def test_created_but_not_started(around: Around) -> None:
    """A container that an agent created and did not come to start is started by the next."""
    plan = around.plan({})
    await around.launcher.start(plan, b"")
    await around.launcher.stop(plan, kill=True)
    await ended(around.launcher, plan)
    name, container = next(iter(around.engine.containers.items()))
    await around.engine.remove(name)
    around.engine.create(name, container.config)
    assert (await around.launcher.status(plan)).phase is Phase.UNKNOWN

    await around.launcher.start(plan, b"")

    assert (await around.launcher.status(plan)).phase is Phase.RUNNING
    await around.launcher.stop(plan, kill=True)
    await ended(around.launcher, plan)


@pytest.mark.parametrize("kind", ["docker", "podman"])
async def test_engine_is_gone(kind: str, root: Path, tmp_path: Path) -> None:
    """An engine that does not answer is told from a container that is not there: nothing is known, and it is said."""
    engine = DockerEngine(tmp_path / "no.sock") if kind == "docker" else PodmanEngine(program=str(tmp_path / "no"))
    launcher = ContainerLauncher(root, [engine], ContainerRules())
    version = script("exit 0")
    version.container.image = "app:1"
    plan = make_plan(version, root)

    with pytest.raises(EngineError):
        await launcher.status(plan)
    for call in (launcher.prepare(plan), launcher.start(plan, b"")):
        with pytest.raises(LaunchError) as caught:
            await call
        assert (caught.value.reason, caught.value.rejected) == ("ENGINE_UNAVAILABLE", True)
    await launcher.close()


async def test_an_engine_that_does_not_answer_makes_the_launcher_unavailable(root: Path, tmp_path: Path) -> None:
    """It says which engine and why; with an engine that answers there is nothing to say."""
    launcher = ContainerLauncher(root, [DockerEngine(tmp_path / "engine.sock")], ContainerRules())
    assert "docker: " in await launcher.unavailable()
    engine = StandinEngine()
    runner = await serve(engine, tmp_path / "engine.sock")
    assert await launcher.unavailable() == ""
    await runner.cleanup()
    assert "docker: " in await launcher.unavailable()
    await launcher.close()


async def test_a_container_belongs_to_the_engine_that_started_it(root: Path, tmp_path: Path) -> None:
    """When another engine is preferred later, the container is still asked, and ended, at its own."""
    engine = StandinEngine()
    runner = await serve(engine, socket := tmp_path / "engine.sock")
    podman = PodmanEngine(program=podman_program(tmp_path, socket))
    other = StandinEngine()
    other_runner = await serve(other, other_socket := tmp_path / "other.sock")
    version = script("echo up; exec sleep 60")
    version.container.image = "app:1"
    plan = make_plan(version, root)
    first = ContainerLauncher(root, [DockerEngine(tmp_path / "none.sock"), podman], ContainerRules())
    await first.start(plan, b"")
    await first.close()

    second = ContainerLauncher(root, [DockerEngine(other_socket), podman], ContainerRules())
    assert await second.unavailable() == ""
    assert (await second.status(plan)).phase is Phase.RUNNING
    assert plan.launch_id in await second.find(CLUSTER)
    await second.stop(plan, kill=True)
    await ended(second, plan)
    await second.discard(plan)
    assert (await second.log(plan)).lines == ("up",)

    await second.close()
    for each in (runner, other_runner):
        await each.cleanup()
    for standin in (engine, other):
        await standin.close()


def test_registry_credentials(tmp_path: Path) -> None:
    """Credentials of `docker login` are used for their registry and for no other."""
    auth = tmp_path / "config.json"
    auth.write_text(json.dumps({"auths": {"registry.example:5000": {"auth": "JG9hdXRodG9rZW46c2VjcmV0"}}}))
    engine = DockerEngine(tmp_path / "no.sock", auth_file=auth)

    assert engine._auth("registry.example:5000/a/b:1") == {
        "username": "$oauthtoken",
        "password": "secret",
        "serveraddress": "registry.example:5000",
    }
    assert engine._auth("other.example/a:1") is None
    assert engine._auth("library/a:1") is None
    assert DockerEngine(tmp_path / "no.sock", auth_file=tmp_path / "none")._auth("registry.example/a") is None


@pytest.mark.parametrize(
    ("version", "image", "expected"),
    [
        ("", "", "own"),
        ("", "root", "own"),
        ("", "0:0", "own"),
        ("", "1000", "1000"),
        ("1000", "ubuntu", "1000"),
        ("1001:1002", "root", "1001:1002"),
    ],
)
def test_no_application_is_root(version: str, image: str, expected: str, root: Path) -> None:
    """A container runs as the version's user or the image's; where that would be root, as one that only it has."""
    plan = make_plan(containered(user=version), root)
    own = FIRST_USER + plan.ports.signal

    user = user_of(plan, ImageFacts(user=image), namespace=False)

    assert user == (f"{own}:{own}" if expected == "own" else expected)


@pytest.mark.parametrize(
    ("version", "image", "words"),
    [
        ("0", "", r"as root of the node: give container\.user another id"),
        ("00:5", "", r"as root of the node: give container\.user another id"),
        ("", "ubuntu", r"'ubuntu' is a name, which may be root's: give container\.user its id"),
    ],
)
def test_users_that_may_be_root(version: str, image: str, words: str, root: Path) -> None:
    """Root is refused, and a mere name too, except in a user namespace, where both are nobody of the node."""
    plan = make_plan(containered(user=version), root)

    with pytest.raises(LaunchError, match=words) as caught:
        user_of(plan, ImageFacts(user=image), namespace=False)

    assert (caught.value.reason, caught.value.rejected) == ("USER_REFUSED", True)
    assert user_of(plan, ImageFacts(user=image), namespace=True) == version


async def test_where_it_may_write(around: Around) -> None:
    """Only to directories of its own: home, temporary files, the image's volumes and those that are not shared."""
    around.engine.images["app:1"]["Volumes"] = {"/data": {}}
    around.launcher = ContainerLauncher(
        around.root, around.launcher._engines.all, ContainerRules(shared_volumes=("shared-*",))
    )
    mounts = [("cache", "/c"), ("shared-1", "/tmp")]
    volumes = [{"source": source, "target": target} for source, target in mounts]
    plan = around.plan(
        {"volume_mounts": volumes, "disk_bytes": 4096, "memory_bytes": 8192, "tasks": 5, "processors": 0.5}
    )

    await around.launcher.start(plan, b"")

    host = around.engine.created[0]["HostConfig"]
    assert set(host["Tmpfs"]) == {HOME, "/var/tmp", "/c", "/data"}
    assert all("size=4096" in options for options in host["Tmpfs"].values())
    assert host["Binds"][0] == "shared-1:/tmp:ro"
    assert [bind.split(":")[0] for bind in host["Binds"][1:]] == [str(plan.directory / "session.json")]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (8192, 8192, 5, 500_000_000)
    assert host["ReadonlyRootfs"] is True
    await around.launcher.stop(plan, kill=True)
    await ended(around.launcher, plan)


async def test_a_home_with_mounts_in_it(around: Around) -> None:
    """What lies between a home and a mount in it can be written to as well; a root that is called a home cannot."""
    volumes = [{"source": "cache", "target": "/home/user/.cache/ov"}]
    for home, expected in {
        "/home/user": {"/home/user", "/home/user/.cache", "/home/user/.cache/ov", "/tmp", "/var/tmp"},
        "/": {"/home/user/.cache/ov", "/tmp", "/var/tmp"},
    }.items():
        version = containered()
        json_format.ParseDict({"container": {"volume_mounts": volumes}, "environment": {"HOME": home}}, version)
        plan = make_plan(version, around.root)
        await around.launcher.start(plan, b"")

        assert set(around.engine.created[-1]["HostConfig"]["Tmpfs"]) == expected
        await around.launcher.stop(plan, kill=True)
        await ended(around.launcher, plan)


async def test_devices_by_cdi_alone(around: Around) -> None:
    """No version gets a GPU by the variable that a vendor's hook of the engine reads."""
    version = containered()
    version.command[:] = ["/bin/sleep", "60"]
    version.environment["NVIDIA_VISIBLE_DEVICES"] = "all"
    plan = make_plan(version, around.root)

    await around.launcher.start(plan, b"")

    assert "NVIDIA_VISIBLE_DEVICES=void" in around.engine.created[0]["Env"]
    assert "NVIDIA_VISIBLE_DEVICES=all" not in around.engine.created[0]["Env"]
    await around.launcher.stop(plan, kill=True)
    await ended(around.launcher, plan)


async def test_own_network(around: Around) -> None:
    """A container is alone on its network; with the node's, which an operator may choose, nothing is published."""
    around.engine.info["SecurityOptions"].remove("name=rootless")
    around.engine.images["app:1"]["User"] = "1000"
    docker = around.launcher._engines.all[0].name == "docker"
    version = containered()
    version.command[:] = ["/no/such/program"]
    plans = [make_plan(version, around.root, own_network=own) for own in (True, False)]

    for plan in plans:
        with pytest.raises(LaunchError, match="no/such/program"):
            await around.launcher.start(plan, b"")

    own, node = (config["HostConfig"] for config in around.engine.created)
    assert own["NetworkMode"] == ("footlights-sessions" if docker else f"footlights-{plans[0].launch_id}")
    assert "29102" in json.dumps(own["PortBindings"])
    assert (node["NetworkMode"], node["PortBindings"]) == ("host", {} if docker else [])
    if docker:
        network = around.engine.networks["footlights-sessions"]
        assert network["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
        assert network["IPAM"]["Config"] == [{"Subnet": "10.213.252.0/22"}]
    else:
        assert around.engine.networks == {}, "a network ends with its container"


@pytest.mark.parametrize(
    ("options", "subnet", "said"),
    [({}, "10.213.252.0/22", "does not keep containers apart"), (None, "10.1.0.0/22", "not 10.213.252.0/22")],
)
async def test_a_network_that_is_another_one(
    options: dict[str, str] | None, subnet: str, said: str, root: Path, tmp_path: Path
) -> None:
    """One of that name is not used that joins containers, or whose addresses no packet filter of ours knows."""
    standin = StandinEngine()
    apart = {"com.docker.network.bridge.enable_icc": "false"} if options is None else options
    ipam = {"Config": [{"Subnet": subnet}]}
    standin.create_network({"Name": "footlights-sessions", "Driver": "bridge", "Options": apart, "IPAM": ipam})
    runner = await serve(standin, socket := tmp_path / "engine.sock")
    launcher = ContainerLauncher(root, [DockerEngine(socket)], ContainerRules())

    with pytest.raises(LaunchError, match=f"{said}.*: remove it"):
        await launcher.start(make_plan(containered(), root, own_network=True), b"")

    await launcher.close()
    await runner.cleanup()
    await standin.close()


@pytest.mark.parametrize("lacking", ["memory", "seccomp"])
async def test_an_engine_without_limits(lacking: str, around: Around) -> None:
    """An engine that would ignore a limit, or filters no system calls, starts nothing, and is said to."""
    if lacking == "memory":
        around.engine.info["MemoryLimit"] = False
    else:
        around.engine.info["SecurityOptions"] = []

    problem = await around.launcher.unavailable()

    assert "lacks" in problem
    assert lacking in problem.lower()


def containered(user: str = "") -> Version:
    """A version that runs in a container."""
    version = script("exec sleep 60")
    version.container.image = "app:1"
    version.container.user = user
    return version
