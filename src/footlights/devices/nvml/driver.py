"""Opens NVML, enumerates its GPUs, and collects their critical errors."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import pynvml

from footlights.devices.driver import DriverDevice, DriverError, DriverGoneError, Unanswered, UnsupportedError
from footlights.devices.foreign import pids_are_the_hosts
from footlights.devices.kinds import DeviceKind
from footlights.devices.nvml.device import CODES, NvmlDevice, address_of
from footlights.devices.tracker import TrackedDevices, TrackingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_log = logging.getLogger(__name__)

_NEEDED = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlMemory_v2", "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION")
_UNSUPPORTED = frozenset({"NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "DEPRECATED", "ARGUMENT_VERSION_MISMATCH"})
_GONE = {
    "LIBRARY_NOT_FOUND": "no NVIDIA driver on this machine: libnvidia-ml.so.1 is not found",
    "DRIVER_NOT_LOADED": "the NVIDIA driver is installed but not loaded: modprobe nvidia, then see dmesg",
    "LIB_RM_VERSION_MISMATCH": "the NVIDIA driver was replaced while it was loaded: restart this machine",
    "UNINITIALIZED": "the NVIDIA driver was restarted",
    "NO_PERMISSION": "the NVIDIA driver refuses this user: it needs access to /dev/nvidia*",
}
_PROCESS_LISTS = ("_v3", "_v2", "")
_MAX_XIDS_A_READ = 256


class NvmlDevices(TrackedDevices):
    """This machine's NVIDIA GPUs and MIG instances. Raises ImportError where the module ``pynvml`` is not NVIDIA's.

    ``pids_visible``: whether the driver's pids are ours, found out when not given; processes have names only then.
    """

    def __init__(self, *, pids_visible: bool | None = None, **tracking: Unpack[TrackingSettings]) -> None:
        complaint = wrong_binding(pynvml)
        if complaint:
            raise ImportError(complaint)
        visible = pids_are_the_hosts() is True if pids_visible is None else pids_visible
        super().__init__(NvmlDriver(visible), gpu_kind=DeviceKind.GPU, instance_kind=DeviceKind.MIG, **tracking)


def wrong_binding(module: Any) -> str | None:
    """What to do about a ``pynvml`` that is not NVIDIA's: several distributions install a module of that name."""
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
        """Open NVML's library, and learn its versions."""
        if self._open:
            return
        self._call(pynvml.nvmlInit, gone_if_failed=True)
        self._open = True
        self._driver_version = self._text(pynvml.nvmlSystemGetDriverVersion)
        self._library_version = self._text(pynvml.nvmlSystemGetNVMLVersion)
        self._create_events()

    def close(self) -> None:
        """Let go of the library."""
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
        """The driver's and the library's."""
        return self._driver_version, self._library_version

    def gpus(self) -> Sequence[DriverDevice | Unanswered]:
        """The GPUs in the driver's order."""
        found: list[DriverDevice | Unanswered] = []
        for index in range(self._call(pynvml.nvmlDeviceGetCount)):
            try:
                handle = self._call(pynvml.nvmlDeviceGetHandleByIndex, index)
            except DriverError as error:
                found.append(Unanswered(index, error))
            else:
                gpu = NvmlDevice(handle, self._call, self._process_name, self._process_lists())
                self._listen(gpu)
                found.append(gpu)
        return found

    def critical_events(self) -> Sequence[tuple[str, int]]:
        """The XIDs that were queued since the last call."""
        found: list[tuple[str, int]] = []
        while self._events is not None and len(found) < _MAX_XIDS_A_READ:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    _log.warning("reading NVML events: %s", error)
                break
            uuid = self._listened.get(address_of(event.device))
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError and uuid is not None:
                found.append((uuid, int(event.eventData)))
        return found

    def notes(self) -> Sequence[str]:
        """Which functions this driver does not have."""
        return [f"driver {self._driver_version or '?'} does not know {name}" for name in self._absent]

    def _create_events(self) -> None:
        self._listened = {}
        try:
            self._events = self._call(pynvml.nvmlEventSetCreate)
        except DriverError as error:
            _log.info("critical errors are not reported by events: %s", error)

    def _listen(self, gpu: NvmlDevice) -> None:
        if self._events is None or gpu.address in self._listened:
            return
        try:
            uuid = gpu.uuid()
            self._listened[gpu.address] = uuid
            gpu.report_xids_to(self._events)
        except DriverError as error:
            _log.info("a GPU does not report its critical errors: %s", error)

    def _process_name(self, pid: int) -> str | None:
        if not self._pids_visible:
            return None
        try:
            return _program(self._call(pynvml.nvmlSystemGetProcessName, pid))
        except DriverError:
            return None

    def _process_lists(self) -> Sequence[str]:
        # From 535.43 to before 535.98 the third version of the list has another layout than before and after.
        version = re.match(r"535\.(\d+)", self._driver_version or "")
        return _PROCESS_LISTS[1:] if version and 43 <= int(version[1]) < 98 else _PROCESS_LISTS

    def _text(self, function: Callable[[], Any]) -> str | None:
        try:
            return str(self._call(function))
        except DriverError:
            return None

    def _call(self, function: Callable[..., T], *arguments: object, gone_if_failed: bool = False) -> T:
        """Every call to NVML goes through here."""
        name = getattr(function, "__name__", str(function))
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            code = CODES.get(error.value, str(error.value))
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


def _program(process_name: str) -> str:
    """A program's short name from what NVML gives, which is its path and sometimes arguments."""
    return process_name.split(" -", 1)[0].replace("\\", "/").rsplit("/", 1)[-1][:64]
