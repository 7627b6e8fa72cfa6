"""The attacks from containers, on real podman and real Docker: none succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from tests.hostile.engines import IMAGE, RealEngine, real_engine
from tests.hostile.judge import ATTACKS, MIB, Setting, judge
from tests.launch.plans import command

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["docker", "podman"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine(request.param, tmp_path_factory.mktemp(request.param)) as engine:
        yield engine


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_succeeds(attack: str, real: RealEngine, tmp_path: Path) -> None:
    """A container reaches nothing of the node, the agent or another session, and keeps to its limits."""
    root = tmp_path / "launches"
    root.mkdir(mode=0o700)
    launcher = ContainerLauncher(root, [real.engine], ContainerRules())

    def version(argv: list[str]):  # type: ignore[no-untyped-def]
        made = command(*argv)
        made.container.image = IMAGE
        made.container.tasks = 128
        made.container.memory_bytes = 256 * MIB
        made.container.disk_bytes = made.container.shm_size_bytes = 16 * MIB
        return made

    setting = Setting(
        launcher=launcher,
        root=root,
        version=version,
        allowed_bytes=72 * MIB,  # its four directories, and a little
        allowed_memory_bytes=256 * MIB,
        allowed_tasks=128,
        kept_in=real.kept_in,
        sockets=real.sockets,
        own_network=True,
    )
    try:
        verdict = await judge(setting, attack)
    finally:
        await launcher.close()

    assert not verdict.succeeded, verdict.evidence
