"""Choose where a node's devices come from."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from footlights.devices import answers
from footlights.devices.reading import DeviceHealth, DeviceInventory, DeviceReading, HealthReason
from footlights.devices.software import SoftwareDevices

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.devices.reading import Devices

_FILE = "fake:"


def detect(
    choice: str = "auto",
    *,
    identity: str | None = None,
    software_count: int | None = None,
    patience_s: float = 5.0,
) -> Devices:
    """Make the devices that an operator chose; no driver is asked yet.

    ``auto``: NVIDIA's GPUs as soon as and as long as the driver knows any, and software renderers. ``nvml``: only GPUs.
    ``software``. ``fake:FILE``: simulated. The uuids of software and simulated devices are made from ``identity``.
    ``patience_s``: how long ``auto`` waits for a driver before it offers what needs none.
    Raises ValueError, OSError (the file) or ImportError (the NVML binding).
    """
    if not is_choice(choice):
        raise ValueError(f"unknown choice {choice!r}; choose from auto, nvml, software and fake:FILE")
    if choice == "auto":
        return AutoDevices(_nvml, _software(identity, software_count, ()), patience_s=patience_s)
    if choice == "nvml":
        return _nvml()
    if choice == "software":
        return _software(identity, software_count, ("software renderers, as asked for",))
    from footlights.devices.fake import FakeDevices  # each source is imported where it is used: a command asks first

    path = Path(choice.removeprefix(_FILE)).expanduser()
    return FakeDevices(path, machine=identity or "fake", note=f"simulated GPUs from {path}")


def is_choice(choice: str) -> bool:
    """Whether ``detect`` knows a choice."""
    return choice in ("auto", "nvml", "software") or (choice.startswith(_FILE) and choice != _FILE)


def _nvml() -> Devices:
    from footlights.devices.nvml.driver import NvmlDevices  # its binding may be the wrong one

    return NvmlDevices()


class AutoDevices:
    """`Devices` of which some need a driver and others none: GPUs, and software renderers for what needs no GPU.

    A driver that comes late is found; one that hangs holds up neither the software renderers nor the caller for longer
    than ``patience_s``, and its GPUs are shown as they were last seen, as unhealthy. Raises ValueError for a count of
    software renderers below 1.
    """

    def __init__(
        self,
        make_gpus: Callable[[], Devices],
        software: Devices,
        *,
        patience_s: float = 5.0,
        again_s: float = 10.0,
    ) -> None:
        """Ask nothing yet. ``again_s``: how often a driver is looked for that has no GPU."""
        self._make_gpus = make_gpus
        self._software = software
        self._patience_s, self._again_s = patience_s, again_s
        self._gpus: Devices | None = None
        self._changing = threading.Lock()
        self._reader: threading.Thread | None = None
        self._found = DeviceInventory((), notes=("the NVIDIA driver was not asked yet",))
        self._looked_at: float | None = None

    def read(self) -> DeviceInventory:
        """Every device: GPUs first."""
        gpus, software = self._read_gpus(), self._software.read()
        said = software.notes if gpus.devices else ("no GPU to offer: software renderers are offered",)
        return DeviceInventory(
            (*gpus.devices, *software.devices), gpus.driver_version, gpus.library_version, (*gpus.notes, *said)
        )

    def read_one(self, uuid: str) -> DeviceReading:
        """One device. A software renderer needs no driver."""
        try:
            return self._software.read_one(uuid)
        except LookupError:
            if self._gpus is None:
                raise
        return self._gpus.read_one(uuid)

    def forget(self, uuid: str) -> None:
        """Stop reporting a lost GPU."""
        if self._gpus is not None:
            self._gpus.forget(uuid)

    def close(self) -> None:
        """Close the driver."""
        if self._gpus is not None:
            self._gpus.close()

    def _read_gpus(self) -> DeviceInventory:
        with self._changing:
            stuck = self._reader is not None and self._reader.is_alive()
            reader = self._reader
            if not stuck and self._is_due():
                reader = threading.Thread(target=self._ask, name="footlights-gpus", daemon=True)
                self._reader = reader
                reader.start()
        if reader is not None and not stuck:
            reader.join(self._patience_s)
        if reader is None or not reader.is_alive():
            return self._found
        return self._silent()

    def _is_due(self) -> bool:
        # Opening a driver that is not there, every other second, would fill the kernel's log. One that is there is
        # always asked: two readings without a GPU are taken for its loss, and must be two.
        return bool(self._found.devices) or self._found.driver_version is not None or self._is_time()

    def _is_time(self) -> bool:
        return self._looked_at is None or time.monotonic() - self._looked_at >= self._again_s

    def _ask(self) -> None:
        try:
            if self._gpus is None:
                self._gpus = self._make_gpus()
            found = self._gpus.read()
        except Exception as error:
            found = self._shown(f"the GPUs cannot be read: {error or type(error).__name__}")
        if not found.devices and self._is_time():
            self._looked_at = time.monotonic()
            if self._gpus is not None:
                self._gpus.close()  # a driver that is opened does not see GPUs that come
        if not found.devices:
            found = replace(found, notes=found.notes or ("the NVIDIA driver lists no GPU",))
        self._found = found

    def _silent(self) -> DeviceInventory:
        return self._shown("the NVIDIA driver does not answer; it may hang, see dmesg")

    def _shown(self, why: str) -> DeviceInventory:
        """The GPUs as they were last seen, which nobody can use now. Without a version: it is no proof of a loss."""
        reason = HealthReason("DRIVER_SILENT", why)
        known = tuple(
            reading
            if reading.health is DeviceHealth.LOST
            else answers.last_known(reading, DeviceHealth.UNHEALTHY, reason)
            for reading in self._found.devices
        )
        return DeviceInventory(known, notes=(why,))


def _software(identity: str | None, software_count: int | None, notes: tuple[str, ...]) -> Devices:
    return SoftwareDevices(software_count, identity=identity, notes=notes)
