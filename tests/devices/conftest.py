"""Devices of every kind, set to the same state."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pynvml
import pytest

from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import FakeGpu, FakeState
from footlights.devices.nvml.driver import NvmlDevices
from footlights.devices.reading import Devices
from tests.devices.standin import Standin, build


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Machine:
    """Devices, and the hand that changes what they are."""

    devices: Devices
    set_state: Callable[[FakeState], None]
    clock: Clock

    def set(self, *gpus: FakeGpu) -> None:
        self.set_state(FakeState(gpus=gpus))


@pytest.fixture(scope="session")
def standin_library() -> Path:
    return build()


@pytest.fixture
def standin(standin_library: Path, tmp_path: Path) -> Iterator[Standin]:
    """The stand-in, loaded into this process where the binding looks for NVIDIA's library: by its soname."""
    made = Standin(standin_library, tmp_path / "gpus.state")
    made.set(FakeState())
    loaded = ctypes.CDLL(str(standin_library))
    assert ctypes.CDLL(standin_library.name)._handle == loaded._handle, "another NVML is loaded in this process"
    before = os.environ.get("FOOTLIGHTS_NVML_STATE")
    os.environ["FOOTLIGHTS_NVML_STATE"] = str(made.state_path)
    yield made
    os.environ.pop("FOOTLIGHTS_NVML_STATE")
    if before is not None:
        os.environ["FOOTLIGHTS_NVML_STATE"] = before


@pytest.fixture(params=["nvml", "fake"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The same machine through NVML's binding and the stand-in, and simulated."""
    clock = Clock()
    if request.param == "nvml":
        standin: Standin = request.getfixturevalue("standin")
        nvml = NvmlDevices(pids_visible=True, clock=clock, timeout_s=5)
        yield Machine(nvml, standin.set, clock)
        nvml.close()
        with pytest.raises(pynvml.NVMLError):
            pynvml.nvmlShutdown()  # whatever was opened was closed
        return
    states = [FakeState()]
    fake = FakeDevices(lambda: states[-1], clock=clock)
    yield Machine(fake, states.append, clock)
    fake.close()
