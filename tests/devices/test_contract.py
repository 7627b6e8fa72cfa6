"""What every source of devices keeps: NVML on the stand-in (in this process and in its own), software, fake.

The same claims are checked on a real GPU where there is one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.devices.fake import FakeDevices
from footlights.devices.fake_state import FakeGpu, FakeInstance, FakeProcess, FakeState
from footlights.devices.kinds import DeviceKind
from footlights.devices.nvml.driver import NvmlDevices
from footlights.devices.reading import DeviceHealth, DeviceInventory, Devices
from footlights.devices.software import SoftwareDevices
from tests.devices.probe import ProbedDevices
from tests.devices.standin import Standin

STATE = FakeState(
    gpus=(
        FakeGpu(uuid="GPU-1", processes=(FakeProcess(4711, used_memory_bytes=None),)),
        FakeGpu(uuid="GPU-2", mig=(FakeInstance("MIG-1"), FakeInstance("MIG-2"))),
        FakeGpu(uuid="GPU-3", errors={"nvmlDeviceGetMemoryInfo": "UNKNOWN"}, utilization_percent=None),
    )
)


@pytest.fixture(
    params=["nvml", "nvml-process", "software", "fake", pytest.param("gpu", marks=pytest.mark.gpu)],
)
def devices(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Devices]:
    match request.param:
        case "nvml":
            standin: Standin = request.getfixturevalue("standin")
            standin.set(STATE)
            made: Devices = NvmlDevices()
        case "nvml-process":
            outside = Standin(request.getfixturevalue("standin_library"), tmp_path / "outside.state")
            outside.set(STATE)
            made = ProbedDevices(outside.environment)
        case "software":
            made = SoftwareDevices(3)
        case "fake":
            made = FakeDevices(STATE)
        case _:
            made = ProbedDevices({})
    try:
        if request.param == "gpu" and not made.read().devices:
            pytest.skip(f"no NVIDIA GPU here: {'; '.join(made.read().notes)}")
        yield made
        made.close()
    finally:
        if isinstance(made, ProbedDevices):
            made.stop()


def test_offers_at_least_one_device(devices: Devices) -> None:
    """There is a device, and every device has a name and a uuid of its own."""
    found = devices.read().devices
    assert found
    assert len({d.uuid for d in found}) == len(found)
    assert all(d.uuid and d.name for d in found)


def test_uuids_are_stable(devices: Devices) -> None:
    """Reading again, also after closing, finds the same devices."""
    first = [d.uuid for d in devices.read().devices]
    assert [d.uuid for d in devices.read().devices] == first
    devices.close()
    devices.close()
    assert [d.uuid for d in devices.read().devices] == first


def test_values_make_sense(devices: Devices) -> None:
    """What is said is within its bounds, and what cannot be measured is None."""
    for d in devices.read().devices:
        assert d.memory_total_bytes is None or d.memory_total_bytes >= 0
        if d.memory_free_bytes is not None:
            assert d.memory_total_bytes is not None
            assert 0 <= d.memory_free_bytes <= d.memory_total_bytes
        assert d.utilization_percent is None or 0 <= d.utilization_percent <= 100
        assert d.encoder_sessions is None or d.encoder_sessions >= 0
        assert all(p.pid > 0 for p in d.processes or ())
        assert (d.health is DeviceHealth.OK) is (d.health_reasons == ())
        assert (d.parent_uuid is not None) is (d.mig_profile is not None)
        assert d.kind is not DeviceKind.MIG or not d.uuid.startswith("GPU-")
        assert d.memory_total_bytes is None or d.kind is not DeviceKind.SOFTWARE


def test_read_one_is_read(devices: Devices) -> None:
    """Reading one device says who it is and what it can do exactly as reading all does."""
    for d in devices.read().devices:
        one = devices.read_one(d.uuid)
        assert (one.uuid, one.kind, one.name, one.index) == (d.uuid, d.kind, d.name, d.index)
        assert (one.memory_total_bytes, one.graphics, one.encoder) == (d.memory_total_bytes, d.graphics, d.encoder)
        assert (one.health, one.parent_uuid, one.mig_profile) == (d.health, d.parent_uuid, d.mig_profile)


def test_unknown_device(devices: Devices) -> None:
    """A uuid that is not there is a LookupError that names it."""
    with pytest.raises(LookupError, match="GPU-0000"):
        devices.read_one("GPU-0000")


def test_forgetting_what_is_there_changes_nothing(devices: Devices) -> None:
    """Only a lost device can be forgotten."""
    before = [d.uuid for d in devices.read().devices]
    for uuid in [*before, "GPU-0000"]:
        devices.forget(uuid)
    assert [d.uuid for d in devices.read().devices] == before


def test_parents_in_mig_mode_are_not_offered(devices: Devices) -> None:
    """A GPU that is cut up and its instances are never both offered."""
    found = devices.read().devices
    assert not {d.uuid for d in found} & {d.parent_uuid for d in found}


def test_threads_may_share_it(devices: Devices) -> None:
    """Reads from several threads at once all see the whole inventory."""
    if isinstance(devices, ProbedDevices):
        return  # one pipe; the same code is read from threads in this process
    expected = [d.uuid for d in devices.read().devices]
    found: list[DeviceInventory] = []

    def work() -> None:
        for _ in range(20):
            found.append(devices.read())
            for uuid in expected:
                devices.read_one(uuid)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 80
    assert all([d.uuid for d in inventory.devices] == expected for inventory in found)
