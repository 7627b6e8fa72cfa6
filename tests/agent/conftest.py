"""One node: a real agent, a hub of the tests' own, devices and launchers that do as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment
from footlights.v1.application_pb2 import FakeBehavior, Signaling, Version

from footlights.agent.assembly import make_launcher, make_launchers
from footlights.agent.clock import Clock
from footlights.agent.config import AgentConfig
from footlights.agent.devices.ports import why_taken
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.link.link import Pace
from footlights.agent.main import Agent
from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import FakeGpu, FakeState
from footlights.launch.launcher import Launcher, Ports
from footlights.protocol import counterparts
from tests.agent.hub import TOKEN, Hub

GPU, OTHER_GPU = "GPU-0", "GPU-1"
PACE = Pace(first_s=0.05, last_s=0.2, refused_s=0.2)
APPLICATION = Path(__file__).with_name("application.py")


@dataclass
class Machine:
    """The devices of a node, to be changed by a test."""

    state: FakeState = field(default_factory=lambda: FakeState((FakeGpu(GPU), FakeGpu(OTHER_GPU))))

    def change(self, uuid: str, **members: Any) -> None:
        self.state = replace(
            self.state, gpus=tuple(replace(gpu, **members) if gpu.uuid == uuid else gpu for gpu in self.state.gpus)
        )


class Node:
    """An agent that can be stopped as a crash stops it, and started again on the same data."""

    def __init__(
        self,
        config: AgentConfig,
        machine: Machine,
        pace: Pace = PACE,
        *,
        launchers: Mapping[str, Launcher] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config, self.machine, self.pace, self.clock = config, machine, pace, clock
        self.launchers = launchers
        self.agent: Agent | None = None
        self.stop_event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Agent:
        self.stop_event = asyncio.Event()
        self.agent = Agent(
            self.config,
            devices=FakeDevices(lambda: self.machine.state),
            launchers=self.launchers or make_launchers(self.config),
            open_launcher=lambda name: make_launcher(self.config, name),
            probes=ApplicationProbes(),
            clock=self.clock,
            pace=self.pace,
        )
        self._task = asyncio.create_task(self.agent.run(self.stop_event))
        return self.agent

    async def __aenter__(self) -> Agent:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop it as an operator does."""
        self.stop_event.set()
        if self._task is not None:
            await asyncio.wait_for(self._task, 30)
            self._task = None

    async def crash(self) -> None:
        """Stop it without any of its last words, as far as one process can do that to a part of itself."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub()
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def config(tmp_path: Path, hub: Hub, ports: Ports) -> AgentConfig:
    return AgentConfig(
        data_dir=tmp_path / "agent",
        server=hub.address,
        token=TOKEN,
        node="node-1",
        first_port=ports.signal,
        last_port=ports.signal + 39,
        launchers=("process", "fake"),
        slots_per_device=2,
        device_interval_s=0.2,
        wrong_device_s=0.5,
    )


@pytest.fixture
async def node(config: AgentConfig, machine: Machine) -> AsyncIterator[Node]:
    """An agent that runs, and is drained at the end so that no process is left."""
    node = Node(config, machine)
    await node.start()
    yield node
    node.config = replace(config, drain_on_stop=True)
    if node._task is not None and node.agent is not None:
        node.agent.config = node.config
        await node.stop()


@pytest.fixture(scope="session")
def _next_port() -> list[int]:
    return [21000 + os.getpid() % 200 * 40]  # another run of these tests may be under way beside this one


@pytest.fixture
def ports(_next_port: list[int]) -> Ports:
    """The first of ten blocks that nobody uses."""
    while True:
        first = _next_port[0]
        _next_port[0] += 40
        if not any(why_taken(Ports(first + n, first + n + 1, first + n + 2, first + n + 3)) for n in range(0, 40, 4)):
            return Ports(first, first + 1, first + 2, first + 3)


Assign = Callable[..., Assignment]


@pytest.fixture
def fake() -> Assign:
    """An assignment of a simulated application."""

    def assign(launch_id: str = "launch-1", **members: Any) -> Assignment:
        behavior = FakeBehavior()
        for name, value in members.pop("behavior", {}).items():
            _set(behavior, name, value)
        return assignment(launch_id, Version(version="1.0.0", fake=behavior), **members)

    return assign


@dataclass
class Applications:
    """Assignments of real processes, and what each is told."""

    directory: Path

    def __call__(
        self, launch_id: str = "launch-1", *, wishes: dict[str, Any] | None = None, **members: Any
    ) -> Assignment:
        self.tell(launch_id, **(wishes or {}))
        command = [sys.executable, "-S", str(APPLICATION), "{http_port}", "{signal_port}", str(self.path(launch_id))]
        version = Version(
            version="1.0.0",
            command=command,
            signaling=Signaling(**members.pop("signaling", {})),
            readiness=members.pop("readiness", None),
            stage_delivery=members.pop("stage_delivery", None),
            default_usd_stage_uri=members.pop("stage", ""),
        )
        return assignment(launch_id, version, **members)

    def path(self, launch_id: str) -> Path:
        return self.directory / f"{launch_id}.json"

    def tell(self, launch_id: str, **wishes: Any) -> None:
        temporary = self.path(launch_id).with_suffix(".new")
        temporary.write_text(json.dumps(wishes))
        temporary.replace(self.path(launch_id))


@pytest.fixture
def application(tmp_path: Path) -> Applications:
    directory = tmp_path / "wishes"
    directory.mkdir()
    return Applications(directory)


def assignment(
    launch_id: str,
    version: Version,
    *,
    device: str = GPU,
    slot: int = 0,
    epoch: int = 1,
    desired: Assignment.Desired.ValueType = Assignment.RUNNING,
    secrets: bytes = b"",
    launch_secret: str = "",
    limits: dict[str, float] | None = None,
    needs: dict[str, Any] | None = None,
) -> Assignment:
    made = Assignment(
        launch_id=launch_id,
        session_id=f"session-of-{launch_id}",
        epoch=epoch,
        desired=desired,
        device_uuid=device,
        slots=[slot],
        version=counterparts.recipe(version),
        secrets=secrets,
        launch_secret=launch_secret,
    )
    made.limits.stop_grace_period.FromSeconds(2)
    for name, value in (limits or {}).items():
        getattr(made.limits, name).FromMilliseconds(round(value * 1000))
    for name, value in (needs or {}).items():
        setattr(made.needs, name, value)
    return made


def stopped(assigned: Assignment, epoch: int | None = None) -> Assignment:
    """The same launch, to be ended."""
    made = Assignment()
    made.CopyFrom(assigned)
    made.desired = Assignment.STOPPED
    made.epoch = assigned.epoch if epoch is None else epoch
    return made


def _set(message: Any, name: str, value: Any) -> None:
    if name in ("ready_after", "exit_after", "stop_after"):
        getattr(message, name).FromMilliseconds(round(value * 1000))
    elif isinstance(value, list):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)
