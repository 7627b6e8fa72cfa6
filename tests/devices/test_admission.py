"""May a launch start on a device."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.devices.admission import Holding, Need, Shared, admit, memory_left, memory_used
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


def on(*sizes: tuple[int, int | None]) -> DeviceReading:
    """A board of 48 GiB with these processes, of which each is known to have so much."""
    used = sum(size or 0 for _, size in sizes)
    processes = tuple(DeviceProcess(pid, ProcessKind.COMPUTE, size) for pid, size in sizes)
    return dataclasses.replace(
        L40S, memory_total_bytes=48 * GIB, memory_free_bytes=48 * GIB - used, processes=processes, encoder_sessions=0
    )


def holding(memory: int, *pids: int, encoder: bool = False) -> Holding:
    return Holding(memory, encoder, frozenset(pids))


@pytest.mark.parametrize(
    ("reading", "holdings", "left"),
    [
        (on(), [], 48),
        (on(), [holding(30 * GIB)], 18),
        (on((7, 10 * GIB)), [holding(30 * GIB, 7)], 18),
        (on((7, 30 * GIB)), [holding(30 * GIB, 7)], 18),
        (on((7, 40 * GIB)), [holding(30 * GIB, 7)], 8),
        (on((7, 4 * GIB)), [holding(30 * GIB)], 14),
        (on((7, 20 * GIB), (8, 1 * GIB)), [holding(10 * GIB, 7), holding(10 * GIB, 8)], 18),
        (on((7, 30 * GIB)), [holding(60 * GIB, 7)], 0),
        (on((7, None)), [holding(30 * GIB, 7)], 18),
        (dataclasses.replace(on((7, 30 * GIB)), processes=None), [holding(30 * GIB, 7)], 18),
        (dataclasses.replace(L40S, memory_free_bytes=None, memory_total_bytes=None), [holding(GIB)], None),
    ],
)
def test_what_is_promised_is_kept(reading: DeviceReading, holdings: list[Holding], left: int | None) -> None:
    """A launch's memory is kept for it from before it uses any, and counted once when it does. What it takes
    beyond, and what a foreign process has, is counted beside it."""
    found = memory_left(reading, Shared(holdings))
    assert found == (None if left is None else left * GIB)


def test_two_of_thirty_do_not_fit_forty_eight() -> None:
    """The second is refused although nothing is used yet; one that fits beside the first is not."""
    first = Shared([holding(30 * GIB)])
    assert str(admit(on(), Need(30 * GIB), shared=first)) == "MEMORY 18<30 GiB"
    assert admit(on(), Need(18 * GIB), shared=first) is None
    unseen = Shared([holding(30 * GIB, 7)], pids_visible=False)
    assert str(admit(on((7, 30 * GIB)), Need(19 * GIB), shared=unseen)) == "MEMORY 18<19 GiB"


def test_what_is_used_of_a_promise() -> None:
    """At most the promise; unknown where one process' memory is."""
    assert memory_used(on((7, 20 * GIB), (8, GIB)), [holding(10 * GIB, 7), holding(10 * GIB, 8)]) == 11 * GIB
    both = dataclasses.replace(
        on((7, GIB)), processes=(*(on((7, GIB)).processes or ()), *(on((7, GIB)).processes or ()))
    )
    assert memory_used(both, [holding(10 * GIB, 7)]) == GIB
    assert memory_used(on((7, None)), [holding(GIB, 7)]) is None
    assert memory_used(on((7, None)), [holding(GIB, 8)]) == 0


@pytest.mark.parametrize(
    ("running", "capacity", "limit", "promised", "full"),
    [
        (None, None, None, 9, False),
        (0, 0, None, 0, False),
        (3, 40, None, 0, False),
        (3, 0, None, 0, True),
        (0, 100, 2, 1, False),
        (0, 100, 2, 2, True),
        (2, 90, 2, 0, True),
        (None, None, 2, 2, True),
    ],
)
def test_a_full_encoder(
    running: int | None, capacity: int | None, limit: int | None, promised: int, full: bool
) -> None:
    """No session that encodes is begun where the driver says that nothing is left, or the operator's limit is reached;
    promised sessions count before they encode. A driver that knows nothing says 0 of an idle encoder."""
    reading = dataclasses.replace(on(), encoder_sessions=running, encoder_capacity_percent=capacity)
    others = Shared([holding(0, encoder=True)] * promised, encoder_limit=limit)
    refusal = admit(reading, Need(encoder=True), shared=others)
    assert (refusal is not None and refusal.reason == "ENCODER_FULL") == full
    assert admit(reading, Need(), shared=others) is None
