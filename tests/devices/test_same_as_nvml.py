"""The fake and NVML's binding on the stand-in agree on every state: what holds for one holds for the other.

Also the tests of ``fake`` and ``driver``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from footlights.devices.driver import RemappedRows
from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import FakeGpu, FakeInstance, FakeProcess, FakeState
from footlights.devices.kinds import DeviceKind
from footlights.devices.nvml.driver import NvmlDevices
from footlights.devices.reading import DeviceInventory, DeviceReading, ProcessKind
from tests.devices.standin import Standin

sizes = st.integers(0, 1 << 40)
counts = st.none() | st.integers(0, 200)
flags = st.none() | st.booleans()
processes = st.lists(
    st.builds(FakeProcess, st.integers(1, 99), st.sampled_from(ProcessKind), st.none() | sizes), max_size=4
).map(tuple)
functions = st.sampled_from(
    [
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlDeviceGetEncoderCapacity",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetAttributes",
    ]
)
codes = st.sampled_from(["NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "UNKNOWN", "GPU_IS_LOST", "RESET_REQUIRED", "TIMEOUT"])
instances = st.builds(
    FakeInstance,
    uuid=st.just(""),
    profile=st.sampled_from(["1g.10gb", "3g.40gb", "1g.24gb+gfx"]),
    memory_total_bytes=sizes,
    memory_used_bytes=sizes,
    encoders=st.integers(0, 2),
    processes=processes,
)
gpus = st.builds(
    FakeGpu,
    uuid=st.just(""),
    name=st.sampled_from(["NVIDIA L40S", "NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090"]),
    pci_bus_id=st.none() | st.just("00000000:17:00.0"),
    memory_total_bytes=st.none() | sizes,
    memory_used_bytes=sizes,
    utilization_percent=st.none() | st.integers(0, 100),
    encoder_sessions=counts,
    encoder_capacity=counts,
    graphics_allowed=flags,
    processes=st.none() | processes,
    ecc_corrected=counts,
    ecc_uncorrected=counts,
    retired_pages=counts,
    retired_pages_pending=flags,
    remapped_rows=st.none()
    | st.builds(RemappedRows, st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans()),
    recovery_action=st.none() | st.sampled_from(["NONE", "GPU_RESET", "DRAIN_P2P", "DRAIN_AND_RESET"]),
    mig=st.none() | st.lists(instances, max_size=3).map(tuple),
    lost=st.sampled_from([False, False, False, True]),
    errors=st.dictionaries(functions, codes, max_size=2),
    xids=st.lists(st.sampled_from([13, 48, 79]), max_size=3).map(tuple),
)


@st.composite
def histories(draw: st.DrawFn) -> list[FakeState]:
    """Some states of one machine, one after another: GPUs come, go and change, each keeping its uuid."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        present = draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3))
        error = draw(st.sampled_from([None, None, None, None, "DRIVER_NOT_LOADED"]))
        generation = draw(st.sampled_from([0, 0, 1]))
        named = tuple(_named(draw(gpus), letter) for letter in present)
        made.append(FakeState(named, driver_error=error, generation=generation))
    return made


@settings(
    max_examples=100,
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # which takes minutes here
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=histories())
def test_fake_reads_as_nvml_does(standin: Standin, history: list[FakeState]) -> None:
    """Through any history of a machine both report the same devices, values and health, in full and one by one."""
    current = history[:1]
    fake = FakeDevices(lambda: current[0])
    nvml = NvmlDevices(pids_visible=False)
    try:
        for state in history:
            current[0] = state
            standin.set(state)
            expected = fake.read()
            found = nvml.read()
            assert comparable(found.devices) == comparable(expected.devices)
            assert bool(unaddressed(found)) is bool(unaddressed(expected))
            for reading in expected.devices:
                one = fake.read_one(reading.uuid)
                assert comparable([nvml.read_one(reading.uuid)]) == comparable([one])
    finally:
        nvml.close()


def comparable(readings: Sequence[DeviceReading]) -> list[DeviceReading]:
    """Readings without what must differ: their kind, and the driver's own words in messages."""
    return [
        dataclasses.replace(
            reading,
            kind=DeviceKind.FAKE,
            health_reasons=tuple(dataclasses.replace(reason, message="") for reason in reading.health_reasons),
        )
        for reading in readings
    ]


def unaddressed(inventory: DeviceInventory) -> list[str]:
    """Notes on GPUs; calls that a driver does not know are noted only where there is a driver."""
    return [note for note in inventory.notes if "does not know" not in note]


def _named(gpu: FakeGpu, letter: str) -> FakeGpu:
    mig = gpu.mig and tuple(
        dataclasses.replace(cut, uuid=f"MIG-{letter}{position}") for position, cut in enumerate(gpu.mig)
    )
    # NVML tells an instance's profile by its name; the fake knows it.
    errors = {function: code for function, code in gpu.errors.items() if mig is None or function != "nvmlDeviceGetName"}
    return dataclasses.replace(gpu, uuid=f"GPU-{letter}", mig=mig, errors=errors)
