"""Choose where a node's devices come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from footlights.devices.reading import Devices

_FILE = "fake:"


def detect(choice: str = "auto", *, identity: str | None = None, software_count: int | None = None) -> Devices:
    """Make the devices that an operator chose. Raises ValueError, OSError (the file) or ImportError (the NVML binding).

    ``auto``: NVIDIA's GPUs where the driver has at least one, else software renderers; decided once, so that a node
    whose driver fails later says so instead of changing its nature. ``nvml``: only GPUs. ``software``. ``fake:FILE``:
    simulated. The uuids of software and simulated devices are made from ``identity``.
    """
    if not is_choice(choice):
        raise ValueError(f"unknown choice {choice!r}; choose from auto, nvml, software and fake:FILE")
    if choice == "auto":
        return _auto(identity, software_count)
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
    return _software(identity, software_count, notes)


def _software(identity: str | None, software_count: int | None, notes: tuple[str, ...]) -> Devices:
    from footlights.devices.software import SoftwareDevices

    return SoftwareDevices(software_count, identity=identity, notes=notes)
