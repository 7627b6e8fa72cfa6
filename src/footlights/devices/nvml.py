"""NVIDIA's GPUs, through NVML and its own Python binding (the distribution ``nvidia-ml-py``).

Reference: NVIDIA, *NVML API Reference Guide*. Everything is asked by UUID or handle and nothing is kept
between reads but the open library. The library is opened at the first read, not at import: an agent on a
laptop must start.
"""

from __future__ import annotations

import ctypes
import logging
import re
from typing import TYPE_CHECKING, Any

import pynvml

from footlights.devices import pids
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
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceProcess, ProcessKind
from footlights.devices.tracker import TrackedDevices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)

_NEEDED = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlMemory_v2", "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION")
_CODES: dict[int, str] = {
    getattr(pynvml, name): name.removeprefix("NVML_ERROR_") for name in dir(pynvml) if name.startswith("NVML_ERROR_")
}
_UNSUPPORTED = frozenset({"NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "DEPRECATED", "ARGUMENT_VERSION_MISMATCH"})
_GONE = {
    "LIBRARY_NOT_FOUND": "no NVIDIA driver on this machine: libnvidia-ml.so.1 is not found",
    "DRIVER_NOT_LOADED": "the NVIDIA driver is installed but not loaded: modprobe nvidia, then see dmesg",
    "LIB_RM_VERSION_MISMATCH": "the NVIDIA driver was replaced while it was loaded: restart this machine",
    "UNINITIALIZED": "the NVIDIA driver was restarted",
    "NO_PERMISSION": "the NVIDIA driver refuses this user: it needs access to /dev/nvidia*",
}
_PROCESS_LISTS = ("_v3", "_v2", "")
_GRAPHICS_FORBIDDEN_MODE = 1
"""NVML_GOM_COMPUTE."""
_MAX_XIDS_A_READ = 256


class NvmlDevices(TrackedDevices):
    """This machine's NVIDIA GPUs and MIG instances.

    Args:
        pids_visible: whether the driver's pids are ours; found out when not given. Processes have names only
        then. **tracking: see `TrackedDevices`.

    Raises:
        ImportError: the module ``pynvml`` is not NVIDIA's; says how to put that right.
    """

    def __init__(self, *, pids_visible: bool | None = None, **tracking: Any) -> None:
        complaint = wrong_binding(pynvml)
        if complaint:
            raise ImportError(complaint)
        visible = pids.are_the_hosts() is True if pids_visible is None else pids_visible
        super().__init__(NvmlDriver(visible), gpu_kind=DeviceKind.GPU, instance_kind=DeviceKind.MIG, **tracking)


def wrong_binding(module: Any) -> str | None:
    """What to do about a ``pynvml`` that is not NVIDIA's: several distributions install a module of that
    name.
    """
    absent = [name for name in _NEEDED if not hasattr(module, name)]
    if not absent:
        return None
    return (
        f"the Python module pynvml at {getattr(module, '__file__', '?')} is not that of nvidia-ml-py >= 13 "
        f"(it lacks {absent[0]}): "
        "pip uninstall -y pynvml nvidia-ml-py3 nvidia-ml-py && pip install 'nvidia-ml-py>=13.580'"
    )


class NvmlDriver:
    """`Driver` over NVML."""

    def __init__(self, pids_visible: bool) -> None:
        self._pids_visible = pids_visible
        self._open = False
        self._events: Any = None
        self._listened: dict[int | None, str] = {}
        """Uuid by the address of the handle that events carry: a GPU that is lost may not say its own any more."""
        self._absent: dict[str, None] = {}
        self._driver_version: str | None = None
        self._library_version: str | None = None

    def open(self) -> None:
        if self._open:
            return
        self._call(pynvml.nvmlInit, gone_if_failed=True)
        self._open = True
        self._driver_version = self._text(pynvml.nvmlSystemGetDriverVersion)
        self._library_version = self._text(pynvml.nvmlSystemGetNVMLVersion)
        self._create_events()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            if self._events is not None:
                pynvml.nvmlEventSetFree(self._events)
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            _log.debug("closing NVML: %s", error)
        self._events = None

    def versions(self) -> tuple[str | None, str | None]:
        return self._driver_version, self._library_version

    def gpus(self) -> Sequence[DriverDevice | Unanswered]:
        found: list[DriverDevice | Unanswered] = []
        for index in range(self._call(pynvml.nvmlDeviceGetCount)):
            try:
                handle = self._call(pynvml.nvmlDeviceGetHandleByIndex, index)
            except DriverGoneError:
                raise
            except DriverError as error:
                found.append(Unanswered(index, error))
            else:
                gpu = NvmlDevice(handle, self._call, self._process_name, self._process_lists())
                self._listen(gpu)
                found.append(gpu)
        return found

    def critical_events(self) -> Sequence[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        while self._events is not None and len(found) < _MAX_XIDS_A_READ:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    _log.warning("reading NVML events: %s", error)
                break
            uuid = self._listened.get(_address(event.device))
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError and uuid is not None:
                found.append((uuid, int(event.eventData)))
        return found

    def notes(self) -> Sequence[str]:
        return [f"driver {self._driver_version or '?'} does not know {name}" for name in self._absent]

    def _create_events(self) -> None:
        self._listened = {}
        try:
            self._events = self._call(pynvml.nvmlEventSetCreate)
        except DriverGoneError:
            raise
        except DriverError as error:
            _log.info("critical errors are not reported by events: %s", error)

    def _listen(self, gpu: NvmlDevice) -> None:
        if self._events is None or gpu.address in self._listened:
            return
        try:
            uuid = gpu.uuid()
            self._listened[gpu.address] = uuid
            gpu.report_xids_to(self._events)
        except DriverGoneError:
            raise
        except DriverError as error:
            _log.info("a GPU does not report its critical errors: %s", error)

    def _process_name(self, pid: int) -> str | None:
        if not self._pids_visible:
            return None
        try:
            return _program(self._call(pynvml.nvmlSystemGetProcessName, pid))
        except DriverGoneError:
            raise
        except DriverError:
            return None

    def _process_lists(self) -> Sequence[str]:
        # From 535.43 to before 535.98 the third version of the list has another layout than before and after.
        version = re.match(r"535\.(\d+)", self._driver_version or "")
        return _PROCESS_LISTS[1:] if version and 43 <= int(version[1]) < 98 else _PROCESS_LISTS

    def _text(self, function: Callable[[], Any]) -> str | None:
        try:
            return str(self._call(function))
        except DriverGoneError:
            raise
        except DriverError:
            return None

    def _call(self, function: Callable[..., Any], *arguments: Any, gone_if_failed: bool = False) -> Any:
        """Every call to NVML goes through here."""
        name = getattr(function, "__name__", str(function))
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            code = _CODES.get(error.value, str(error.value))
            if code == "FUNCTION_NOT_FOUND" and name not in self._absent:
                self._absent[name] = None
                _log.info("driver %s does not know %s", self._driver_version, name)
            if gone_if_failed or (code in _GONE and code != "NO_PERMISSION"):
                raise DriverGoneError(name, code, _GONE.get(code, str(error))) from error
            if code in _UNSUPPORTED:
                raise UnsupportedError(name, code, str(error)) from error
            raise DriverError(name, code, str(error)) from error
        except UnicodeDecodeError as error:  # seen from boards that are failing
            raise DriverError(name, "GARBLED", "the driver's text is not readable") from error


class NvmlDevice:
    """`Device` over one NVML handle, of a GPU or of a MIG instance."""

    def __init__(
        self,
        handle: Any,
        call: Callable[..., Any],
        process_name: Callable[[int], str | None],
        process_lists: Sequence[str],
    ) -> None:
        self._handle = handle
        self._call = call
        self._process_name = process_name
        self._process_lists = process_lists

    @property
    def address(self) -> int | None:
        """Which device a handle stands for."""
        return _address(self._handle)

    def uuid(self) -> str:
        return str(self._ask(pynvml.nvmlDeviceGetUUID))

    def name(self) -> str:
        return str(self._ask(pynvml.nvmlDeviceGetName))

    def pci_bus_id(self) -> str:
        bus_id = self._ask(pynvml.nvmlDeviceGetPciInfo_v3).busId
        return bus_id.decode() if isinstance(bus_id, bytes) else str(bus_id)

    def memory(self) -> Memory:
        try:
            answer = self._ask(_memory_v2)
        except UnsupportedError:
            answer = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        return Memory(total=int(answer.total), free=int(answer.free))

    def utilization_percent(self) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetUtilizationRates).gpu)

    def encoder_sessions(self) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetEncoderStats)[0])

    def encoder_capacity(self) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetEncoderCapacity, pynvml.NVML_ENCODER_QUERY_H264))

    def graphics_allowed(self) -> bool:
        return bool(self._ask(pynvml.nvmlDeviceGetGpuOperationMode)[0] != _GRAPHICS_FORBIDDEN_MODE)

    def compute_processes(self) -> Sequence[DeviceProcess]:
        return self._processes("nvmlDeviceGetComputeRunningProcesses", ProcessKind.COMPUTE)

    def graphics_processes(self) -> Sequence[DeviceProcess]:
        return self._processes("nvmlDeviceGetGraphicsRunningProcesses", ProcessKind.GRAPHICS)

    def ecc_corrected(self) -> int:
        return self._ecc(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED)

    def ecc_uncorrected(self) -> int:
        return self._ecc(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)

    def retired_pages(self) -> int:
        causes = range(pynvml.NVML_PAGE_RETIREMENT_CAUSE_COUNT)
        return sum(len(self._ask(pynvml.nvmlDeviceGetRetiredPages, cause)) for cause in causes)

    def retired_pages_pending(self) -> bool:
        return bool(self._ask(pynvml.nvmlDeviceGetRetiredPagesPendingStatus))

    def remapped_rows(self) -> RemappedRows:
        correctable, uncorrectable, pending, failed = self._ask(pynvml.nvmlDeviceGetRemappedRows)
        return RemappedRows(correctable, uncorrectable, bool(pending), bool(failed))

    def recovery_action(self) -> str:
        [field] = self._ask(pynvml.nvmlDeviceGetFieldValues, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            code = _CODES.get(field.nvmlReturn, str(field.nvmlReturn))
            raise UnsupportedError("nvmlDeviceGetFieldValues", code)
        return _RECOVERY_ACTIONS.get(field.value.uiVal, str(field.value.uiVal))

    def mig_enabled(self) -> bool:
        return bool(self._ask(pynvml.nvmlDeviceGetMigMode)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)

    def mig_instances(self) -> Sequence[NvmlDevice]:
        found: list[NvmlDevice] = []
        for position in range(self._ask(pynvml.nvmlDeviceGetMaxMigDeviceCount)):
            try:
                handle = self._ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, position)
            except DriverError as error:
                if error.code != "NOT_FOUND":  # a position where no instance was made
                    raise
            else:
                found.append(NvmlDevice(handle, self._call, self._process_name, self._process_lists))
        return found

    def mig_attributes(self) -> MigAttributes:
        cut = self._ask(pynvml.nvmlDeviceGetAttributes_v2)
        try:
            named = re.search(r" MIG (\S+)$", self.name())
        except UnsupportedError:
            named = None
        return MigAttributes(profile=named[1] if named else _profile(cut), encoders=int(cut.sharedEncoderCount))

    def report_xids_to(self, events: Any) -> None:
        """Have the driver queue this GPU's critical errors."""
        self._call(pynvml.nvmlDeviceRegisterEvents, self._handle, pynvml.nvmlEventTypeXidCriticalError, events)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._call(function, self._handle, *arguments)

    def _ecc(self, severity: int) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetTotalEccErrors, severity, pynvml.NVML_VOLATILE_ECC))

    def _processes(self, function: str, kind: ProcessKind) -> Sequence[DeviceProcess]:
        refusal: UnsupportedError | None = None
        for version in self._process_lists:
            question = getattr(pynvml, function + version) if version else _first_version(function)
            try:
                rows = self._ask(question)
            except UnsupportedError as error:
                refusal = error
                if error.code == "FUNCTION_NOT_FOUND":
                    continue
                break
            return [DeviceProcess(row.pid, kind, row.usedGpuMemory, self._process_name(row.pid)) for row in rows]
        assert refusal is not None
        raise refusal


_RECOVERY_ACTIONS: dict[int, str] = {
    getattr(pynvml, name): name.removeprefix("NVML_GPU_RECOVERY_ACTION_")
    for name in dir(pynvml)
    if name.startswith("NVML_GPU_RECOVERY_ACTION_")
}


class _FirstProcessInfo(ctypes.Structure):
    """``nvmlProcessInfo_v1_t``; the binding knows only its successors."""

    _fields_ = (("pid", ctypes.c_uint), ("usedGpuMemory", ctypes.c_ulonglong))


class _ProcessRow:
    def __init__(self, raw: _FirstProcessInfo) -> None:
        self.pid = int(raw.pid)
        unknown = raw.usedGpuMemory == pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value
        self.usedGpuMemory = None if unknown else int(raw.usedGpuMemory)


def _first_version(function: str) -> Callable[[Any], Sequence[_ProcessRow]]:
    """The process list as drivers before 450 answer it: without MIG."""

    def ask(handle: Any) -> Sequence[_ProcessRow]:
        entry = pynvml._nvmlGetFunctionPointer(function)  # noqa: SLF001 - raises FunctionNotFound as the others do
        count = ctypes.c_uint(0)
        status = entry(handle, ctypes.byref(count), None)
        while status == pynvml.NVML_ERROR_INSUFFICIENT_SIZE:
            count.value = count.value * 2 + 5  # more may have come since it was counted
            rows = (_FirstProcessInfo * count.value)()
            status = entry(handle, ctypes.byref(count), rows)
            if status == pynvml.NVML_SUCCESS:
                return [_ProcessRow(row) for row in rows[: count.value]]
        if status != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(status)
        return []

    ask.__name__ = function
    return ask


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _memory_v2(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)


_memory_v2.__name__ = "nvmlDeviceGetMemoryInfo_v2"


def _profile(cut: Any) -> str:
    """A MIG profile's name from what was cut: ``1c.2g.10gb`` where a compute instance has part of its GPU
    instance.
    """
    compute = "" if cut.computeInstanceSliceCount == cut.gpuInstanceSliceCount else f"{cut.computeInstanceSliceCount}c."
    gigabytes = round(cut.memorySizeMB / 1024)
    return f"{compute}{cut.gpuInstanceSliceCount}g.{gigabytes}gb"


def _program(process_name: str) -> str:
    """A program's short name from what NVML gives, which is its path and sometimes arguments."""
    return process_name.split(" -", 1)[0].replace("\\", "/").rsplit("/", 1)[-1][:64]
