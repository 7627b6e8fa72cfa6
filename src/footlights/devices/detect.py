"""Choose where a node's devices come from."""

from __future__ import annotations

from pathlib import Path

from footlights.devices.fake import FakeDevices
from footlights.devices.reading import DeviceInventory, DeviceReading, Devices
from footlights.devices.software import SoftwareDevices


def detect(choice: str = "auto", *, identity: str | None = None, software_count: int | None = None) -> Devices:
    """Make the devices that an operator chose.

    ``auto``: NVIDIA's GPUs where the driver has at least one, else software renderers; decided once, so that
    a node whose driver fails later says so instead of changing its nature. ``nvml``: only GPUs, and a note
    where there are none. ``software``. ``fake:FILE``: simulated, see `fake`.

    Args:
        choice: as above.
        identity: what the uuids of software and simulated devices are made from; an agent gives its node's name.
        software_count: how many software renderers; by default one a core.

    Raises:
        ValueError: an unknown choice, or a bad file.
        OSError: the file cannot be read.
        ImportError: for ``nvml``, the wrong Python binding is installed.
    """
    if choice == "auto":
        return _auto(identity, software_count)
    if choice == "nvml":
        return _nvml()
    if choice == "software":
        note = "software renderers, as asked for"
        return _Noted(SoftwareDevices(software_count, identity=identity), (note,))
    if choice.startswith("fake:") and len(choice) > len("fake:"):
        path = Path(choice.removeprefix("fake:")).expanduser()
        note = f"simulated GPUs from {path}"
        return _Noted(FakeDevices(path, machine=identity or "fake"), (note,))
    raise ValueError(f"devices {choice!r}: give auto, nvml, software or fake:FILE")


def _nvml() -> Devices:
    from footlights.devices.nvml.driver import NvmlDevices  # its binding may be the wrong one

    return NvmlDevices()


def _auto(identity: str | None, software_count: int | None) -> Devices:
    try:
        devices = _nvml()
        found = devices.read()
    except (ImportError, TimeoutError) as error:
        why = [str(error)]
    else:
        if found.devices:
            return devices
        devices.close()
        why = list(found.notes) or ["the NVIDIA driver lists no GPU"]
    notes = (*why, "no GPU to offer: software renderers are offered instead")
    return _Noted(SoftwareDevices(software_count, identity=identity), notes)


class _Noted:
    """Devices, with notes on why it is these."""

    def __init__(self, devices: Devices, notes: tuple[str, ...]) -> None:
        self._devices = devices
        self._notes = notes

    def read(self) -> DeviceInventory:
        found = self._devices.read()
        return DeviceInventory(found.devices, found.driver_version, found.library_version, (*self._notes, *found.notes))

    def read_one(self, uuid: str) -> DeviceReading:
        return self._devices.read_one(uuid)

    def forget(self, uuid: str) -> None:
        self._devices.forget(uuid)

    def close(self) -> None:
        self._devices.close()
