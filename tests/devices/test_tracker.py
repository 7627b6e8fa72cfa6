"""When the driver is opened again, and what happens when it hangs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from footlights.devices.driver import DriverDevice, Unanswered
from footlights.devices.fake import FakeDriver
from footlights.devices.fake_state import FakeGpu, FakeState
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceHealth
from footlights.devices.tracker import TrackedDevices
from tests.devices.conftest import Clock

A, B = FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b")


class EnumeratesWhenOpened(FakeDriver):
    """As NVML does: a GPU that comes back is not seen by who has the driver open."""

    def __init__(self, states: list[FakeState]) -> None:
        super().__init__(lambda: states[-1])
        self.opened = 0
        self._listed: set[str] = set()

    def open(self) -> None:
        if self._opened is None:
            super().open()
            self.opened += 1
            self._listed = {gpu.uuid for gpu in self._state().gpus}

    def gpus(self) -> Sequence[DriverDevice | Unanswered]:
        return [gpu for gpu in super().gpus() if not isinstance(gpu, Unanswered) and gpu.uuid() in self._listed]


def test_a_lost_gpu_is_looked_for_in_a_while() -> None:
    """While a GPU is missing the driver is opened anew every 30 s, not at each read; when nothing is missing, never."""
    states = [FakeState(gpus=(A, B))]
    clock = Clock()
    driver = EnumeratesWhenOpened(states)
    devices = TrackedDevices(driver, gpu_kind=DeviceKind.FAKE, instance_kind=DeviceKind.FAKE, clock=clock)

    def lost() -> list[str]:
        return [d.uuid for d in devices.read().devices if d.health is DeviceHealth.LOST]

    for _ in range(3):
        clock.now += 100
        assert lost() == []
    assert driver.opened == 1
    states.append(FakeState(gpus=(A,)))
    assert lost() == ["GPU-b"]
    clock.now += 31
    assert lost() == ["GPU-b"]
    assert driver.opened == 2
    states.append(FakeState(gpus=(A, B)))
    clock.now += 29
    assert lost() == ["GPU-b"]
    assert driver.opened == 2
    clock.now += 2
    assert lost() == []
    assert driver.opened == 3
    clock.now += 1000
    assert lost() == []
    assert driver.opened == 3


def test_a_hanging_driver_does_not_hang_everybody() -> None:
    """While one read is stuck in the driver, others end with TimeoutError, and all is well when it comes back."""
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> FakeState:
        inside.set()
        go_on.wait(timeout=20)
        return FakeState(gpus=(A,))

    devices = TrackedDevices(FakeDriver(slow), gpu_kind=DeviceKind.FAKE, instance_kind=DeviceKind.FAKE, timeout_s=0.05)
    stuck = threading.Thread(target=devices.read)
    stuck.start()
    assert inside.wait(timeout=20)
    with pytest.raises(TimeoutError, match="dmesg"):
        devices.read()
    with pytest.raises(TimeoutError):
        devices.read_one("GPU-a")
    go_on.set()
    stuck.join(timeout=20)
    assert [d.uuid for d in devices.read().devices] == ["GPU-a"]
