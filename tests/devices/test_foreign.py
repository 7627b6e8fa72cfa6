"""Who counts as a stranger on a device.

Also the tests of ``pids_are_the_hosts``.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.devices.foreign import Foreign, Occupancy, Tolerance, foreign
from footlights.devices.kinds import DeviceKind
from footlights.devices.reading import DeviceProcess, DeviceReading, ProcessKind

C, G = ProcessKind.COMPUTE, ProcessKind.GRAPHICS
MIB = 1 << 20
LIMIT = 200 * MIB


def judge(
    *processes: DeviceProcess,
    own: frozenset[int] = frozenset(),
    visible: bool | None = True,
    kind: DeviceKind = DeviceKind.GPU,
) -> Foreign:
    reading = DeviceReading("GPU-a", kind, "NVIDIA L40S", 0, processes=processes)
    return foreign(reading, own, tolerance=Tolerance(LIMIT, ("known*",)), pids_visible=visible)


@pytest.mark.parametrize(
    ("processes", "own", "occupancy", "pids"),
    [
        ([], [], Occupancy.FREE, []),
        ([DeviceProcess(1, C, 0)], [], Occupancy.FOREIGN, [1]),
        ([DeviceProcess(1, C, None)], [], Occupancy.FOREIGN, [1]),
        ([DeviceProcess(1, C, 900 * MIB)], [1], Occupancy.FREE, []),
        ([DeviceProcess(1, G, 5 * MIB)], [], Occupancy.FREE, []),
        ([DeviceProcess(1, G, LIMIT)], [], Occupancy.FREE, []),
        ([DeviceProcess(1, G, LIMIT + 1)], [], Occupancy.FOREIGN, [1]),
        ([DeviceProcess(1, G, LIMIT + 1)], [1], Occupancy.FREE, []),
        ([DeviceProcess(1, G, None)], [], Occupancy.UNKNOWN, []),
        ([DeviceProcess(1, G, None)], [1], Occupancy.FREE, []),
        ([DeviceProcess(1, G, None), DeviceProcess(2, C, 1)], [], Occupancy.FOREIGN, [2]),
        ([DeviceProcess(1, G, 8 * MIB, "gnome-shell"), DeviceProcess(1, C, 8 * MIB)], [], Occupancy.FREE, []),
        ([DeviceProcess(1, C, 8 * MIB), DeviceProcess(1, G, None)], [], Occupancy.FREE, []),
        ([DeviceProcess(1, C, LIMIT + 1), DeviceProcess(1, G, None)], [], Occupancy.FOREIGN, [1]),
        ([DeviceProcess(1, C, None), DeviceProcess(1, G, None)], [], Occupancy.UNKNOWN, []),
        ([DeviceProcess(1, C, 5, "/usr/bin/known-daemon --x")], [], Occupancy.FREE, []),
        ([DeviceProcess(1, C, LIMIT + 1, "known-daemon")], [], Occupancy.FOREIGN, [1]),
        ([DeviceProcess(1, C, 5, "unknown")], [], Occupancy.FOREIGN, [1]),
        ([DeviceProcess(1, C, 1), DeviceProcess(2, C, 9), DeviceProcess(3, C, 9)], [], Occupancy.FOREIGN, [2, 3, 1]),
    ],
)
def test_table(processes: list[DeviceProcess], own: list[int], occupancy: Occupancy, pids: list[int]) -> None:
    """What only computes and is not named, and what is large, is foreign; a small desktop is not; unsaid is unknown."""
    found = judge(*processes, own=frozenset(own))
    assert (found.occupancy, [p.pid for p in found.processes]) == (occupancy, pids)
    assert bool(found.why) is (occupancy is Occupancy.UNKNOWN)


def test_computing_and_drawing_is_one_process() -> None:
    """A process that is listed twice is one stranger, or one that is tolerated, with the larger size and its name."""
    found = judge(DeviceProcess(1, C, 5), DeviceProcess(1, G, LIMIT + 1, "kit"))
    assert found.processes == (DeviceProcess(1, C, LIMIT + 1, "kit"),)
    found = judge(DeviceProcess(1, C, 5), DeviceProcess(1, G, 9, "kwin"), DeviceProcess(2, C, 1))
    assert found.tolerated == (DeviceProcess(1, C, 9, "kwin"),)
    assert [process.pid for process in found.processes] == [2]


@pytest.mark.parametrize("visible", [False, None])
def test_pids_of_another_namespace_say_nothing(visible: bool | None) -> None:
    """Where our pids are not the driver's, or it cannot be told, occupancy is unknown: with and without processes."""
    assert judge(visible=visible).occupancy is Occupancy.UNKNOWN
    assert judge(DeviceProcess(1, C, 1), own=frozenset({1}), visible=visible).occupancy is Occupancy.UNKNOWN


def test_unlisted_processes_are_unknown() -> None:
    """Where the driver lists no processes at all, occupancy is unknown."""
    reading = DeviceReading("GPU-a", DeviceKind.GPU, "NVIDIA L40S", 0, processes=None)
    found = foreign(reading, frozenset(), tolerance=Tolerance(), pids_visible=True)
    assert found.occupancy is Occupancy.UNKNOWN


@pytest.mark.parametrize("visible", [True, False, None])
def test_software_renderers_are_free(visible: bool | None) -> None:
    """Nobody can be a stranger on a software renderer, wherever the agent runs."""
    assert judge(visible=visible, kind=DeviceKind.SOFTWARE).occupancy is Occupancy.FREE


processes_strategy = st.lists(
    st.builds(DeviceProcess, st.integers(1, 9), st.sampled_from([C, G]), st.none() | st.integers(0, 3 * LIMIT))
)


@given(processes_strategy, st.frozensets(st.integers(1, 9)))
def test_owning_more_never_makes_more_foreign(processes: list[DeviceProcess], own: frozenset[int]) -> None:
    """No process of ours is ever foreign, and claiming one more process never adds a stranger."""
    found = {p.pid for p in judge(*processes, own=own).processes}
    assert not found & own
    for pid in range(1, 10):
        assert {p.pid for p in judge(*processes, own=own | {pid}).processes} == found - {pid}
