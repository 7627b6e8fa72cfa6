"""The same as `test_entry_points`, with real podman and Docker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from footlights.v1.application_pb2 import Version

from footlights import recipes
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from footlights.launch.launcher import LaunchError, LogPart
from footlights.launch.probes.readiness import why_unready
from footlights.launch.recipe.recipe import validate
from tests.hostile.engines import RealEngine, image_tar, real_engine
from tests.launch.test_entry_points import HOSTILE, OWN, REPLICA, STANDIN, as_before, by_command, plan_of
from tests.launch.test_kit import free_ports
from tests.launch.waiting import ended, logged, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

IMAGE = "localhost/kit-replica:1"
ISAAC_APP = "isaac-sim/apps/isaacsim.exp.full.streaming.kit"


@pytest.fixture(scope="module", params=["docker", "podman"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    kit = b"#!/usr/bin/python3 -IS\n" + STANDIN.read_bytes()
    files = {"entrypoint.sh": REPLICA.read_bytes(), "app/kit/kit": kit, "isaac-sim/kit/kit": kit}
    content = image_tar(**files, **dict.fromkeys(("app/apps/streaming.kit", ISAAC_APP), b""))
    with real_engine(request.param, tmp_path_factory.mktemp(request.param)) as engine:
        engine.load(IMAGE, content, 'ENTRYPOINT ["/entrypoint.sh"]', 'CMD ["--unused"]')
        yield engine


@pytest.fixture
async def launcher(real: RealEngine, root: Path, tmp_path: Path) -> AsyncIterator[ContainerLauncher]:
    made = ContainerLauncher(root, [real.engine], ContainerRules(allowed_roots=(str(tmp_path),)))
    yield made
    await made.close()


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    path = tmp_path / "stages"
    path.mkdir()
    return path


def version_of(stages: Path, *, foreign: bool = False) -> Version:
    """The recipe's container as it is, or as it was before: started by the image."""
    loaded = recipes.load("kit-108-110", {"STAGE_ROOT": str(stages), "KIT_IMAGE": IMAGE})
    version = by_command(next(each for each in loaded.versions if each.HasField("container")))
    version.container.shm_size_bytes = 16 << 20
    version.environment["STANDIN_KIT"] = "108"
    if foreign:
        version.container.ClearField("entrypoint")
        version.command[:] = version.command[OWN:]
    else:
        validate(version)
    return version


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_stage_reaches_kit_as_it_is_or_not_at_all(
    name: str, launcher: ContainerLauncher, root: Path, stages: Path
) -> None:
    """Kit is asked for its stage's own name, becomes ready as a session needs it, and ends in order on SIGTERM."""
    ports, stage = free_ports(), f"{stages}/{name}"
    if HOSTILE[name] == "refused":
        with pytest.raises(LaunchError):
            plan_of(version_of(stages), root, ports, stage)
        return
    plan = plan_of(version_of(stages), root, ports, stage)
    await launcher.prepare(plan)
    await launcher.start(plan, b"{}")
    try:
        said = await logged(launcher, plan, f"Streaming server started on {ports.signal}.")
        await until(lambda: why_unready(plan, _no_log), lambda why: not why, deadline_s=60.0)
    finally:
        await launcher.stop(plan)
        status = await ended(launcher, plan)
        log = (await launcher.log(plan)).lines
        await launcher.discard(plan)

    assert f"Opening {stage!r}" in said
    assert (status.exit_code, log[-1]) == (0, "Shutting down."), "\n".join(log)
    assert not any("not found" in line for line in log)


async def test_before_it_was_killed_behind_its_shell(launcher: ContainerLauncher, root: Path, stages: Path) -> None:
    """Started by the image, a stage is evaluated, and SIGTERM ends the shell: Kit is killed without a word."""
    ports = free_ports()
    plan = as_before(version_of(stages, foreign=True), root, ports, "/srv/a$(echo${IFS}owned>&2).usd")
    await launcher.prepare(plan)
    await launcher.start(plan, b"{}")
    try:
        said = await logged(launcher, plan, f"Streaming server started on {ports.signal}.")
    finally:
        begun = asyncio.get_running_loop().time()
        await launcher.stop(plan)
        status = await ended(launcher, plan)
        took = asyncio.get_running_loop().time() - begun
        log = (await launcher.log(plan)).lines
        await launcher.discard(plan)

    assert {"owned", "Opening '/srv/a.usd'"} <= {*said}
    assert status.exit_code != 0, f"after {took:.1f} s"
    assert "Shutting down." not in log


async def test_isaac_sim_runs_as_its_user(launcher: ContainerLauncher, root: Path, stages: Path) -> None:
    """Kit is found in the image beside the directories that are the session's own, becomes ready, and ends in order."""
    given = {"ISAAC_IMAGE": IMAGE, "ACCEPT_EULA": "Y", "STAGE_ROOT": str(stages)}
    (version,) = recipes.load("isaac-sim-6", given).versions
    version.container.shm_size_bytes = version.container.disk_bytes = 16 << 20
    version.environment["STANDIN_KIT"] = "isaac-6"
    plan = plan_of(version, root, free_ports(), "")
    await launcher.prepare(plan)
    await launcher.start(plan, b"{}")
    try:
        await until(lambda: why_unready(plan, _no_log), lambda why: not why, deadline_s=60.0)
        pids = (await launcher.status(plan)).pids
        users = {psutil.Process(pid).uids().real for pid in pids}
    finally:
        await launcher.stop(plan)
        status = await ended(launcher, plan)
        log = (await launcher.log(plan)).lines
        await launcher.discard(plan)

    assert (status.exit_code, log[-1]) == (0, "Shutting down."), "\n".join(log)
    assert 1234 in users


async def _no_log(cursor: str) -> LogPart:
    raise AssertionError(cursor)
