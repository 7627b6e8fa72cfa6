"""May a launch start on a device."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.devices.admission import Need, admit
from footlights.devices.foreign import Foreign, Occupancy
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceHealth, DeviceProcess, DeviceReading, HealthReason, ProcessKind

GIB = 1 << 30
L40S = DeviceReading("GPU-a", DeviceKind.GPU, "NVIDIA L40S", 0, memory_total_bytes=48 * GIB, memory_free_bytes=47 * GIB)
SOFTWARE = DeviceReading("SOFT-a", DeviceKind.SOFTWARE, "Software renderer", 0, encoder=False)
RESET = (HealthReason("RESET_REQUIRED", "reset it"),)


@pytest.mark.parametrize(
    ("base", "changes", "need", "refusal"),
    [
        (L40S, {}, Need(), None),
        (L40S, {}, Need(47 * GIB, graphics=True, encoder=True, hardware=True), None),
        (L40S, {"health": DeviceHealth.DEGRADED, "health_reasons": RESET}, Need(), None),
        (
            L40S,
            {"health": DeviceHealth.UNHEALTHY, "health_reasons": RESET},
            Need(),
            "UNHEALTHY RESET_REQUIRED: reset it",
        ),
        (L40S, {"health": DeviceHealth.LOST}, Need(), "LOST"),
        (L40S, {"memory_free_bytes": 11 * GIB}, Need(16 * GIB), "MEMORY 11<16 GiB"),
        (L40S, {"memory_free_bytes": 16 * GIB - 1}, Need(16 * GIB), "MEMORY 15.9<16 GiB"),
        (L40S, {"memory_free_bytes": 0}, Need(300 << 20), "MEMORY 0<300 MiB"),
        (L40S, {"memory_free_bytes": None}, Need(16 * GIB), None),
        (L40S, {"graphics": False}, Need(graphics=True), "NO_GRAPHICS NVIDIA L40S has no graphics"),
        (L40S, {"encoder": False}, Need(encoder=True), "NO_ENCODER NVIDIA L40S has no hardware video encoder"),
        (L40S, {"graphics": False, "encoder": False}, Need(), None),
        (SOFTWARE, {}, Need(16 * GIB, graphics=True), None),
        (SOFTWARE, {}, Need(hardware=True), "NO_HARDWARE Software renderer renders on the CPU"),
        (SOFTWARE, {}, Need(encoder=True), "NO_ENCODER Software renderer has no hardware video encoder"),
    ],
)
def test_table(base: DeviceReading, changes: dict[str, Any], need: Need, refusal: str | None) -> None:
    """A device is refused for what it is known to lack, and the refusal says what and how much."""
    found = admit(dataclasses.replace(base, **changes), need)
    assert (str(found) if found else None) == refusal


def test_a_device_that_is_not_there() -> None:
    """What cannot be read any more is refused as missing."""
    found = admit(None, Need())
    assert found is not None
    assert found.reason == "MISSING"


@pytest.mark.parametrize(
    ("processes", "refusal"),
    [
        ([(123, int(3.1 * GIB), "python")], "FOREIGN_PROCESS 3.1 GiB pid 123 python"),
        ([(123, 5 << 20, None)], "FOREIGN_PROCESS 5 MiB pid 123"),
        ([(123, None, "python")], "FOREIGN_PROCESS ? pid 123 python"),
        ([(1, 2 * GIB, "kit"), (2, 1, "a"), (3, 0, "b")], "FOREIGN_PROCESS 2.0 GiB pid 1 kit and 2 more"),
    ],
)
def test_strangers_are_named(processes: list[tuple[int, int | None, str | None]], refusal: str) -> None:
    """A refusal for a foreign process names the largest, with its size and pid."""
    strangers = tuple(DeviceProcess(pid, ProcessKind.COMPUTE, used, name) for pid, used, name in processes)
    assert str(admit(L40S, Need(), Foreign(Occupancy.FOREIGN, strangers))) == refusal


@pytest.mark.parametrize("occupancy", [Occupancy.FREE, Occupancy.UNKNOWN])
def test_unknown_is_not_guessed(occupancy: Occupancy) -> None:
    """Only a stranger that is certain refuses; what cannot be told leaves the decision to the other checks."""
    assert admit(L40S, Need(), Foreign(occupancy)) is None


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_memory_refusal_is_right_and_reads_right(free: int, needed: int) -> None:
    """Too little memory refuses and nothing else does, and its text always shows less before more."""
    refusal = admit(dataclasses.replace(L40S, memory_free_bytes=free), Need(needed))
    assert (refusal is not None) is (free < needed)
    if refusal is not None:
        numbers = re.fullmatch(r"MEMORY ([\d.]+)<([\d.]+) [GM]iB", str(refusal))
        assert numbers is not None, str(refusal)
        assert float(numbers[1]) < float(numbers[2])
