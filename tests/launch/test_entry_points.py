"""Images that start Kit by a shell which evaluates its arguments, by a replica of NVIDIA's entry point.

Before: what such an image made of a session's stage, and of SIGTERM. Now: a version names Kit itself. With the stand-in
for an engine here, with the real ones in `test_real_entry_points`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Version

from footlights import recipes
from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.podman import PodmanEngine
from footlights.launch.container.rules import ContainerRules
from footlights.launch.launcher import LaunchError, LaunchPlan, Ports
from footlights.launch.recipe.read_again import free_names
from footlights.launch.recipe.recipe import validate
from footlights.launch.recipe.template import parse
from footlights.launch.recipe.whole_command import whole_command
from tests.launch.plans import make_plan
from tests.launch.standin_engine import StandinEngine, serve
from tests.launch.test_container import podman_program
from tests.launch.test_kit import free_ports
from tests.launch.waiting import ended, logged

REPLICA = Path(__file__).with_name("kit_entrypoint.sh")
STANDIN = Path(__file__).with_name("standin_kit.py")
HOSTILE = {
    "a$(touch${IFS}pwned).usd": "refused",
    "a;id;.usd": "opened",
    "a b.usd": "opened",
    "a`touch pwned`.usd": "opened",
    "a\ntouch pwned.usd": "refused",
    "a>pwned.usd": "opened",
    "a&touch pwned&.usd": "opened",
    "a|touch pwned.usd": "opened",
    "a'.usd": "opened",
    "$env{HOME}.usd": "refused",
}
"""Names of stages, and what becomes of a session of such a one."""
OWN = 6
"""The tokens at the command's start that the image's own script has already."""


@dataclass
class Image:
    """An image whose entry point is the replica: its files lie on this machine."""

    root: Path
    stages: Path

    def version(self, *, foreign: bool = False) -> Version:
        """The recipe's container, its files where they are here; ``foreign``: as the image starts it itself."""
        loaded = recipes.load("kit-108-110", {"STAGE_ROOT": str(self.stages), "KIT_IMAGE": "kit:1", "KIT_USER": ""})
        version = by_command(next(each for each in loaded.versions if each.HasField("container")))
        own, settings = version.command[:OWN], version.command[OWN:]
        version.command[:] = [*(token.replace("/app/", f"{self.root}/", 1) for token in own), *settings]
        version.environment.update(
            {"KIT_REPLICA_ROOT": str(self.root), "STANDIN_KIT": "108", "HOME": str(self.root / "home")}
        )
        del version.container.volume_mounts[:]
        if foreign:
            version.container.ClearField("entrypoint")
            version.command[:] = settings
        else:
            validate(version)
        return version


@pytest.fixture
def image(tmp_path: Path) -> Image:
    root = tmp_path / "image"
    for folder in ("kit", "apps", "exts", "home"):
        (root / folder).mkdir(parents=True)
    kit = root / "kit" / "kit"
    kit.write_text(f"#!{sys.executable} -IS\n{STANDIN.read_text()}")
    kit.chmod(0o755)
    (tmp_path / "stages").mkdir()
    return Image(root, tmp_path / "stages")


@dataclass
class Around:
    launcher: ContainerLauncher
    root: Path


@pytest.fixture(params=["docker", "podman"])
async def around(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> AsyncIterator[Around]:
    engine = StandinEngine()
    engine.images["kit:1"] = {"User": "", "Volumes": None, "Entrypoint": [str(REPLICA)], "Cmd": ["--unused"]}
    runner = await serve(engine, socket := tmp_path / "engine.sock")
    docker = request.param == "docker"
    chosen = DockerEngine(socket) if docker else PodmanEngine(program=podman_program(tmp_path, socket))
    launcher = ContainerLauncher(root, [chosen], ContainerRules())
    yield Around(launcher, root)
    await launcher.close()
    await runner.cleanup()
    await engine.close()


def by_command(version: Version) -> Version:
    """The recipe as an application like USD Viewer has it, which is given its stage on its command line."""
    version.ClearField("stage_delivery")
    version.command.append("--/app/auto_load_usd={usd_stage_uri}")
    return version


@pytest.mark.parametrize("recipe", ["kit-106", "kit-107", "kit-108-110", "isaac-sim-6"])
def test_no_recipe_of_kit_has_a_sessions_text_in_its_command(recipe: str) -> None:
    """They take the stage from the session file; what else a session gives them is secret, and in variables alone."""
    for version in recipes.load(recipe, {"ACCEPT_EULA": "Y"}).versions:
        used = {name for token in whole_command(version) for name in parse(token.text).names}
        assert not used & free_names(version)
        assert all(argument.secret for argument in version.arguments)


def plan_of(version: Version, root: Path, ports: Ports, stage: str) -> LaunchPlan:
    return make_plan(version, root, ports=ports, usd_stage_uri=stage, grace_s=20.0)


def as_before(version: Version, root: Path, ports: Ports, stage: str) -> LaunchPlan:
    """The plan of an agent that gave a session's text to whatever the image runs."""
    plan = plan_of(version, root, ports, "")
    return replace(plan, argv=tuple(f"{token}{stage}" if token.endswith("usd=") else token for token in plan.argv))


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "$env{HOME}.usd"])
def test_the_replica_evaluates_a_stage(name: str, image: Image, tmp_path: Path) -> None:
    """What is tried here is a danger: handed to such an entry point, a stage's name is not what Kit gets."""
    kit = image.root / "kit" / "kit"
    kit.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    environment = {"PATH": os.environ["PATH"], "KIT_REPLICA_ROOT": str(image.root)}
    token = f"--/app/auto_load_usd=/srv/{name}"

    said = subprocess.run(
        [REPLICA, token], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
    )

    assert f"<{token}>" not in said.stdout
    ran = any(tmp_path.glob("pwned*")) or "uid=" in said.stdout or "not found" in said.stderr or said.returncode != 0
    assert ran or name == "a b.usd"


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_stage_reaches_kit_as_it_is_or_not_at_all(name: str, around: Around, image: Image) -> None:
    """By the recipe no shell is between: what Kit would read in it, or a path cannot have, is refused before."""
    ports, stage = free_ports(), f"{image.stages}/{name}"
    if HOSTILE[name] == "refused":
        with pytest.raises(LaunchError) as caught:
            plan_of(image.version(), around.root, ports, stage)
        assert caught.value.reason == "BAD_RECIPE"
        return
    plan = plan_of(image.version(), around.root, ports, stage)

    await around.launcher.start(plan, b"{}")
    said = await logged(around.launcher, plan, f"Streaming server started on {ports.signal}.")
    await around.launcher.stop(plan)
    await ended(around.launcher, plan)

    assert f"Opening {stage!r}" in said
    assert not any("uid=" in line or "not found" in line for line in said)
    assert not [path for path in (Path("/pwned"), image.root / "pwned") if path.exists()]


async def test_sigterm_reaches_kit_and_ends_it(around: Around, image: Image) -> None:
    """Kit is what the engine signals: it ends in order, with its own status, long before it would be killed."""
    ports = free_ports()
    plan = plan_of(image.version(), around.root, ports, "")

    await around.launcher.start(plan, b"{}")
    await logged(around.launcher, plan, "Streaming server started")
    await around.launcher.stop(plan)
    status = await ended(around.launcher, plan)

    assert status.exit_code == 0
    assert (await around.launcher.log(plan)).lines[-1] == "Shutting down."


async def test_before_it_was_killed_behind_its_shell(around: Around, image: Image) -> None:
    """The image's own entry point evaluates a stage, is ended by the signal, and Kit with it, without a word."""
    ports = free_ports()
    plan = as_before(image.version(foreign=True), around.root, ports, "/srv/a$(echo${IFS}owned>&2).usd")

    await around.launcher.start(plan, b"{}")
    said = await logged(around.launcher, plan, f"Streaming server started on {ports.signal}.")
    await around.launcher.stop(plan)
    status = await ended(around.launcher, plan)

    assert {"owned", "Opening '/srv/a.usd'"} <= {*said}
    assert status.exit_code == -signal.SIGTERM
    assert "Shutting down." not in (await around.launcher.log(plan)).lines
