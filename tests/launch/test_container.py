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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from footlights.launch.container.docker import DockerEngine, container_config
from footlights.launch.container.engine import ContainerSpec, EngineError
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.podman import PodmanEngine, create_arguments
from footlights.launch.launcher import LaunchError, LaunchPlan, Phase
from tests.launch.plans import CLUSTER, make_plan, script
from tests.launch.standin_engine import StandinEngine, serve
from tests.launch.waiting import ended, logged

SPEC = ContainerSpec(
    name="footlights-x",
    image="img:1",
    command=("cmd", "arg"),
    environment=(("A", "b"),),
    mounts=("/a:/b:ro", "cache:/c"),
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
    launcher = ContainerLauncher(root, [chosen])
    yield Around(engine, launcher, root)
    await launcher.close()
    await runner.cleanup()
    await engine.close()


def test_the_same_as_dockers_own_command() -> None:
    """The request to create a container is, member by member, what `docker create` of Docker 28.2 sends for it.

    Recorded from: docker create --name footlights-x --network host --init --device nvidia.com/gpu=GPU-abc
    -v /a:/b:ro -v cache:/c --user 1000:1000 --shm-size 1073741824 --stop-signal SIGTERM --stop-timeout 30 -w /w
    -e A=b --label dev.footlights.launch=l --log-driver json-file --log-opt max-size=1m --log-opt max-file=8
    img:1 cmd arg
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
    """podman gets the same container by its options: host network, the device by CDI, no proxies of the agent's."""
    line = create_arguments(SPEC)

    assert line[-3:] == ["img:1", "cmd", "arg"]
    pairs = set(itertools.pairwise(line))
    assert {
        ("--device", "nvidia.com/gpu=GPU-abc"),
        ("--network", "host"),
        ("--volume", "/a:/b:ro"),
        ("--user", "1000:1000"),
        ("--shm-size", "1073741824b"),
        ("--stop-timeout", "30"),
        ("--env", "A=b"),
    } <= pairs
    assert "--http-proxy=false" in line


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

    assert caught.value.reason == "CONTAINER_START_FAILED"
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


async def test_session_file(around: Around) -> None:
    """Secrets reach the container by a mounted file of mode 0600, and neither its environment nor its labels."""
    user = f"{os.getuid()}:{os.getgid()}"
    plan = around.plan({"user": user}, 'cat "$FOOTLIGHTS_SESSION_FILE"; echo; exec sleep 60')

    await around.launcher.start(plan, b'{"password": "hunter2"}')

    await logged(around.launcher, plan, "hunter2")
    assert "hunter2" not in json.dumps(around.engine.created)
    session = plan.directory / "session.json"
    assert stat.S_IMODE(session.stat().st_mode) == 0o600
    assert f"{session}:/run/footlights/session.json:ro" in around.engine.created[0]["HostConfig"]["Binds"]
    assert set(around.engine.created[0]["Labels"].values()) == {CLUSTER, plan.launch_id, plan.session_id}
    await around.launcher.stop(plan, kill=True)
    await ended(around.launcher, plan)


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
    launcher = ContainerLauncher(root, [engine])
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
    launcher = ContainerLauncher(root, [DockerEngine(tmp_path / "engine.sock")])
    assert "docker: " in await launcher.unavailable()
    engine = StandinEngine()
    runner = await serve(engine, tmp_path / "engine.sock")
    assert await launcher.unavailable() == ""
    await launcher.close()
    await runner.cleanup()
    assert "docker: " in await launcher.unavailable()


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
    first = ContainerLauncher(root, [DockerEngine(tmp_path / "none.sock"), podman])
    await first.start(plan, b"")
    await first.close()

    second = ContainerLauncher(root, [DockerEngine(other_socket), podman])
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
