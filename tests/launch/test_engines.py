"""Which container engine is used: the operator's choice, or the first that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.engine import EngineError
from footlights.launch.container.engines import DOCKER_SOCKET, ContainerEngines, choose_engines
from footlights.launch.container.podman import PodmanEngine
from tests.launch.standin_engine import StandinEngine, serve
from tests.launch.test_container import podman_program


def test_choices() -> None:
    """Each choice has its engines, in order; an unknown one is named with what there is."""
    names = {choice: [engine.name for engine in choose_engines(choice)] for choice in ("auto", "docker", "podman")}
    assert names == {"auto": ["docker", "podman"], "docker": ["docker"], "podman": ["podman"]}
    assert choose_engines("none") == ()
    with pytest.raises(ValueError, match="'containerd'; choose from docker, podman, auto, none"):
        choose_engines("containerd")


@pytest.mark.parametrize(
    ("socket", "host", "expected"),
    [
        ("", "", str(DOCKER_SOCKET)),
        ("", "unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"),
        ("/srv/docker.sock", "unix:///run/user/1000/docker.sock", "/srv/docker.sock"),
        ("", "tcp://127.0.0.1:2375", str(DOCKER_SOCKET)),
    ],
)
def test_the_socket(socket: str, host: str, expected: str) -> None:
    """An own socket wins over DOCKER_HOST, which wins over the default; another host's Docker is never used."""
    (docker,) = choose_engines("docker", socket, environ={"DOCKER_HOST": host})
    assert isinstance(docker, DockerEngine)
    assert str(docker.socket) == expected


async def test_the_first_that_answers(tmp_path: Path) -> None:
    """Asked afresh each time: one that comes is taken up, one that goes is given up, the order is kept."""
    docker_socket, other_socket = tmp_path / "docker.sock", tmp_path / "other.sock"
    podman = PodmanEngine(program=podman_program(tmp_path, other_socket))
    engines = ContainerEngines([DockerEngine(docker_socket), podman])

    problem = await engines.check()
    assert "docker: " in problem
    assert "podman: " in problem
    with pytest.raises(EngineError, match="podman: "):
        await engines.current()

    standin = StandinEngine()
    runner = await serve(standin, other_socket)
    assert await engines.check() == ""
    assert (await engines.current()).name == "podman"

    docker = await serve(standin, docker_socket)
    assert await engines.check() == ""
    assert (await engines.current()).name == "docker"

    await docker.cleanup()
    docker_socket.unlink(missing_ok=True)
    assert await engines.check() == ""
    assert (await engines.current()).name == "podman"
    await runner.cleanup()
    await engines.close()
    await standin.close()


async def test_an_engine_of_another_age(tmp_path: Path) -> None:
    """An answer that lacks what is asked for is no crash: the engine is not used, and the next one is."""
    socket, old = tmp_path / "docker.sock", tmp_path / "podman"
    standin = StandinEngine()
    standin.info = {}
    runner = await serve(standin, socket)
    engines = ContainerEngines([DockerEngine(socket), PodmanEngine(program=str(old))])
    for answer in ("{}", '{"host": {"security": null}}', '{"host": {"security": {"rootless": true}}}', "[]", "null"):
        old.write_text(f"#!/bin/sh\necho '{answer}'\n")
        old.chmod(0o755)
        problem = await engines.check()
        assert "docker: it lacks MemoryLimit, CpuCfsQuota, PidsLimit, a seccomp profile" in problem
        assert "podman answers in a way that is not understood" in problem
    old.write_text("#!/bin/sh\necho '[{}]'\n")
    for call in (engines.all[1].inspect("a"), engines.all[1].list({})):
        with pytest.raises(EngineError, match="not understood"):
            await call
    await engines.close()
    await runner.cleanup()
    await standin.close()


async def test_a_container_without_a_name(tmp_path: Path) -> None:
    """One that is being made or removed has none for a moment: it is listed by its id, and hides no other."""
    socket, podman = tmp_path / "docker.sock", tmp_path / "podman"
    listed: list[dict[str, Any]] = [
        {"Id": "4f1c", "Names": None, "Labels": {"a": "1"}},
        {"Id": "77aa", "Names": [], "Labels": None},
        {"Id": "", "Names": None, "Labels": None},
        {"Id": "90de", "Names": ["/session"], "Labels": {"a": "2"}},
    ]

    class Nameless(StandinEngine):
        def listed(self, labels: list[str]) -> list[dict[str, Any]]:
            return listed

    standin = Nameless()
    runner = await serve(standin, socket)
    podman.write_text(f"#!/bin/sh\necho '{json.dumps(listed)}'\n")
    podman.chmod(0o755)
    engines = ContainerEngines([DockerEngine(socket), PodmanEngine(program=str(podman))])
    for engine in engines.all:
        assert await engine.list({"a": "1"}) == {"4f1c": {"a": "1"}, "77aa": {}, "session": {"a": "2"}}
    await engines.close()
    await runner.cleanup()
    await standin.close()


async def test_none_and_an_engine_that_is_not_used_any_more() -> None:
    """Without an engine that is said; a container of an engine that is not configured is not guessed about."""
    assert "--container-engine none" in await ContainerEngines(()).check()
    with pytest.raises(EngineError, match="started by docker"):
        ContainerEngines([PodmanEngine()]).named("docker")
