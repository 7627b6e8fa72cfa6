"""Software renderers: how a machine without a GPU takes sessions."""

from __future__ import annotations

import os
import platform
import uuid
from pathlib import Path

from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceInventory, DeviceReading

_NAMESPACE = uuid.UUID("b3a0c5de-4a55-5f0f-8f0a-7d1f6f2f9c01")


class SoftwareDevices:
    """`Devices` that draw and encode on the CPU, by default one a core. Raises ValueError for a count below 1.

    ``encoder`` is False, since it means a hardware encoder; memory is None, since no share of the machine's belongs to
    a renderer. Their uuids are made from ``identity`` (an agent's node name), by default from the machine's id.
    """

    def __init__(self, count: int | None = None, *, identity: str | None = None, notes: tuple[str, ...] = ()) -> None:
        if count is not None and count < 1:
            raise ValueError(f"software devices must be at least 1 (got {count})")
        identity = identity or _machine_id()
        self._notes = notes
        self._readings = tuple(
            DeviceReading(
                uuid=f"SOFT-{uuid.uuid5(_NAMESPACE, f'{identity}/{index}')}",
                kind=DeviceKind.SOFTWARE,
                name="Software renderer",
                index=index,
                processes=(),
                encoder=False,
                note="renders on the CPU",
            )
            for index in range(count or _cores())
        )

    def read(self) -> DeviceInventory:
        """Every renderer: they never change."""
        return DeviceInventory(self._readings, notes=self._notes)

    def read_one(self, uuid: str) -> DeviceReading:
        """One renderer. Raises LookupError."""
        for reading in self._readings:
            if reading.uuid == uuid:
                return reading
        raise LookupError(f"no device {uuid} on this machine")

    def forget(self, uuid: str) -> None:
        """Nothing to do: a software renderer is never lost."""

    def close(self) -> None:
        """Nothing to release."""


def _cores() -> int:
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1


def _machine_id() -> str:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            found = path.read_text().strip()
        except OSError:
            continue
        if found:
            return found
    return platform.node() or "localhost"
