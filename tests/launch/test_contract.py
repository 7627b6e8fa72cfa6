"""What every launcher keeps: processes, containers and units by their engines' stand-ins, the fake, real engines.

Also the tests of ``launcher``, and of ``manager`` and ``unit_journal``, which need a systemd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from footlights.v1.application_pb2 import Argument, Container, FakeBehavior, Systemd, Version
from google.protobuf.duration_pb2 import Duration

from footlights.launch import plan as plans
from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.podman import PodmanEngine
from footlights.launch.container.rules import ContainerRules
from footlights.launch.fake import FakeLauncher
from footlights.launch.launcher import Launcher, LaunchError, LaunchPlan, Phase
from footlights.launch.process.launcher import ProcessLauncher
from footlights.launch.systemd.launcher import SystemdLauncher
from footlights.launch.systemd.unit_journal import UnitJournal
from tests.hostile.engines import IMAGE, RealEngine, real_engine
from tests.launch.plans import CLUSTER, make_plan, script
from tests.launch.standin_engine import StandinEngine, serve
from tests.launch.standin_systemd import StandinSystemd
from tests.launch.waiting import ended, logged, until
from tests.machine.launcher import make as open_in_machine
from tests.machine.machine import Machine
from tests.machine.remote import Remote

RUNS = "echo up; exec sleep 60"
POLITE = "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.02; done"


@dataclass
class World:
    """One kind of launcher, and how the same applications are written for it."""

    make: Callable[[], Launcher]
    version: Callable[[str], Version]
    root: Path
    real: bool
    """Whether there are processes to find."""
    launcher: Launcher
    own_init: bool = False
    """Whether an init of its own starts the application: a missing program is then an early end, not a failed start."""

    def plan(self, behavior: str, grace_s: float = 5.0) -> LaunchPlan:
        return make_plan(self.version(behavior), self.root, grace_s=grace_s)

    async def start(self, behavior: str, grace_s: float = 5.0) -> LaunchPlan:
        plan = self.plan(behavior, grace_s)
        await self.launcher.prepare(plan)
        await self.launcher.start(plan, b"{}")
        return plan


def containered(text: str) -> Version:
    version = script(text)
    version.container.CopyFrom(Container(image="app:1"))
    return version


def unit(text: str) -> Version:
    version = script(text)
    version.systemd.CopyFrom(Systemd(memory_bytes=128 << 20, disk_bytes=8 << 20))
    return version


def faked(text: str) -> Version:
    behaviors = {
        RUNS: FakeBehavior(log_lines=["up"]),
        POLITE: FakeBehavior(log_lines=["up"]),
        DEAF: FakeBehavior(log_lines=["up"], ignore_stop=True),
        "exit 7": FakeBehavior(exit_after=Duration(nanos=1), exit_code=7),
        "echo one; echo two; echo three": FakeBehavior(log_lines=["one", "two", "three"], exit_after=Duration(nanos=1)),
        "/no/such/program": FakeBehavior(start_error="no such program"),
    }
    return Version(version="1.0.0", fake=behaviors[text])


REAL = [pytest.mark.real, pytest.mark.timeout(900)]
"""The first test waits for the machine's root to be made."""


@pytest.fixture(scope="module")
def real_docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine("docker", tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@pytest.fixture(scope="module")
def real_podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine("podman", tmp_path_factory.mktemp("podman")) as engine:
        yield engine


REAL_WORLDS = [pytest.param(name, marks=REAL) for name in ("booted", "real_docker", "real_podman")]


@pytest.fixture(params=["process", "systemd", "docker", "podman", "fake", *REAL_WORLDS])
async def world(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "booted":
        async with booted_world(request.getfixturevalue("machine")) as world:
            yield world
        return
    if request.param.startswith("real_"):
        async with contained_world(request.getfixturevalue(request.param), root) as world:
            yield world
        return
    engine, systemd = StandinEngine(), StandinSystemd()
    runner = await serve(engine, socket := tmp_path / "engine.sock")
    program = tmp_path / "podman"
    script_path = Path(__file__).with_name("standin_podman.py")
    program.write_text(f'#!/bin/sh\nSTANDIN_SOCKET={socket} exec {sys.executable} -I -S {script_path} "$@"\n')
    program.chmod(0o755)
    makers: dict[str, Callable[[], Launcher]] = {
        "process": lambda: ProcessLauncher(root),
        "systemd": lambda: SystemdLauncher(root, systemd, cast("UnitJournal", systemd)),
        "docker": lambda: ContainerLauncher(root, [DockerEngine(socket)], ContainerRules()),
        "podman": lambda: ContainerLauncher(root, [PodmanEngine(program=str(program))], ContainerRules()),
        "fake": lambda: FakeLauncher(root),
    }
    make = makers[request.param]
    versions = {"process": script, "fake": faked, "systemd": unit}
    world = World(
        make=make,
        version=versions.get(request.param, containered),
        root=root,
        real=request.param != "fake",
        launcher=make(),
    )
    yield world
    await world.launcher.close()
    await runner.cleanup()
    await engine.close()
    await systemd.end()


@contextlib.asynccontextmanager
async def contained_world(real: RealEngine, root: Path) -> AsyncIterator[World]:
    """The same on a container engine of its own."""

    def version(text: str) -> Version:
        made = script(text)
        made.container.CopyFrom(Container(image=IMAGE))
        return made

    def make() -> Launcher:
        return ContainerLauncher(root, [real.engine], ContainerRules())

    world = World(make=make, version=version, root=root, real=True, launcher=make(), own_init=True)
    yield world
    for launch_id in await world.launcher.find(CLUSTER):
        await world.launcher.end_orphan(CLUSTER, launch_id)
    await world.launcher.close()


@contextlib.asynccontextmanager
async def booted_world(machine: Machine) -> AsyncIterator[World]:
    """The same on a systemd of its own: the launcher runs beside it, as a new agent would each time."""
    root = machine.directory / f"launches-{secrets.token_hex(4)}"
    root.mkdir(mode=0o700)
    made: list[Remote] = []

    def make() -> Launcher:
        made.append(Remote(machine.enter, open_in_machine, root))
        return cast("Launcher", made[-1])

    world = World(make=make, version=unit, root=root, real=True, launcher=make())
    yield world
    await world.launcher.close()
    for each in made:
        await each.disconnect()


async def test_not_started(world: World) -> None:
    """A plan that was never started is unknown; stopping, killing and discarding it are no errors."""
    plan = world.plan(RUNS)

    assert (await world.launcher.status(plan)).phase is Phase.UNKNOWN
    await world.launcher.stop(plan)
    await world.launcher.stop(plan, kill=True)
    await world.launcher.discard(plan)
    assert (await world.launcher.log(plan)).lines == ()


async def test_runs(world: World) -> None:
    """A started application runs, with the pids that can be told."""
    plan = await world.start(RUNS)

    status = await world.launcher.status(plan)

    assert (status.phase, status.exit_code) == (Phase.RUNNING, None)
    if world.real:
        await until(lambda: world.launcher.status(plan), lambda status: bool(status.pids))
    await world.launcher.stop(plan, kill=True)
    await ended(world.launcher, plan)


async def test_exits(world: World) -> None:
    """The exit status of one that ends by itself is kept."""
    plan = await world.start("exit 7")

    assert (await ended(world.launcher, plan)).exit_code == 7


async def test_stops(world: World) -> None:
    """A polite stop lets it end by itself; asking twice changes nothing."""
    plan = await world.start(POLITE)
    await logged(world.launcher, plan, "up")

    await world.launcher.stop(plan)
    await world.launcher.stop(plan)

    assert (await ended(world.launcher, plan)).exit_code == 0


async def test_is_killed_after_its_grace(world: World) -> None:
    """One that does not heed SIGTERM is killed when its grace is over."""
    plan = await world.start(DEAF, grace_s=1.0)
    await logged(world.launcher, plan, "up")

    await world.launcher.stop(plan)

    assert (await world.launcher.status(plan)).phase is Phase.RUNNING
    assert (await ended(world.launcher, plan)).exit_code == -9


async def test_is_killed_at_once(world: World) -> None:
    """A kill does not wait for the grace of a stop that came before it."""
    plan = await world.start(DEAF, grace_s=3600)
    await logged(world.launcher, plan, "up")

    await world.launcher.stop(plan)
    await world.launcher.stop(plan, kill=True)

    assert (await ended(world.launcher, plan)).exit_code == -9


async def test_starts_once(world: World) -> None:
    """Starting the same plan again starts nothing: not while it runs, and not after its end."""
    plan = await world.start(RUNS)
    await world.launcher.start(plan, b"{}")
    assert (await world.launcher.status(plan)).phase is Phase.RUNNING
    await world.launcher.stop(plan, kill=True)
    await ended(world.launcher, plan)

    await world.launcher.start(plan, b"{}")

    assert (await world.launcher.status(plan)).phase is Phase.EXITED
    assert (await world.launcher.log(plan)).lines == ("up",)


async def test_another_agent(world: World) -> None:
    """An agent that was just started sees, reads and ends what the one before it started."""
    plan = await world.start(POLITE)
    await logged(world.launcher, plan, "up")
    await world.launcher.close()
    world.launcher = world.make()

    assert (await world.launcher.status(plan)).phase is Phase.RUNNING
    assert (await world.launcher.log(plan)).lines == ("up",)
    await world.launcher.stop(plan)
    assert (await ended(world.launcher, plan)).exit_code == 0


async def test_start_error(world: World) -> None:
    """What cannot be started is a LaunchError with a reason, and leaves nothing."""
    plan = world.plan("/no/such/program")
    if world.real:
        plan = replace(plan, argv=("/no/such/program",))
    if world.own_init:
        await world.launcher.start(plan, b"{}")
        assert (await ended(world.launcher, plan)).exit_code in (1, 127)  # catatonit, tini
        return

    with pytest.raises(LaunchError) as caught:
        await world.launcher.start(plan, b"{}")

    assert caught.value.reason.isupper()
    assert "no" in caught.value.message
    assert (await world.launcher.status(plan)).phase is Phase.UNKNOWN
    assert await world.launcher.find(CLUSTER) == {}


async def test_log(world: World) -> None:
    """Output is read from its beginning, after a cursor, and from its end."""
    plan = await world.start("echo one; echo two; echo three")
    await ended(world.launcher, plan)

    everything = await world.launcher.log(plan)
    tail = await world.launcher.log(plan, tail_lines=2)
    after = await world.launcher.log(plan, cursor=everything.cursor)
    after_tail = await world.launcher.log(plan, cursor=tail.cursor)

    assert (everything.lines, everything.truncated) == (("one", "two", "three"), False)
    assert (tail.lines, tail.truncated) == (("two", "three"), True)
    assert (after.lines, after_tail.lines) == ((), ())
    assert not (await world.launcher.log(plan, tail_lines=3)).truncated


async def test_discard(world: World) -> None:
    """Discarding an ended launch forgets it, but keeps its output for those who have any."""
    plan = await world.start("echo one; echo two; echo three")
    await ended(world.launcher, plan)

    await world.launcher.discard(plan)
    await world.launcher.discard(plan)

    assert (await world.launcher.status(plan)).phase is Phase.UNKNOWN
    if world.real:
        assert (await world.launcher.log(plan)).lines == ("one", "two", "three")
        assert not (plan.directory / "session.json").exists()


async def test_orphan(world: World) -> None:
    """What carries the cluster's mark is found without a plan, and can be ended."""
    plan = await world.start(RUNS)
    if not world.real:
        assert await world.launcher.find(CLUSTER) == {}
        return
    await logged(world.launcher, plan, "up")

    found = await world.launcher.find(CLUSTER)
    assert list(found) == [plan.launch_id]
    assert found[plan.launch_id] >= (await world.launcher.status(plan)).pids
    assert await world.launcher.find("another") == {}
    await world.launcher.end_orphan("another", plan.launch_id)
    assert list(await world.launcher.find(CLUSTER)) == [plan.launch_id]
    await world.launcher.end_orphan(CLUSTER, plan.launch_id)

    await until(lambda: world.launcher.find(CLUSTER), lambda found: not found)


async def test_many_at_once(world: World) -> None:
    """Launches do not disturb each other."""
    plans = await asyncio.gather(*(world.start(RUNS) for _ in range(3)))

    await world.launcher.stop(plans[1], kill=True)
    await ended(world.launcher, plans[1])

    rest = [plan for plan in plans if plan is not plans[1]]
    assert {(await world.launcher.status(plan)).phase for plan in rest} == {Phase.RUNNING}
    for plan in rest:
        await world.launcher.stop(plan, kill=True)
        await ended(world.launcher, plan)


HOSTILE = ["hunter2", " a  b ", "$(touch pwned)`id`", "'\"\\n\\", "ü=%s%%{x}", "#x", "-e", ""]
PRINTS = 'printf "<%s>\\n" "$OMNI_PASS"; printf "unset:%s\\n" "${UNGIVEN-yes}"; exec sleep 60'


@pytest.mark.parametrize("secret", HOSTILE)
async def test_a_secret_in_the_environment(world: World, secret: str) -> None:
    """It arrives as it is, under every launcher; nothing reads it on the way, and no command line or plan has it."""
    if not world.real:
        return
    version = world.version(PRINTS)
    version.arguments.add(name="omni_pass", type=Argument.STRING, secret=True)
    version.arguments.add(name="ungiven", type=Argument.STRING, secret=True)
    version.environment.update({"OMNI_PASS": "{omni_pass}", "UNGIVEN": "x{ungiven}"})
    plan = make_plan(version, world.root)
    await world.launcher.prepare(plan)

    await world.launcher.start(plan, json.dumps({"omni_pass": secret}).encode())
    await logged(world.launcher, plan, "unset:yes")

    assert (await world.launcher.log(plan)).lines == (f"<{secret}>", "unset:yes")
    if len(secret) > 4:
        assert secret not in plans.to_json(plan)
        assert secret not in command_lines()
    await world.launcher.stop(plan, kill=True)
    await ended(world.launcher, plan)
    await world.launcher.discard(plan)


def command_lines() -> str:
    """All that process lists show now."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes().decode("utf-8", "replace").replace("\0", " "))
    return "\n".join(found)
