"""The fake launcher: everything follows from the times it noted."""

from __future__ import annotations

from pathlib import Path

import pytest
from footlights.v1.application_pb2 import FakeBehavior, Version
from google.protobuf.duration_pb2 import Duration

from footlights.launch.fake import STATE, FakeLauncher
from footlights.launch.launcher import LaunchError, LaunchPlan, Phase
from tests.launch.plans import make_plan


class Clock:
    """Seconds that move when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def launcher(root: Path, clock: Clock) -> FakeLauncher:
    return FakeLauncher(root, clock=clock)


def fake_plan(root: Path, fake: FakeBehavior, grace_s: float = 10.0) -> LaunchPlan:
    return make_plan(Version(fake=fake), root, grace_s=grace_s, device_uuid="FAKE-7")


async def test_exits_by_itself(launcher: FakeLauncher, root: Path, clock: Clock) -> None:
    """It exits after its time, with its status, and not before."""
    plan = fake_plan(root, FakeBehavior(exit_after=Duration(seconds=5), exit_code=3))
    await launcher.start(plan, b"")

    clock.now += 4.9
    assert (await launcher.status(plan)).phase is Phase.RUNNING
    clock.now += 0.2
    status = await launcher.status(plan)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 3)


async def test_stop_takes_its_time(launcher: FakeLauncher, root: Path, clock: Clock) -> None:
    """After a polite stop it takes as long as it says, but no longer than its grace."""
    quick = fake_plan(root, FakeBehavior(stop_after=Duration(seconds=3)))
    slow = fake_plan(root, FakeBehavior(stop_after=Duration(seconds=30)))
    for plan in (quick, slow):
        await launcher.start(plan, b"")
        await launcher.stop(plan)

    clock.now += 3
    assert (await launcher.status(quick)).exit_code == 0
    assert (await launcher.status(slow)).phase is Phase.RUNNING
    clock.now += 7
    assert (await launcher.status(slow)).exit_code == -9


async def test_a_later_stop_does_not_prolong(launcher: FakeLauncher, root: Path, clock: Clock) -> None:
    """The grace counts from the first stop; a stop after the end changes nothing."""
    plan = fake_plan(root, FakeBehavior(ignore_stop=True))
    await launcher.start(plan, b"")
    await launcher.stop(plan)
    clock.now += 8

    await launcher.stop(plan)

    clock.now += 2
    assert (await launcher.status(plan)).exit_code == -9
    await launcher.stop(plan, kill=True)
    assert (await launcher.status(plan)).exit_code == -9


async def test_another_agent(launcher: FakeLauncher, root: Path, clock: Clock) -> None:
    """The times are in the launch's directory, where another agent finds them."""
    plan = fake_plan(root, FakeBehavior(exit_after=Duration(seconds=5), exit_code=3))
    await launcher.start(plan, b"")
    clock.now += 6

    assert (await FakeLauncher(root, clock=clock).status(plan)).exit_code == 3


async def test_another_boot(launcher: FakeLauncher, root: Path, clock: Clock) -> None:
    """A launch of another boot has ended, its exit status unknown."""
    plan = fake_plan(root, FakeBehavior())
    await launcher.start(plan, b"")
    state = plan.directory / STATE
    state.write_text(state.read_text().replace('"boot_id": "', '"boot_id": "x'))

    status = await FakeLauncher(root, clock=clock).status(plan)

    assert (status.phase, status.exit_code) == (Phase.EXITED, None)


async def test_rejected_device(launcher: FakeLauncher, root: Path) -> None:
    """It refuses the devices that it is told to refuse, as a device that is taken."""
    plan = fake_plan(root, FakeBehavior(rejected_devices=["FAKE-7"]))

    with pytest.raises(LaunchError, match="FAKE-7") as caught:
        await launcher.prepare(plan)

    assert caught.value.rejected
