"""What is NVML's alone: its binding, its loader, old drivers, names of processes.

Also the tests of ``driver`` and ``device``.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from pathlib import Path

import pytest

from footlights.devices.fake_state import GIB, FakeGpu, FakeProcess, FakeState
from footlights.devices.kinds import DeviceKind
from footlights.devices.nvml.driver import NvmlDevices, wrong_binding
from footlights.devices.reading import DeviceHealth, DeviceProcess, ProcessKind
from tests.devices.probe import ProbedDevices
from tests.devices.standin import Standin, build

BUSY = FakeGpu(
    uuid="GPU-a",
    memory_used_bytes=GIB,
    processes=(FakeProcess(100, ProcessKind.COMPUTE, GIB, "/usr/bin/python3"), FakeProcess(7, ProcessKind.GRAPHICS, 5)),
)
LISTED = (DeviceProcess(7, ProcessKind.GRAPHICS, 5), DeviceProcess(100, ProcessKind.COMPUTE, GIB))


@pytest.mark.parametrize(
    "absent",
    [
        ("nvmlDeviceGetMemoryInfo_v2",),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3"),
        (
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
            "nvmlDeviceGetComputeRunningProcesses_v2",
            "nvmlDeviceGetGraphicsRunningProcesses_v2",
            "nvmlDeviceGetMigMode",
            "nvmlDeviceGetFieldValues",
            "nvmlDeviceGetRemappedRows",
            "nvmlEventSetCreate",
        ),
    ],
    ids=["memory", "processes", "before-450"],
)
def test_older_drivers(absent: tuple[str, ...], tmp_path: Path) -> None:
    """A library that lacks functions is read by their predecessors: nothing is missing, and the notes name each."""
    standin = Standin(build(absent), tmp_path / "gpus.state")
    standin.set(FakeState(gpus=(BUSY,)))
    devices = ProbedDevices(standin.environment)
    try:
        found = devices.read()
        [reading] = found.devices
        assert (reading.memory_total_bytes, reading.memory_free_bytes) == (48 * GIB, 47 * GIB)
        assert reading.processes is not None
        assert [dataclasses.replace(p, name=None) for p in reading.processes] == list(LISTED)
        assert (reading.health, reading.kind) == (DeviceHealth.OK, DeviceKind.GPU)
        assert {name for name in absent if any(note.endswith(name) for note in found.notes)} == set(absent)
        assert devices.read().notes == found.notes, "said once each"
    finally:
        devices.stop()


@pytest.mark.parametrize(
    ("driver", "usable"),
    [("535.43.02", False), ("535.86.10", False), ("535.98", True), ("535.129.03", True), ("570.124.06", True)],
)
def test_drivers_whose_third_process_list_is_broken(standin: Standin, driver: str, usable: bool) -> None:
    """From 535.43 to before 535.98 the third version of the process list is not asked."""
    third_fails = {
        "nvmlDeviceGetComputeRunningProcesses_v3": "UNKNOWN",
        "nvmlDeviceGetGraphicsRunningProcesses_v3": "UNKNOWN",
    }
    standin.set(FakeState(gpus=(dataclasses.replace(BUSY, errors=third_fails),), driver_version=driver))
    devices = NvmlDevices(pids_visible=False)
    [reading] = devices.read().devices
    devices.close()
    assert reading.processes == (None if usable else LISTED)


def test_names_only_where_pids_are_ours(standin: Standin) -> None:
    """A process has its program's name where its pid means something here, and none where it does not."""
    secretive = FakeProcess(8, name="/opt/kit/kit --token=s3cret")
    standin.set(FakeState(gpus=(dataclasses.replace(BUSY, processes=(*(BUSY.processes or ()), secretive)),)))
    for visible, expected in ((True, [None, "kit", "python3"]), (False, [None, None, None])):
        devices = NvmlDevices(pids_visible=visible)
        [reading] = devices.read().devices
        devices.close()
        assert [process.name for process in reading.processes or ()] == expected


def test_no_library() -> None:
    """On a machine without NVIDIA's library there is no device, and the note says so."""
    devices = ProbedDevices({"LD_LIBRARY_PATH": ""})
    try:
        found = devices.read()
        if found.devices:
            return  # a real GPU is here; the contract suite reads it
        assert len(found.notes) == 1
        assert "NVIDIA driver" in found.notes[0]
        with pytest.raises(LookupError, match=r"GPU-a.*NVIDIA driver"):
            devices.read_one("GPU-a")
    finally:
        devices.stop()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("DRIVER_NOT_LOADED", "modprobe nvidia"),
        ("LIB_RM_VERSION_MISMATCH", "restart this machine"),
        ("NO_PERMISSION", "/dev/nvidia"),
        ("UNKNOWN", "Unknown"),
    ],
)
def test_says_why_there_is_no_driver(standin: Standin, error: str, words: str) -> None:
    """Each way in which the driver refuses to start gives one note, which says what to do where that is known."""
    standin.set(FakeState(gpus=(BUSY,), driver_error=error))
    devices = NvmlDevices()
    found = devices.read()
    devices.close()
    assert found.devices == ()
    assert len(found.notes) == 1
    assert words in found.notes[0]


def test_wrong_binding_is_refused(tmp_path: Path) -> None:
    """Another distribution's pynvml is refused with the command that puts it right, by a message and not a crash."""
    (tmp_path / "pynvml.py").write_text("NVML_ERROR_UNKNOWN = 999\ndef nvmlInit(): pass\n")
    program = "from footlights.devices.nvml.driver import NvmlDevices; NvmlDevices()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the Python module pynvml at")
    assert str(tmp_path) in last
    assert "pip install 'nvidia-ml-py" in last


def test_the_binding_that_is_installed_is_right() -> None:
    """The complaint is about a module that lacks something, and about nothing else."""
    import pynvml

    assert wrong_binding(pynvml) is None
    assert wrong_binding(types.ModuleType("pynvml")) is not None
