"""Simulated GPUs, set in code or by a file that may be edited while an agent runs. See `fake_state` for the knobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from footlights.devices.driver import (
    DriverDevice,
    DriverError,
    DriverGoneError,
    Memory,
    MigAttributes,
    RemappedRows,
    Unanswered,
    UnsupportedError,
)
from footlights.devices.fake_state import FakeGpu, FakeInstance, FakeProcess, FakeState, load
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceProcess, ProcessKind
from footlights.devices.tracker import TrackedDevices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class FakeDevices(TrackedDevices):
    """Simulated devices with NVML's behaviour.

    Args:
        source: a state, a function that answers one, or a file's path; a file is read again when it changes.
            While it cannot be read, the last good state holds and a note says what is wrong.
        machine: what the uuids of ``count`` entries are made from, so that one file serves many simulated
        nodes. **tracking: see `TrackedDevices`.

    Raises:
        ValueError: the file is not a state; names the member.
        OSError: the file cannot be read.
    """

    def __init__(
        self, source: FakeState | Callable[[], FakeState] | Path, *, machine: str = "fake", **tracking: Any
    ) -> None:
        driver = FakeDriver(_StateFile(source, machine) if isinstance(source, Path) else source)
        super().__init__(driver, gpu_kind=DeviceKind.FAKE, instance_kind=DeviceKind.FAKE, **tracking)


class FakeDriver:
    """`Driver` over a `FakeState`."""

    def __init__(self, source: FakeState | Callable[[], FakeState]) -> None:
        self._source = source
        self._opened: FakeState | None = None
        self._xids_told: dict[str, int] = {}

    def open(self) -> None:
        if self._opened is None:
            self._opened = self._state()
            self._xids_told = {}

    def close(self) -> None:
        self._opened = None

    def versions(self) -> tuple[str | None, str | None]:
        state = self._state()
        return state.driver_version, state.library_version

    def gpus(self) -> Sequence[DriverDevice | Unanswered]:
        found: list[DriverDevice | Unanswered] = []
        for index, gpu in enumerate(self._state().gpus):
            try:
                _ask(gpu, "nvmlDeviceGetHandleByIndex", gpu.uuid)
            except DriverError as error:
                found.append(Unanswered(index, error))
                continue
            found.append(_FakeDevice(gpu))
            if "nvmlDeviceGetUUID" not in gpu.errors:
                self._xids_told.setdefault(gpu.uuid, len(gpu.xids))
        return found

    def critical_events(self) -> Sequence[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for gpu in self._state().gpus:
            told = self._xids_told.get(gpu.uuid)
            if told is not None:
                found.extend((gpu.uuid, xid) for xid in gpu.xids[told:])
                self._xids_told[gpu.uuid] = max(told, len(gpu.xids))
        return found

    def notes(self) -> Sequence[str]:
        complaint = self._source.complaint if isinstance(self._source, _StateFile) else ""
        return [complaint] if complaint else []

    def _state(self) -> FakeState:
        state = self._source if isinstance(self._source, FakeState) else self._source()
        if state.driver_error:
            raise DriverGoneError("nvmlInit", state.driver_error, f"simulated driver: {state.driver_error}")
        if self._opened is not None and state.generation != self._opened.generation:
            raise DriverGoneError("nvmlDeviceGetCount", "UNINITIALIZED", "the simulated driver was restarted")
        return state


class _FakeDevice:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def uuid(self) -> str:
        return _ask(self._gpu, "nvmlDeviceGetUUID", self._gpu.uuid)

    def name(self) -> str:
        return _ask(self._gpu, "nvmlDeviceGetName", self._gpu.name)

    def pci_bus_id(self) -> str:
        return _ask(self._gpu, "nvmlDeviceGetPciInfo", self._gpu.pci_bus_id)

    def memory(self) -> Memory:
        total = _ask(self._gpu, "nvmlDeviceGetMemoryInfo", self._gpu.memory_total_bytes)
        return Memory(total, max(0, total - self._gpu.memory_used_bytes))

    def utilization_percent(self) -> int:
        return _ask(self._gpu, "nvmlDeviceGetUtilizationRates", self._gpu.utilization_percent)

    def encoder_sessions(self) -> int:
        return _ask(self._gpu, "nvmlDeviceGetEncoderStats", self._gpu.encoder_sessions)

    def encoder_capacity(self) -> int:
        return _ask(self._gpu, "nvmlDeviceGetEncoderCapacity", self._gpu.encoder_capacity)

    def graphics_allowed(self) -> bool:
        return _ask(self._gpu, "nvmlDeviceGetGpuOperationMode", self._gpu.graphics_allowed)

    def compute_processes(self) -> Sequence[DeviceProcess]:
        processes = _ask(self._gpu, "nvmlDeviceGetComputeRunningProcesses", self._gpu.processes)
        return _of_kind(processes, ProcessKind.COMPUTE)

    def graphics_processes(self) -> Sequence[DeviceProcess]:
        processes = _ask(self._gpu, "nvmlDeviceGetGraphicsRunningProcesses", self._gpu.processes)
        return _of_kind(processes, ProcessKind.GRAPHICS)

    def ecc_corrected(self) -> int:
        return _ask(self._gpu, "nvmlDeviceGetTotalEccErrors", self._gpu.ecc_corrected)

    def ecc_uncorrected(self) -> int:
        return _ask(self._gpu, "nvmlDeviceGetTotalEccErrors", self._gpu.ecc_uncorrected)

    def retired_pages(self) -> int:
        return _ask(self._gpu, "nvmlDeviceGetRetiredPages", self._gpu.retired_pages)

    def retired_pages_pending(self) -> bool:
        return _ask(self._gpu, "nvmlDeviceGetRetiredPagesPendingStatus", self._gpu.retired_pages_pending)

    def remapped_rows(self) -> RemappedRows:
        return _ask(self._gpu, "nvmlDeviceGetRemappedRows", self._gpu.remapped_rows)

    def recovery_action(self) -> str:
        return _ask(self._gpu, "nvmlDeviceGetFieldValues", self._gpu.recovery_action)

    def mig_enabled(self) -> bool:
        return _ask(self._gpu, "nvmlDeviceGetMigMode", self._gpu.mig is not None)

    def mig_instances(self) -> Sequence[DriverDevice]:
        instances = _ask(self._gpu, "nvmlDeviceGetMigDeviceHandleByIndex", self._gpu.mig or ())
        return [_FakeInstanceDevice(self._gpu, instance) for instance in instances]

    def mig_attributes(self) -> MigAttributes:
        raise UnsupportedError("nvmlDeviceGetAttributes", "NOT_SUPPORTED")


class _FakeInstanceDevice(_FakeDevice):
    """An instance is asked as a GPU of its size; counters and modes are its parent's."""

    def __init__(self, parent: FakeGpu, instance: FakeInstance) -> None:
        super().__init__(
            FakeGpu(
                uuid=instance.uuid,
                name=f"{parent.name} MIG {instance.profile}",
                memory_total_bytes=instance.memory_total_bytes,
                memory_used_bytes=instance.memory_used_bytes,
                utilization_percent=None,
                encoder_sessions=None,
                processes=instance.processes,
                lost=parent.lost,
                errors=parent.errors,
            )
        )
        self._instance = instance

    def mig_attributes(self) -> MigAttributes:
        cut = MigAttributes(self._instance.profile, self._instance.encoders)
        return _ask(self._gpu, "nvmlDeviceGetAttributes", cut)


class _StateFile:
    """A state kept in a file: read when it changes."""

    def __init__(self, path: Path, machine: str) -> None:
        self.complaint = ""
        self._path = path
        self._machine = machine
        self._version = self._stat()
        self._state = load(path, machine=machine)

    def __call__(self) -> FakeState:
        try:
            version = self._stat()
            if version != self._version:
                self._version = version
                self._state = load(self._path, machine=self._machine)
                self.complaint = ""
        except (OSError, ValueError) as error:
            self.complaint = f"the state before is used: {error}"
        return self._state

    def _stat(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


def _ask(gpu: FakeGpu, function: str, answer: T | None) -> T:
    code = "GPU_IS_LOST" if gpu.lost else gpu.errors.get(function)
    if code is None and answer is None:
        code = "NOT_SUPPORTED"
    if code in ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND"):
        raise UnsupportedError(function, code)
    if code is not None or answer is None:
        raise DriverError(function, code or "UNKNOWN")
    return answer


def _of_kind(processes: Sequence[FakeProcess], kind: ProcessKind) -> Sequence[DeviceProcess]:
    return [DeviceProcess(p.pid, p.kind, p.used_memory_bytes, p.name) for p in processes if p.kind is kind]
