"""Where a node's devices come from, and the sources that need no driver.

Also the tests of ``software``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from footlights.devices.detect import AutoDevices, detect
from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import FakeGpu, FakeState
from footlights.devices.foreign import pids_are_the_hosts
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceHealth, DeviceInventory, Devices
from footlights.devices.software import SoftwareDevices
from tests.devices.standin import Standin


def kinds(found: DeviceInventory) -> list[DeviceKind]:
    return [device.kind for device in found.devices]


def test_auto_has_gpus_and_renderers(standin: Standin) -> None:
    """With a driver that has a GPU, that is offered; and software renderers to what needs none."""
    standin.set(FakeState(gpus=(FakeGpu(uuid="GPU-a"),)))
    devices = detect("auto", software_count=1)
    found = devices.read()
    assert kinds(found) == [DeviceKind.GPU, DeviceKind.SOFTWARE]
    assert [devices.read_one(each.uuid).uuid for each in found.devices] == [each.uuid for each in found.devices]
    assert found.driver_version
    devices.close()


@pytest.mark.parametrize(
    ("state", "why"),
    [(FakeState(), "lists no GPU"), (FakeState(driver_error="DRIVER_NOT_LOADED"), "modprobe nvidia")],
)
def test_auto_without_a_gpu_says_why(standin: Standin, state: FakeState, why: str) -> None:
    """Without a GPU software renderers are offered, and the notes say that and why."""
    standin.set(state)
    devices = detect("auto", identity="node-1", software_count=2)
    found = devices.read()
    devices.close()
    assert kinds(found) == [DeviceKind.SOFTWARE] * 2
    assert why in found.notes[0]
    assert "software renderers" in found.notes[-1]


@pytest.mark.parametrize("before", [FakeState(), FakeState(driver_error="DRIVER_NOT_LOADED"), None])
def test_a_driver_that_comes_late(before: FakeState | None) -> None:
    """A driver that is installed, loaded, or given a GPU after the start is found. Where it goes again its GPU is lost,
    and the renderers stay."""
    states = [before]

    def make() -> Devices:
        if states[-1] is None:
            raise ImportError("no binding yet")
        return FakeDevices(lambda: states[-1] or FakeState())

    devices = AutoDevices(make, SoftwareDevices(1), again_s=0)
    assert kinds(devices.read()) == [DeviceKind.SOFTWARE]
    states.append(FakeState(gpus=(FakeGpu(uuid="GPU-a"),)))
    assert kinds(devices.read()) == [DeviceKind.FAKE, DeviceKind.SOFTWARE]
    assert devices.read_one("GPU-a").health is DeviceHealth.OK
    states.append(FakeState(driver_error="DRIVER_NOT_LOADED"))
    gone = devices.read()
    assert [d.health for d in gone.devices] == [DeviceHealth.LOST, DeviceHealth.OK]
    assert gone.driver_version is None
    states.append(states[1])
    assert [d.health for d in devices.read().devices] == [DeviceHealth.OK] * 2


LATE = """
import sys
from footlights.devices.detect import AutoDevices
from footlights.devices.nvml.driver import NvmlDevices
from footlights.devices.software import SoftwareDevices
devices = AutoDevices(NvmlDevices, SoftwareDevices(1), again_s=0)
while sys.stdin.readline():
    found = devices.read()
    print(*(device.kind.value for device in found.devices), found.notes[0] if found.notes else "", flush=True)
"""


def test_a_driver_that_is_installed_late(standin_library: Path, tmp_path: Path) -> None:
    """A process that was started without NVIDIA's library finds it, and its GPU, once it is installed."""
    made = Standin(standin_library, tmp_path / "gpus.state")
    made.set(FakeState(gpus=(FakeGpu(uuid="GPU-a"),)))
    installed = tmp_path / "lib" / standin_library.name
    installed.parent.mkdir()
    environment = {**os.environ, **made.environment, "LD_LIBRARY_PATH": str(installed.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", LATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None

        def read() -> str:
            assert agent.stdin is not None
            assert agent.stdout is not None
            agent.stdin.write("\n")
            agent.stdin.flush()
            return agent.stdout.readline()

        assert read().startswith("SOFTWARE nvmlInit: no NVIDIA driver on this machine")
        shutil.copy(standin_library, installed)
        assert read().split()[:2] == ["GPU", "SOFTWARE"]
        agent.stdin.close()


def test_a_driver_that_is_not_there_is_seldom_looked_for() -> None:
    """Each look may fill the kernel's log."""
    looks = []

    def state() -> FakeState:
        looks.append(1)
        return FakeState(driver_error="DRIVER_NOT_LOADED")

    devices = AutoDevices(lambda: FakeDevices(state), SoftwareDevices(1), again_s=3600)
    for _ in range(5):
        assert kinds(devices.read()) == [DeviceKind.SOFTWARE]
    assert len(looks) == 1


def test_a_driver_without_a_gpu_is_asked_each_time() -> None:
    """Two readings without a GPU end what runs on one, so that each is a reading of its own."""
    looks = []

    def state() -> FakeState:
        looks.append(1)
        return FakeState()

    devices = AutoDevices(lambda: FakeDevices(state), SoftwareDevices(1), again_s=3600)
    for _ in range(5):
        before = len(looks)
        assert devices.read().driver_version
        assert len(looks) > before


def test_a_hanging_driver_holds_up_no_renderer() -> None:
    """A driver that hangs, at the start or later, costs its GPUs only: renderers are there, and asked without it."""
    inside, go_on = threading.Event(), threading.Event()

    def state() -> FakeState:
        inside.set()
        go_on.wait(timeout=20)
        return FakeState(gpus=(FakeGpu(uuid="GPU-a"),))

    devices = AutoDevices(lambda: FakeDevices(state), SoftwareDevices(1), patience_s=0.05, again_s=0)
    [renderer] = devices.read().devices
    assert inside.is_set()
    threads = threading.active_count()
    for _ in range(20):
        found = devices.read()
        assert devices.read_one(renderer.uuid) == renderer
    assert found.devices == (renderer,)
    assert "dmesg" in found.notes[0]
    assert threading.active_count() == threads, "one read waits for the driver, not each"
    go_on.set()
    wait_until(lambda: len(devices.read().devices) == 2)
    assert devices.read_one("GPU-a").health is DeviceHealth.OK

    go_on.clear()
    found = devices.read()
    assert [d.health for d in found.devices] == [DeviceHealth.UNHEALTHY, DeviceHealth.OK]
    assert found.devices[0].health_reasons[0].reason == "DRIVER_SILENT"
    assert found.driver_version is None, "no proof that a GPU is lost"
    go_on.set()
    wait_until(lambda: devices.read().devices[0].health is DeviceHealth.OK)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


def test_nvml_never_falls_back(standin: Standin) -> None:
    """An operator who asked for GPUs gets none and a reason, not something else."""
    standin.set(FakeState(driver_error="DRIVER_NOT_LOADED"))
    devices = detect("nvml")
    found = devices.read()
    devices.close()
    assert found.devices == ()
    assert found.notes


def test_software_and_fake(tmp_path: Path) -> None:
    """Both are offered as asked for, named in a note, and their uuids are the node's own."""
    path = tmp_path / "gpus.yaml"
    path.write_text("gpus: [{count: 2}]")
    for choice, kind in (("software", DeviceKind.SOFTWARE), (f"fake:{path}", DeviceKind.FAKE)):
        found = {name: detect(choice, identity=name, software_count=2).read() for name in ("node-1", "node-2")}
        readings = [d for inventory in found.values() for d in inventory.devices]
        assert [d.kind for d in readings] == [kind] * 4
        assert len({d.uuid for d in readings}) == 4
        assert all(inventory.notes for inventory in found.values())
        assert detect(choice, identity="node-1", software_count=2).read().devices == found["node-1"].devices


@pytest.mark.parametrize("choice", ["", "cuda", "fake", "fake:"])
def test_unknown_choice(choice: str) -> None:
    """Anything else is refused with what there is."""
    with pytest.raises(ValueError, match=f"unknown choice {choice!r}; choose from auto, nvml, software and fake:FILE"):
        detect(choice)


def test_one_software_renderer_a_core() -> None:
    """By default there are as many as cores, at least one; each draws, has no hardware encoder, and says what it is."""
    found = SoftwareDevices().read().devices
    assert len(found) == max(1, len(os.sched_getaffinity(0)))
    for d in found:
        assert re.fullmatch(r"SOFT-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", d.uuid)
        assert (d.graphics, d.encoder, d.memory_total_bytes, d.processes) == (True, False, None, ())
        assert d.note == "renders on the CPU"


@pytest.mark.parametrize("count", [0, -1])
def test_no_software_renderers_is_an_error(count: int) -> None:
    """A node without anything to run on is a mistake."""
    with pytest.raises(ValueError, match=str(count)):
        SoftwareDevices(count)


def test_pid_namespace_is_told_apart() -> None:
    """In a pid namespace of its own a process knows that its pids are not the host's."""
    program = "from footlights.devices.foreign import pids_are_the_hosts as hosts; print(hosts())"
    command = [sys.executable, "-c", program]
    here = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert here.stdout.strip() == str(pids_are_the_hosts())
    second = Path("/proc/2/comm")  # a thread of the kernel's, which only the host's pids have
    assert pids_are_the_hosts() is (second.exists() and second.read_text().strip() == "kthreadd")
    inside = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if inside.returncode:
        return  # this machine lets nobody make namespaces; the rest was checked
    assert inside.stdout.strip() == "False"
