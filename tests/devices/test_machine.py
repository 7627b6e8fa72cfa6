"""What `TrackedDevices` makes of a machine: the same through NVML's binding as simulated.

Also the tests of ``answers``, ``health`` and ``reading``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from footlights.devices.driver import RemappedRows
from footlights.devices.fake_state import GIB, FakeGpu, FakeInstance, FakeProcess, FakeState
from footlights.devices.reading import DeviceHealth, DeviceProcess, DeviceReading, ProcessKind
from tests.devices.conftest import Machine

A, B, C = (FakeGpu(uuid=f"GPU-{n}", pci_bus_id=f"00000000:0{i}:00.0") for i, n in enumerate("abc", start=1))
CUT = dataclasses.replace(
    A,
    name="NVIDIA H100 80GB HBM3",
    mig=(
        FakeInstance("MIG-1", profile="1g.10gb", memory_used_bytes=GIB),
        FakeInstance("MIG-2", profile="1g.24gb+gfx", encoders=1, processes=(FakeProcess(7, used_memory_bytes=None),)),
    ),
)


def healths(machine: Machine) -> dict[str, DeviceHealth]:
    return {d.uuid: d.health for d in machine.devices.read().devices}


def reasons(reading: DeviceReading) -> list[str]:
    return [reason.reason for reason in reading.health_reasons]


def test_reads_everything_a_gpu_says(machine: Machine) -> None:
    """Every value that the driver has is in the reading, in bytes and per cent."""
    gpu = FakeGpu(
        uuid="GPU-a",
        name="NVIDIA L40S",
        pci_bus_id="00000000:17:00.0",
        memory_total_bytes=48 * GIB,
        memory_used_bytes=3 * GIB,
        utilization_percent=12,
        encoder_sessions=2,
        processes=(
            FakeProcess(200, ProcessKind.GRAPHICS, 5 << 20, "/usr/lib/xorg/Xorg"),
            FakeProcess(100, ProcessKind.COMPUTE, 3 * GIB, "/opt/my app/python --secret=x"),
            FakeProcess(100, ProcessKind.GRAPHICS, None),
        ),
    )
    machine.set(gpu)
    inventory = machine.devices.read()
    [reading] = inventory.devices
    assert (inventory.driver_version, inventory.library_version) == ("570.124.06", "12.570.124.06")
    assert (reading.uuid, reading.name, reading.index, reading.pci_bus_id) == (
        "GPU-a",
        "NVIDIA L40S",
        0,
        "00000000:17:00.0",
    )
    assert (reading.memory_total_bytes, reading.memory_free_bytes) == (48 * GIB, 45 * GIB)
    assert (reading.utilization_percent, reading.encoder_sessions, reading.encoder_capacity_percent) == (12, 2, 100)
    assert reading.processes is not None
    assert [(p.pid, p.kind, p.used_memory_bytes) for p in reading.processes] == [
        (100, ProcessKind.COMPUTE, 3 * GIB),
        (100, ProcessKind.GRAPHICS, None),
        (200, ProcessKind.GRAPHICS, 5 << 20),
    ]
    assert (reading.graphics, reading.encoder, reading.health) == (True, True, DeviceHealth.OK)


def test_unsaid_is_none(machine: Machine) -> None:
    """What the driver does not support is None, and says nothing against the GPU's health."""
    machine.set(
        FakeGpu(
            uuid="GPU-a",
            memory_total_bytes=None,
            utilization_percent=None,
            encoder_sessions=None,
            processes=None,
            ecc_corrected=None,
            ecc_uncorrected=None,
            errors={"nvmlDeviceGetMigMode": "NOT_SUPPORTED"},
        )
    )
    [reading] = machine.devices.read().devices
    assert (reading.memory_total_bytes, reading.memory_free_bytes, reading.processes) == (None, None, None)
    assert (reading.utilization_percent, reading.encoder_sessions, reading.pci_bus_id) == (None, None, None)
    assert (reading.health, reading.health_reasons) == (DeviceHealth.OK, ())


def test_no_graphics_processes_is_not_unknown(machine: Machine) -> None:
    """A GPU that supports only the list of compute processes has a complete list with that."""
    only_compute = {"nvmlDeviceGetGraphicsRunningProcesses": "NOT_SUPPORTED"}
    machine.set(dataclasses.replace(A, processes=(FakeProcess(5),), errors=only_compute))
    [reading] = machine.devices.read().devices
    assert reading.processes == (DeviceProcess(5, ProcessKind.COMPUTE, 0),)


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetEncoderStats",
        "nvmlDeviceGetEncoderCapacity",
        "nvmlDeviceGetGpuOperationMode",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRetiredPages",
        "nvmlDeviceGetRetiredPagesPendingStatus",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetFieldValues",
    ],
)
@pytest.mark.parametrize(
    ("error", "health", "reason"),
    [
        ("UNKNOWN", DeviceHealth.DEGRADED, "QUERY_FAILED"),
        ("GPU_IS_LOST", DeviceHealth.LOST, "GPU_IS_LOST"),
        ("RESET_REQUIRED", DeviceHealth.UNHEALTHY, "RESET_REQUIRED"),
        ("NOT_SUPPORTED", DeviceHealth.OK, None),
        ("FUNCTION_NOT_FOUND", DeviceHealth.OK, None),
    ],
)
def test_one_failing_call_costs_only_its_gpu(
    machine: Machine, function: str, error: str, health: DeviceHealth, reason: str | None
) -> None:
    """Whatever the second of three GPUs answers to one call, the others read as ever and it is still listed."""
    machine.set(A, dataclasses.replace(B, errors={function: error}), C)
    readings = {d.uuid: d for d in machine.devices.read().devices}
    assert list(readings) == ["GPU-a", "GPU-b", "GPU-c"]
    assert readings["GPU-a"].health is readings["GPU-c"].health is DeviceHealth.OK
    assert readings["GPU-a"].memory_free_bytes == readings["GPU-c"].memory_free_bytes == 48 * GIB
    assert readings["GPU-b"].health is health
    assert reasons(readings["GPU-b"]) == ([reason] if reason else [])


@pytest.mark.parametrize("function", ["nvmlDeviceGetUUID", "nvmlDeviceGetHandleByIndex"])
def test_a_gpu_that_does_not_say_who_it_is(machine: Machine, function: str) -> None:
    """A GPU that cannot be identified is lost if it was known, and a note says which one it is in any case."""
    nameless = dataclasses.replace(B, errors={function: "GPU_IS_LOST"})
    machine.set(A, nameless, C)
    found = machine.devices.read()
    assert [d.uuid for d in found.devices] == ["GPU-a", "GPU-c"]
    assert any("GPU 1" in note for note in found.notes)
    machine.set(A, B, C)
    machine.devices.read()
    machine.set(A, nameless, C)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-c": DeviceHealth.OK, "GPU-b": DeviceHealth.LOST}


@pytest.mark.parametrize("how", ["gone", "lost"])
def test_falls_off_the_bus_and_returns(machine: Machine, how: str) -> None:
    """A GPU that vanishes while the agent runs is LOST, keeps only its identity, and is OK when it is back."""
    machine.set(A, B)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.OK}
    machine.set(A, *([dataclasses.replace(B, lost=True)] if how == "lost" else []))
    lost = machine.devices.read_one("GPU-b")
    assert (lost.health, lost.name, lost.memory_total_bytes) == (DeviceHealth.LOST, "NVIDIA L40S", 48 * GIB)
    assert (lost.memory_free_bytes, lost.processes, reasons(lost)) == (None, None, ["GPU_IS_LOST"])
    assert machine.devices.read_one("GPU-a").health is DeviceHealth.OK
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.LOST}
    machine.set(A, B)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.OK}
    assert machine.devices.read_one("GPU-b").memory_free_bytes == 48 * GIB


def test_forgotten_when_told(machine: Machine) -> None:
    """A lost GPU is reported until it is forgotten; a GPU that is there is not forgotten."""
    machine.set(A, B)
    machine.devices.read()
    machine.set(A)
    for _ in range(3):
        assert healths(machine)["GPU-b"] is DeviceHealth.LOST
    machine.devices.forget("GPU-b")
    machine.devices.forget("GPU-a")
    assert healths(machine) == {"GPU-a": DeviceHealth.OK}
    with pytest.raises(LookupError, match="GPU-b"):
        machine.devices.read_one("GPU-b")


def test_driver_unloaded_and_loaded_again(machine: Machine) -> None:
    """Without its driver a machine offers nothing, says why, and remembers; it recovers without a restart of ours."""
    machine.set(A)
    machine.devices.read()
    machine.set_state(FakeState(driver_error="DRIVER_NOT_LOADED"))
    found = machine.devices.read()
    assert [d.health for d in found.devices] == [DeviceHealth.LOST]
    assert len(found.notes) == 1
    assert machine.devices.read_one("GPU-a").health is DeviceHealth.LOST
    machine.set(A)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK}


def test_driver_restarted(machine: Machine) -> None:
    """A restarted driver refuses who opened it before: it is opened again within the same read."""
    machine.set(A, B)
    machine.devices.read()
    machine.set_state(FakeState(gpus=(A, B), generation=1))
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.OK}


def test_no_driver_at_first(machine: Machine) -> None:
    """A machine without driver has no devices and a reason, and its first GPU appears when the driver does."""
    machine.set_state(FakeState(driver_error="DRIVER_NOT_LOADED"))
    found = machine.devices.read()
    assert found.devices == ()
    assert found.notes
    with pytest.raises(LookupError):
        machine.devices.read_one("GPU-a")
    machine.set(A)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK}


def test_mig_instances_are_devices(machine: Machine) -> None:
    """The instances of a GPU in MIG mode are offered, each with its profile and abilities, and the GPU is not."""
    machine.set(CUT, B)
    first, second, other = machine.devices.read().devices
    assert (first.uuid, second.uuid, other.uuid) == ("MIG-1", "MIG-2", "GPU-b")
    assert (first.parent_uuid, first.mig_profile, first.index) == ("GPU-a", "1g.10gb", 0)
    assert (first.graphics, first.encoder) == (False, False)
    assert (second.graphics, second.encoder) == (True, True)
    assert (first.memory_total_bytes, first.memory_free_bytes) == (10 * GIB, 9 * GIB)
    assert (first.utilization_percent, first.encoder_sessions) == (None, None)
    assert second.processes == (DeviceProcess(7, ProcessKind.COMPUTE, None),)
    assert machine.devices.read_one("MIG-2") == second
    with pytest.raises(LookupError):
        machine.devices.read_one("GPU-a")


def test_mig_shares_its_gpus_health(machine: Machine) -> None:
    """Errors are counted by the GPU, so its instances are as unhealthy as it is; a lost GPU takes them along."""
    machine.set(dataclasses.replace(CUT, ecc_uncorrected=1))
    assert [reasons(d) for d in machine.devices.read().devices] == [["ECC_UNCORRECTED"]] * 2
    machine.set(dataclasses.replace(CUT, lost=True))
    assert healths(machine) == {"MIG-1": DeviceHealth.LOST, "MIG-2": DeviceHealth.LOST}
    for function in ("nvmlDeviceGetName", "nvmlDeviceGetMigMode", "nvmlDeviceGetMigDeviceHandleByIndex"):
        machine.set(dataclasses.replace(CUT, errors={function: "GPU_IS_LOST"}))
        assert healths(machine) == {"MIG-1": DeviceHealth.LOST, "MIG-2": DeviceHealth.LOST}, function
    machine.set()
    assert healths(machine) == {"MIG-1": DeviceHealth.LOST, "MIG-2": DeviceHealth.LOST}
    machine.devices.forget("GPU-a")
    assert healths(machine) == {}


def test_mig_cut_anew(machine: Machine) -> None:
    """An instance that an operator destroyed is gone, not lost; a GPU taken out of MIG mode is offered again."""
    machine.set(A)
    machine.devices.read()
    machine.set(CUT)
    assert healths(machine) == {"MIG-1": DeviceHealth.OK, "MIG-2": DeviceHealth.OK}
    machine.set(dataclasses.replace(CUT, mig=()))
    assert healths(machine) == {}
    machine.set(A)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK}


@pytest.mark.parametrize("function", ["nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetMigMode"])
def test_mig_that_cannot_be_listed(machine: Machine, function: str) -> None:
    """A GPU known to be cut up is never offered whole because a call failed; its instances are not called healthy."""
    machine.set(CUT, B)
    machine.devices.read()
    machine.set(dataclasses.replace(CUT, errors={function: "UNKNOWN"}), B)
    found = healths(machine)
    assert set(found) == {"MIG-1", "MIG-2", "GPU-b"}
    assert found["MIG-1"] is not DeviceHealth.OK
    assert found["GPU-b"] is DeviceHealth.OK


@pytest.mark.parametrize("code", ["NO_PERMISSION", "UNKNOWN"])
def test_a_mig_mode_that_may_not_be_read(machine: Machine, code: str) -> None:
    """A GPU that does not say whether it is cut up is shown, and offered to nobody; one that has no such mode is."""
    unread = {"nvmlDeviceGetMigMode": code}
    machine.set(dataclasses.replace(CUT, errors=unread), dataclasses.replace(B, errors=unread))
    for reading in (*machine.devices.read().devices, machine.devices.read_one("GPU-b")):
        assert reading.health is DeviceHealth.UNHEALTHY
        assert reading.health_reasons[0].reason == "MIG_MODE_UNKNOWN"
    machine.set(CUT, dataclasses.replace(B, errors={"nvmlDeviceGetMigMode": "NOT_SUPPORTED"}))
    assert set(healths(machine).values()) == {DeviceHealth.OK}
    machine.set(CUT, dataclasses.replace(B, errors=unread))
    assert healths(machine)["GPU-b"] is DeviceHealth.UNHEALTHY


def test_reading_one_asks_the_others_nothing(machine: Machine) -> None:
    """Reading one GPU neither needs another's answers nor forgets it; what changed on the other is seen next time."""
    machine.set(A, B)
    machine.devices.read()
    machine.set(
        dataclasses.replace(A, memory_used_bytes=GIB), dataclasses.replace(B, errors={"nvmlDeviceGetName": "UNKNOWN"})
    )
    assert machine.devices.read_one("GPU-a").memory_free_bytes == 47 * GIB
    machine.set(A)
    assert machine.devices.read_one("GPU-a").health is DeviceHealth.OK
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.LOST}


@pytest.mark.parametrize(
    ("state", "health", "reason"),
    [
        ({"ecc_corrected": 99}, DeviceHealth.OK, None),
        ({"ecc_corrected": 100}, DeviceHealth.DEGRADED, "ECC_CORRECTED"),
        ({"ecc_uncorrected": 1}, DeviceHealth.UNHEALTHY, "ECC_UNCORRECTED"),
        ({"retired_pages": 59}, DeviceHealth.OK, None),
        ({"retired_pages": 60}, DeviceHealth.UNHEALTHY, "PAGES_RETIRED"),
        ({"retired_pages_pending": True}, DeviceHealth.DEGRADED, "PAGES_PENDING"),
        ({"remapped_rows": RemappedRows(3, 1, False, False)}, DeviceHealth.OK, None),
        ({"remapped_rows": RemappedRows(0, 1, True, False)}, DeviceHealth.DEGRADED, "ROW_REMAP_PENDING"),
        ({"remapped_rows": RemappedRows(0, 1, False, True)}, DeviceHealth.UNHEALTHY, "ROW_REMAP_FAILED"),
        ({"recovery_action": "NONE"}, DeviceHealth.OK, None),
        ({"recovery_action": "GPU_RESET"}, DeviceHealth.UNHEALTHY, "RECOVERY_NEEDED"),
        ({"recovery_action": "NODE_REBOOT"}, DeviceHealth.UNHEALTHY, "NODE_REBOOT_NEEDED"),
        ({"recovery_action": "DRAIN_P2P"}, DeviceHealth.DEGRADED, "RECOVERY_NEEDED"),
    ],
)
def test_health(machine: Machine, state: dict[str, Any], health: DeviceHealth, reason: str | None) -> None:
    """Each counter that NVIDIA says to watch makes the GPU degraded or unhealthy, with its reason."""
    machine.set(dataclasses.replace(A, **state), B)
    first, second = machine.devices.read().devices
    assert (first.health, reasons(first)) == (health, [reason] if reason else [])
    assert second.health is DeviceHealth.OK


def test_the_gravest_reason_comes_first(machine: Machine) -> None:
    """A GPU with several complaints has the health of the worst and lists all."""
    machine.set(dataclasses.replace(A, ecc_corrected=500, ecc_uncorrected=2, retired_pages_pending=True))
    [reading] = machine.devices.read().devices
    assert reading.health is DeviceHealth.UNHEALTHY
    assert reasons(reading) == ["ECC_UNCORRECTED", "ECC_CORRECTED", "PAGES_PENDING"]


def test_critical_errors_quarantine_and_end(machine: Machine) -> None:
    """An XID of the GPU's own makes it unhealthy until ten minutes after the last; an application's XID does not."""
    machine.set(dataclasses.replace(A, xids=(79,)), B)
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.OK}, (
        "what came before we listened is history"
    )
    machine.set(dataclasses.replace(A, xids=(79, 48)), dataclasses.replace(B, xids=(13, 31)))
    first, second = machine.devices.read().devices
    assert (first.health, reasons(first)) == (DeviceHealth.UNHEALTHY, ["XID_48"])
    assert second.health is DeviceHealth.OK
    machine.clock.now += 599
    assert machine.devices.read_one("GPU-a").health is DeviceHealth.UNHEALTHY
    machine.clock.now += 2
    assert machine.devices.read_one("GPU-a").health is DeviceHealth.OK


def test_the_critical_error_of_a_lost_gpu_is_heard(machine: Machine) -> None:
    """The XID with which a GPU falls off the bus is its own although it cannot say so; back, it is in quarantine."""
    machine.set(A, B)
    machine.devices.read()
    machine.set(A, dataclasses.replace(B, lost=True, xids=(79,)))
    assert healths(machine)["GPU-b"] is DeviceHealth.LOST
    machine.set(A, dataclasses.replace(B, xids=(79,)))
    first, second = machine.devices.read().devices
    assert (first.health, second.health, reasons(second)) == (DeviceHealth.OK, DeviceHealth.UNHEALTHY, ["XID_79"])
    machine.clock.now += 601
    assert healths(machine) == {"GPU-a": DeviceHealth.OK, "GPU-b": DeviceHealth.OK}


@pytest.mark.parametrize(
    ("name", "capacity", "encoder"),
    [
        ("NVIDIA L40S", 100, True),
        ("NVIDIA L40S", 0, True),
        ("NVIDIA L40S", None, False),
        ("NVIDIA H100 80GB HBM3", 100, False),
        ("NVIDIA A100-SXM4-40GB", 100, False),
        ("NVIDIA H200", 100, False),
        ("NVIDIA GH200 480GB", 100, False),
        ("NVIDIA A10G", 100, True),
        ("NVIDIA RTX A3000", 100, True),
        ("NVIDIA GeForce RTX 4090", 100, True),
        ("NVIDIA GeForce MX450", 100, False),
        ("Tesla T4", 100, True),
    ],
)
def test_encoder(machine: Machine, name: str, capacity: int | None, encoder: bool) -> None:
    """A GPU has an encoder unless the driver refuses the question or the board is known to have none."""
    machine.set(dataclasses.replace(A, name=name, encoder_capacity=capacity))
    [reading] = machine.devices.read().devices
    assert reading.encoder is encoder


def test_compute_mode_forbids_graphics(machine: Machine) -> None:
    """A board set to compute only cannot draw."""
    machine.set(dataclasses.replace(A, graphics_allowed=False), dataclasses.replace(B, graphics_allowed=True))
    assert [d.graphics for d in machine.devices.read().devices] == [False, True]


def test_index_follows_the_drivers_order(machine: Machine) -> None:
    """The uuid stays when the driver's order changes; only the index moves."""
    machine.set(A, B)
    before = {d.uuid: d.index for d in machine.devices.read().devices}
    machine.set(B, A)
    after = {d.uuid: d.index for d in machine.devices.read().devices}
    assert (before, after) == ({"GPU-a": 0, "GPU-b": 1}, {"GPU-b": 0, "GPU-a": 1})
