"""Simulated GPUs, set in code or by a file that may be edited while an agent runs. See `fake_state` for the knobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from footlights.devices.driver import (
    DriverDevice,
    DriverError,
    DriverGoneError,
    Memory,
    MigAttributes,
    Unanswered,
    UnsupportedError,
)
from footlights.devices.fake_state import FakeGpu, FakeInstance, FakeProcess, FakeState, load
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceProcess, ProcessKind
from footlights.devices.tracker import TrackedDevices, TrackingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class FakeDevices(TrackedDevices):
    """Simulated devices with NVML's behaviour, from a state, a function that answers one, or a file.

    A file is read again when it changes; while it cannot be read, the last good state holds and a note says why.
    ``machine`` is what the uuids of ``count`` entries are made from. Raises ValueError or OSError for the file.
    """

    def __init__(
        self,
        source: FakeState | Callable[[], FakeState] | Path,
        *,
        machine: str = "fake",
        note: str = "",
        **tracking: Unpack[TrackingSettings],
    ) -> None:
        driver = FakeDriver(_StateFile(source, machine) if isinstance(source, Path) else source, note)
        super().__init__(driver, gpu_kind=DeviceKind.FAKE, instance_kind=DeviceKind.FAKE, **tracking)


class FakeDriver:
    """`Driver` over a `FakeState`."""

    def __init__(self, source: FakeState | Callable[[], FakeState], note: str = "") -> None:
        self._source, self._note = source, note
        self._opened: FakeState | None = None
        self._xids_told: dict[str, int] = {}

    def open(self) -> None:
        """Begin with the state as it is now."""
        if self._opened is None:
            self._opened = self._state()
            self._xids_told = {}

    def close(self) -> None:
        """Forget the state."""
        self._opened = None

    def versions(self) -> tuple[str | None, str | None]:
        """As the state says."""
        state = self._state()
        return state.driver_version, state.library_version

    def gpus(self) -> Sequence[DriverDevice | Unanswered]:
        """The GPUs of the state."""
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
        """The XIDs that came into the state since the last call."""
        found: list[tuple[str, int]] = []
        for gpu in self._state().gpus:
            told = self._xids_told.get(gpu.uuid)
            if told is not None:
                found.extend((gpu.uuid, xid) for xid in gpu.xids[told:])
                self._xids_told[gpu.uuid] = max(told, len(gpu.xids))
        return found

    def notes(self) -> Sequence[str]:
        """Where the state comes from, and what is wrong with its file."""
        complaint = self._source.complaint if isinstance(self._source, _StateFile) else ""
        return [note for note in (self._note, complaint) if note]

    def _state(self) -> FakeState:
        state = self._source if isinstance(self._source, FakeState) else self._source()
        if state.driver_error:
            raise DriverGoneError("nvmlInit", state.driver_error, f"simulated driver: {state.driver_error}")
        if self._opened is not None and state.generation != self._opened.generation:
            raise DriverGoneError("nvmlDeviceGetCount", "UNINITIALIZED", "the simulated driver was restarted")
        return state


_FUNCTIONS = {
    "name": "nvmlDeviceGetName",
    "pci_bus_id": "nvmlDeviceGetPciInfo",
    "memory": "nvmlDeviceGetMemoryInfo",
    "utilization_percent": "nvmlDeviceGetUtilizationRates",
    "encoder_sessions": "nvmlDeviceGetEncoderStats",
    "encoder_capacity": "nvmlDeviceGetEncoderCapacity",
    "graphics_allowed": "nvmlDeviceGetGpuOperationMode",
    "compute": "nvmlDeviceGetComputeRunningProcesses",
    "graphics": "nvmlDeviceGetGraphicsRunningProcesses",
    "ecc_corrected": "nvmlDeviceGetTotalEccErrors",
    "ecc_uncorrected": "nvmlDeviceGetTotalEccErrors",
    "retired_pages": "nvmlDeviceGetRetiredPages",
    "retired_pages_pending": "nvmlDeviceGetRetiredPagesPendingStatus",
    "remapped_rows": "nvmlDeviceGetRemappedRows",
    "recovery_action": "nvmlDeviceGetFieldValues",
    "mig_enabled": "nvmlDeviceGetMigMode",
    "mig_attributes": "nvmlDeviceGetAttributes",
}


class _FakeDevice:
    """A simulated GPU; each question is answered by the member of `FakeGpu` of its name, except those below."""

    def __init__(self, gpu: FakeGpu, cut: MigAttributes | None = None) -> None:
        self._gpu = gpu
        self._cut = cut

    def uuid(self) -> str:
        return _ask(self._gpu, "nvmlDeviceGetUUID", self._gpu.uuid)

    def ask(self, question: str) -> Any:
        gpu, total = self._gpu, self._gpu.memory_total_bytes
        answers: dict[str, Any] = {
            "memory": None if total is None else Memory(total, max(0, total - gpu.memory_used_bytes)),
            "compute": _of_kind(gpu.processes, ProcessKind.COMPUTE),
            "graphics": _of_kind(gpu.processes, ProcessKind.GRAPHICS),
            "mig_enabled": gpu.mig is not None,
            "mig_attributes": self._cut,
        }
        answer = answers[question] if question in answers else getattr(gpu, question)
        return _ask(gpu, _FUNCTIONS[question], answer)

    def mig_instances(self) -> Sequence[DriverDevice]:
        instances = _ask(self._gpu, "nvmlDeviceGetMigDeviceHandleByIndex", self._gpu.mig or ())
        return [_instance_of(self._gpu, instance) for instance in instances]


def _instance_of(parent: FakeGpu, instance: FakeInstance) -> _FakeDevice:
    """An instance is asked as a GPU of its size; counters and modes are its parent's."""
    gpu = FakeGpu(
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
    return _FakeDevice(gpu, MigAttributes(instance.profile, instance.encoders))


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


def _of_kind(processes: Sequence[FakeProcess] | None, kind: ProcessKind) -> Sequence[DeviceProcess] | None:
    if processes is None:
        return None
    return [DeviceProcess(p.pid, p.kind, p.used_memory_bytes, p.name) for p in processes if p.kind is kind]
