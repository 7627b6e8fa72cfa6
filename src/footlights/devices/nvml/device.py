"""One GPU or MIG instance, asked through NVML."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import pynvml

from footlights.devices.driver import DriverError, Memory, MigAttributes, RemappedRows, UnsupportedError
from footlights.devices.reading import DeviceProcess, ProcessKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
Handle: TypeAlias = ctypes.c_void_p

CODES: Final[dict[int, str]] = {
    getattr(pynvml, name): name.removeprefix("NVML_ERROR_") for name in dir(pynvml) if name.startswith("NVML_ERROR_")
}
_GRAPHICS_FORBIDDEN_MODE = 1
"""NVML_GOM_COMPUTE."""


class NvmlCall(Protocol):
    """Calls a function of NVML, and turns its error into a `DriverError`."""

    def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """Call ``function``."""


class NvmlDevice:
    """`Device` over one NVML handle, of a GPU or of a MIG instance."""

    def __init__(
        self,
        handle: Handle,
        call: NvmlCall,
        process_name: Callable[[int], str | None],
        process_lists: Sequence[str],
    ) -> None:
        self._handle = handle
        self.address = address_of(handle)
        self._call = call
        self._process_name = process_name
        self._process_lists = process_lists

    def uuid(self) -> str:
        """Who the device is."""
        return str(self._ask(pynvml.nvmlDeviceGetUUID))

    def ask(self, question: str) -> Any:
        """Put one question to the driver."""
        return getattr(self, f"_ask_{question}")()

    def _ask_name(self) -> str:
        return str(self._ask(pynvml.nvmlDeviceGetName))

    def _ask_pci_bus_id(self) -> str:
        bus_id = self._ask(pynvml.nvmlDeviceGetPciInfo_v3).busId
        return bus_id.decode() if isinstance(bus_id, bytes) else str(bus_id)

    def _ask_memory(self) -> Memory:
        try:
            answer = self._ask(_memory_v2)
        except UnsupportedError:
            answer = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        return Memory(total=int(answer.total), free=int(answer.free))

    def _ask_utilization_percent(self) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetUtilizationRates).gpu)

    def _ask_encoder_sessions(self) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetEncoderStats)[0])

    def _ask_encoder_capacity(self) -> int:
        return int(self._ask(pynvml.nvmlDeviceGetEncoderCapacity, pynvml.NVML_ENCODER_QUERY_H264))

    def _ask_graphics_allowed(self) -> bool:
        return bool(self._ask(pynvml.nvmlDeviceGetGpuOperationMode)[0] != _GRAPHICS_FORBIDDEN_MODE)

    def _ask_compute(self) -> Sequence[DeviceProcess]:
        return self._processes("nvmlDeviceGetComputeRunningProcesses", ProcessKind.COMPUTE)

    def _ask_graphics(self) -> Sequence[DeviceProcess]:
        return self._processes("nvmlDeviceGetGraphicsRunningProcesses", ProcessKind.GRAPHICS)

    def _ask_ecc_corrected(self) -> int:
        return self._ecc(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED)

    def _ask_ecc_uncorrected(self) -> int:
        return self._ecc(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)

    def _ask_retired_pages(self) -> int:
        causes = range(pynvml.NVML_PAGE_RETIREMENT_CAUSE_COUNT)
        return sum(len(self._ask(pynvml.nvmlDeviceGetRetiredPages, cause)) for cause in causes)

    def _ask_retired_pages_pending(self) -> bool:
        return bool(self._ask(pynvml.nvmlDeviceGetRetiredPagesPendingStatus))

    def _ask_remapped_rows(self) -> RemappedRows:
        correctable, uncorrectable, pending, failed = self._ask(pynvml.nvmlDeviceGetRemappedRows)
        return RemappedRows(correctable, uncorrectable, bool(pending), bool(failed))

    def _ask_recovery_action(self) -> str:
        [field] = self._ask(pynvml.nvmlDeviceGetFieldValues, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            code = CODES.get(field.nvmlReturn, str(field.nvmlReturn))
            raise UnsupportedError("nvmlDeviceGetFieldValues", code)
        return _RECOVERY_ACTIONS.get(field.value.uiVal, str(field.value.uiVal))

    def _ask_mig_enabled(self) -> bool:
        return bool(self._ask(pynvml.nvmlDeviceGetMigMode)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)

    def mig_instances(self) -> Sequence[NvmlDevice]:
        """The instances that a GPU in MIG mode is cut into."""
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

    def _ask_mig_attributes(self) -> MigAttributes:
        cut = self._ask(pynvml.nvmlDeviceGetAttributes_v2)
        try:
            named = re.search(r" MIG (\S+)$", self._ask_name())
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


def address_of(handle: Handle) -> int | None:
    """Which device a handle stands for."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _memory_v2(handle: Handle) -> Any:
    return pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)


_memory_v2.__name__ = "nvmlDeviceGetMemoryInfo_v2"


def _profile(cut: Any) -> str:
    """A MIG profile's name: ``1c.2g.10gb`` where a compute instance has part of its GPU instance."""
    compute = "" if cut.computeInstanceSliceCount == cut.gpuInstanceSliceCount else f"{cut.computeInstanceSliceCount}c."
    gigabytes = round(cut.memorySizeMB / 1024)
    return f"{compute}{cut.gpuInstanceSliceCount}g.{gigabytes}gb"
