"""Devices: what is told of them, and what their faults do to launches.

Also the tests of ``inventory``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport
from footlights.agent.v1.node_pb2 import Device
from footlights.v1.application_pb2 import FakeBehavior, Version

from footlights.agent.assembly import make_launchers
from footlights.agent.config import AgentConfig
from footlights.agent.devices.inventory import DevicesSilent, DeviceWatch, off_loop, worth_reporting
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.launches.step import OnDevice
from footlights.agent.main import Agent
from footlights.devices.admission import Holding
from footlights.devices.detect import AutoDevices
from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import FakeProcess
from footlights.devices.foreign import Tolerance
from footlights.devices.reading import DeviceInventory, DeviceReading, ProcessKind
from footlights.devices.software import SoftwareDevices
from tests.agent.conftest import GPU, OTHER_GPU, PACE, Applications, Assign, Machine, Node, assignment, stopped
from tests.agent.hub import Hub
from tests.agent.test_processes import pid_of

MIB = 1 << 20


def watch(machine: Machine) -> DeviceWatch:
    return DeviceWatch(FakeDevices(lambda: machine.state), timeout_s=5, tolerance=Tolerance(256 * MIB))


async def test_a_lost_gpu_ends_what_runs_on_it(hub: Hub, node: Node, machine: Machine, fake: Assign) -> None:
    """GPU_LOST for its launches; those on other devices go on; the device is told as LOST."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake("there"))
    await hub.want(fake("elsewhere", device=OTHER_GPU))
    await hub.until_state("there", LaunchReport.READY)
    await hub.until_state("elsewhere", LaunchReport.READY)
    machine.change(GPU, lost=True)
    over = await hub.until_state("there", LaunchReport.EXITED)
    assert over.reason == "GPU_LOST"
    assert GPU in over.message
    await hub.until(lambda: {d.uuid: d.health for d in hub.inventories[-1].devices}[GPU] == Device.LOST)
    assert hub.reports["elsewhere"].state == LaunchReport.READY


async def test_an_application_on_the_wrong_device_is_ended(
    hub: Hub, node: Node, machine: Machine, application: Applications
) -> None:
    """Listed on another device than its own, and staying there: FAILED, WRONG_DEVICE."""
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "r")
    await hub.until(lambda: hub.done("r"))
    machine.change(OTHER_GPU, processes=(FakeProcess(pid_of(hub, "r"), used_memory_bytes=1 << 30),))
    failed = await hub.until_state("launch-1", LaunchReport.STOPPING)
    machine.change(OTHER_GPU, processes=())
    failed = await hub.until_state("launch-1", LaunchReport.FAILED)
    assert failed.reason == "WRONG_DEVICE"
    assert OTHER_GPU in failed.message


async def test_a_glance_at_another_device_costs_nothing(
    hub: Hub, node: Node, machine: Machine, application: Applications
) -> None:
    """An application that keeps a little of another GPU, as one does that looks which there are, becomes ready and goes
    on; its owner and the operator read of it."""
    await hub.until(lambda: hub.connections)
    await hub.want(application(wishes={"ready": False}))
    await hub.until_state("launch-1", LaunchReport.STARTING)
    agent = node.agent
    assert agent is not None
    await hub.until(lambda: agent.table.known_pids)
    pid = min(agent.table.known_pids)
    machine.change(GPU, processes=(FakeProcess(pid, used_memory_bytes=1 << 30),))
    machine.change(OTHER_GPU, processes=(FakeProcess(pid, ProcessKind.GRAPHICS, used_memory_bytes=4 * MIB),))
    application.tell("launch-1")
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.until(lambda: "4 MiB" in hub.reports["launch-1"].message)
    assert OTHER_GPU in hub.reports["launch-1"].message
    seen = agent.devices.serial
    await hub.until(lambda: agent.devices.serial > seen + 5)  # longer than a process may be on a wrong device here
    assert hub.reports["launch-1"].state == LaunchReport.READY
    machine.change(OTHER_GPU, processes=())
    await hub.until(lambda: hub.reports["launch-1"].message == "")
    machine.change(GPU, processes=())


async def test_memory_is_kept_for_what_has_just_begun(hub: Hub, node: Node, machine: Machine, fake: Assign) -> None:
    """Two launches of 30 GiB on 48: the second is refused though nothing is used yet, one of 18 GiB is not."""
    needs = {"min_memory_bytes": 30 << 30}
    await hub.until(lambda: hub.connections)
    await hub.want(fake("first", needs=needs))
    await hub.until_state("first", LaunchReport.READY)
    await hub.want(fake("second", slot=1, needs=needs))
    refused = await hub.until_state("second", LaunchReport.REJECTED)
    assert refused.reason == "MEMORY"
    assert "18<30 GiB" in refused.message
    await hub.want(fake("third", slot=1, needs={"min_memory_bytes": 18 << 30}))
    await hub.until_state("third", LaunchReport.READY)


async def test_what_is_used_of_what_was_promised_is_told(machine: Machine) -> None:
    """By the pids of each launch, at most what it was promised; with what is left of the encoder, and its limit."""
    holdings = {GPU: [Holding(10 << 30, True, frozenset({1})), Holding(10 << 30, True, frozenset({2}))]}
    devices = DeviceWatch(
        FakeDevices(lambda: machine.state), timeout_s=5, tolerance=Tolerance(256 * MIB), encoder_sessions=4
    )
    used = (FakeProcess(1, used_memory_bytes=20 << 30), FakeProcess(2, used_memory_bytes=1 << 30))
    machine.change(GPU, processes=used, encoder_capacity=40, encoder_sessions=2)
    await devices.refresh()
    device, other = devices.to_protos({1, 2}, holdings)
    assert device.memory_used_bytes == 11 << 30
    assert (device.encoder_sessions, device.encoder_capacity_percent, device.encoder_session_limit) == (2, 40, 4)
    assert other.memory_used_bytes == 0
    machine.change(GPU, processes=None)
    await devices.refresh()
    assert not devices.to_protos({1, 2}, holdings)[0].HasField("memory_used_bytes")


async def test_an_end_is_not_told_while_the_driver_lists_it(
    hub: Hub, node: Node, machine: Machine, application: Applications
) -> None:
    """The tree is gone, the driver still has its pid: it stays STOPPING and says so, until the driver lets go."""
    await hub.until(lambda: hub.connections)
    wanted = application()
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "r")
    await hub.until(lambda: hub.done("r"))
    pid = pid_of(hub, "r")
    machine.change(GPU, processes=(FakeProcess(pid, used_memory_bytes=1 << 30),))
    await hub.want(stopped(wanted))
    await hub.until(lambda: str(pid) in hub.reports["launch-1"].message)
    assert hub.reports["launch-1"].state == LaunchReport.STOPPING
    machine.change(GPU, processes=())
    await hub.until_state("launch-1", LaunchReport.EXITED)


class Stuck:
    """Devices whose driver hangs, from when it is told to."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()

    def hang(self) -> None:
        self._free.clear()

    def free(self) -> None:
        self._free.set()

    def read(self) -> DeviceInventory:
        self._free.wait(30)
        return DeviceInventory((), driver_version="1")

    def read_one(self, uuid: str) -> DeviceReading:
        self._free.wait(30)
        raise LookupError(uuid)

    def forget(self, uuid: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    devices = Stuck()
    yield devices
    devices.free()


async def test_a_driver_that_hangs_at_the_agents_restart(
    hub: Hub, config: AgentConfig, machine: Machine, stuck: Stuck, application: Applications
) -> None:
    """What an earlier agent started is reported, managed and ended although the driver never answers."""
    node = Node(config, machine)
    await node.start()
    await hub.until(lambda: hub.connections)
    wanted = application(wishes={"status": {"viewers": 1}})
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await node.stop()

    stuck.hang()
    hub.reports.clear()
    config = replace(config, device_timeout_s=0.2)
    agent = Agent(config, devices=stuck, launchers=make_launchers(config), probes=ApplicationProbes(), pace=PACE)
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    ready = await hub.until_state("launch-1", LaunchReport.READY)
    assert ready.viewers == 1
    await hub.until(lambda: any("0.2 s" in note for note in hub.inventories[-1].facts.notes))
    await hub.want(stopped(wanted))
    await hub.until(lambda: "unknown" in hub.reports["launch-1"].message)
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert "not known: the device driver has not answered" in over.message
    stop.set()
    await running


async def test_work_without_a_device_does_not_wait_for_the_driver(
    hub: Hub, config: AgentConfig, stuck: Stuck, application: Applications
) -> None:
    """On a software renderer sessions start and end while the driver of the GPUs hangs."""
    stuck.hang()
    renderer = SoftwareDevices(1)
    devices = AutoDevices(lambda: stuck, renderer, patience_s=0.1)
    agent = Agent(config, devices=devices, launchers=make_launchers(config), probes=ApplicationProbes(), pace=PACE)
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    await hub.until(lambda: hub.connections)
    await hub.until(lambda: hub.inventories)
    assert [device.health for device in hub.inventories[-1].devices] == [Device.OK]
    wanted = application(device=renderer.read().devices[0].uuid)
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(stopped(wanted))
    await hub.until_state("launch-1", LaunchReport.EXITED)
    stop.set()
    await running


async def test_a_stuck_driver_stops_nothing_else(stuck: Stuck) -> None:
    """A read that hangs is given up after its deadline, the loop goes on, and the node says that it is silent."""
    watched = DeviceWatch(stuck, timeout_s=0.2, tolerance=Tolerance(0))
    await watched.refresh()
    stuck.hang()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    with pytest.raises(DevicesSilent):
        await watched.refresh()
    turning.cancel()
    assert turns > 100
    assert "0.2 s" in watched.silence
    with pytest.raises(DevicesSilent):
        await watched.read_one("x")
    stuck.free()
    await watched.refresh()
    assert watched.silence == ""


async def test_a_driver_that_fails_is_said(machine: Machine, config: AgentConfig, hub: Hub) -> None:
    """An error that nobody foresaw makes devices unhealthy and launches refused; the agent lives on."""

    class Failing(FakeDevices):
        broken = False

        def read(self) -> DeviceInventory:
            if self.broken:
                raise ValueError("not foreseen")
            return super().read()

        def read_one(self, uuid: str) -> DeviceReading:
            if self.broken:
                raise ValueError("not foreseen")
            return super().read_one(uuid)

    devices = Failing(lambda: machine.state)
    agent = Agent(config, devices=devices, launchers=make_launchers(config), probes=ApplicationProbes())
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    await hub.until(lambda: hub.connections)
    devices.broken = True
    await hub.until(lambda: hub.inventories[-1].devices[0].health == Device.UNHEALTHY)
    assert hub.inventories[-1].devices[0].health_reasons[0].reason == "DRIVER_SILENT"
    version = Version(version="1.0.0", fake=FakeBehavior())
    await hub.want(assignment("launch-1", version))
    refused = await hub.until_state("launch-1", LaunchReport.REJECTED)
    assert refused.reason == "DEVICE_SILENT"
    assert "not foreseen" in refused.message
    devices.broken = False
    await hub.until(lambda: hub.inventories[-1].devices[0].health == Device.OK)
    await hub.want(assignment("launch-2", version))
    await hub.until_state("launch-2", LaunchReport.READY)
    agent.config = replace(config, drain_on_stop=True)
    stop.set()
    await running


async def test_what_a_thread_raises_is_raised() -> None:
    """An error off the loop arrives on it."""

    def fail() -> None:
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        await off_loop(fail, 5)


async def test_one_bad_reading_is_no_loss(machine: Machine) -> None:
    """A driver that restarts loses every GPU for a moment, one that is gone says nothing: neither ends launches."""
    watched = watch(machine)
    await watched.refresh()
    machine.change(GPU, lost=True)
    await watched.refresh()
    assert watched.lost(GPU) == ""
    machine.change(GPU, lost=False)
    await watched.refresh()
    await watched.refresh()
    good = machine.state
    machine.state = replace(good, driver_error="DRIVER_NOT_LOADED")
    for _ in range(4):
        await watched.refresh()
    assert watched.lost(GPU) == ""
    machine.state = good
    machine.change(GPU, lost=True)
    await watched.refresh()
    await watched.refresh()
    assert GPU in watched.lost(GPU)
    assert watched.lost(OTHER_GPU) == ""


async def test_a_device_that_was_never_seen_is_gone(machine: Machine) -> None:
    """A launch adopted from before, on a device that this driver does not list any more, has lost it."""
    watched = watch(machine)
    await watched.refresh()
    assert watched.lost("GPU-old") == ""
    await watched.refresh()
    assert "GPU-old" in watched.lost("GPU-old")


async def test_where_a_launch_is(machine: Machine) -> None:
    """On its own device, on none, on another: by the pids that the driver lists, and how much they have there."""
    watched = watch(machine)
    machine.change(GPU, processes=(FakeProcess(1), FakeProcess(2)))
    much = (FakeProcess(3, used_memory_bytes=200 * MIB), FakeProcess(4, used_memory_bytes=200 * MIB))
    machine.change(OTHER_GPU, processes=(*much, FakeProcess(5, used_memory_bytes=None)))
    await watched.refresh()
    assert watched.locate(GPU, {1, 9}) == (OnDevice.RIGHT, "")
    assert watched.locate(GPU, {9})[0] is OnDevice.NOWHERE
    assert watched.locate(GPU, {1, 3, 4})[0] is OnDevice.WRONG
    assert watched.locate(GPU, {1, 5})[0] is OnDevice.WRONG
    where, glance = watched.locate(GPU, {1, 3})
    assert where is OnDevice.RIGHT
    assert "pid 3" in glance
    assert "200 MiB" in glance
    assert watched.locate("SOFT", {9})[0] is OnDevice.UNKNOWN


def test_noise_is_not_told() -> None:
    """Some memory, some load: silence. Health, a stranger, much memory: told."""
    before = Device(uuid="a", memory_total_bytes=48 << 30, memory_free_bytes=40 << 30, utilization_percent=50)

    def changed(**members: object) -> list[Device]:
        device = Device()
        device.CopyFrom(before)
        for name, value in members.items():
            setattr(device, name, value)
        return [device]

    assert not worth_reporting([before], changed(memory_free_bytes=(40 << 30) - 32 * MIB, utilization_percent=60))
    assert worth_reporting([before], changed(memory_free_bytes=30 << 30))
    assert worth_reporting([before], changed(utilization_percent=80))
    assert worth_reporting([before], changed(health=Device.UNHEALTHY))
    assert worth_reporting([before], changed(memory_used_bytes=0)), "it is known now"
    assert worth_reporting(changed(encoder_capacity_percent=5), changed(encoder_capacity_percent=0))
    assert not worth_reporting(changed(encoder_capacity_percent=5), changed(encoder_capacity_percent=9))
    assert worth_reporting(changed(memory_used_bytes=0), changed(memory_used_bytes=4 << 30))
    assert worth_reporting([before], [])
    stranger = changed()
    stranger[0].foreign_processes.add(pid=1, used_memory_bytes=5)
    assert worth_reporting([before], stranger)
    grown = changed()
    grown[0].foreign_processes.add(pid=1, used_memory_bytes=6)
    assert not worth_reporting(stranger, grown)


async def test_a_desktop_shares_its_device_and_is_shown(machine: Machine) -> None:
    """A compositor that draws and computes a little is no stranger; the device's note names it, the limit ends it."""
    devices = DeviceWatch(FakeDevices(lambda: machine.state), timeout_s=5, tolerance=Tolerance(256 * MIB))
    small = (
        FakeProcess(812, ProcessKind.COMPUTE, 8 * MIB, "gnome-shell"),
        FakeProcess(812, ProcessKind.GRAPHICS, 8 * MIB, "gnome-shell"),
    )
    machine.change(GPU, processes=small)
    await devices.refresh()
    device = next(device for device in devices.to_protos(set()) if device.uuid == GPU)
    assert not device.foreign_processes
    assert "tolerated: gnome-shell (812)" in device.note

    machine.change(GPU, processes=tuple(replace(each, used_memory_bytes=300 * MIB) for each in small))
    await devices.refresh()
    device = next(device for device in devices.to_protos(set()) if device.uuid == GPU)
    assert [process.pid for process in device.foreign_processes] == [812]
    assert "tolerated" not in device.note
