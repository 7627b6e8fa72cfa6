"""The queue played forward: who is placed when, by what is known to end."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from footlights.scheduler import DeviceView, Forecast, LeaseEnd, NodeView, WaitingWish
from footlights.scheduler.forecast import MOST_TRIES
from tests.scheduler.fleets import GIB, device, node, wish

TAKEN = frozenset({0})
GPU = {"gpu": True}


def software(uuid: str, **members: Any) -> DeviceView:
    return device(uuid, kind="SOFTWARE", name="Software renderer", memory_total_bytes=None, **members)


def waiting(*wishes: dict[str, Any], lasts_s: float | None = None) -> list[WaitingWish]:
    """Wishes in a queue; equal ones are one group."""
    return [WaitingWish(wish(**each), repr(sorted(each.items())), lasts_s) for each in wishes]


def play(fleet: list[NodeView], ends: list[LeaseEnd], queue: list[WaitingWish]) -> list[float | None]:
    return Forecast(fleet, ends).play(queue)


def test_only_leases_that_could_serve_a_wish_count() -> None:
    """A wish for a GPU behind an hour's lease waits an hour, whatever ends on software renderers."""
    fleet = [node("a", device("GPU", leased=TAKEN)), node("b", software("S", slots=9, leased=frozenset(range(9))))]
    ends = [LeaseEnd(3600, "a", "GPU", (0,)), *[LeaseEnd(10.0 * slot, "b", "S", (slot,)) for slot in range(9)]]

    assert play(fleet, ends, waiting(GPU, {}, GPU)) == [3600, 0, None]


def test_what_no_known_end_serves_has_no_forecast() -> None:
    """A model that nobody has, leases without a known end, and nodes that take nothing."""
    fleet = [node("a", device("A", leased=TAKEN)), node("b", device("B", leased=TAKEN), cordoned=True)]
    ends = [LeaseEnd(60, "b", "B", (0,)), LeaseEnd(70, "gone", "C", (0,))]

    assert play(fleet, ends, waiting({}, {"device_names": ("NVIDIA B300",)})) == [None, None]


def test_who_is_first_takes_what_ends_first_and_keeps_it_for_as_long_as_sessions_last() -> None:
    """So those behind wait for the next end, of a lease or of who was placed meanwhile."""
    fleet = [node("a", device("A", leased=TAKEN), device("B", leased=TAKEN))]
    ends = [LeaseEnd(10, "a", "A", (0,)), LeaseEnd(100, "a", "B", (0,))]

    assert play(fleet, ends, waiting({}, {}, {}, {}, lasts_s=60)) == [10, 70, 100, 130]
    assert play(fleet, ends, waiting({}, {}, {})) == [10, 100, None]


def test_a_wish_for_several_slots_waits_until_they_are_free_together() -> None:
    """And others take single ones meanwhile, as in the queue."""
    fleet = [node("a", device("A", slots=2, leased=frozenset({0, 1})))]
    ends = [LeaseEnd(10, "a", "A", (0,)), LeaseEnd(20, "a", "A", (1,))]

    assert play(fleet, ends, waiting({"slots": 2})) == [20]
    assert play(fleet, ends, waiting({"slots": 2}, {}, lasts_s=15)) == [25, 10]


def test_what_a_lease_used_of_its_device_is_free_again() -> None:
    """A part of the memory and of the encoder for each; what fits in no device never is."""
    busy = device("A", slots=2, leased=frozenset({0, 1}), memory_total_bytes=48 * GIB, memory_free_bytes=8 * GIB)
    ends = [LeaseEnd(10, "a", "A", (0,)), LeaseEnd(20, "a", "A", (1,))]
    full = device("A", slots=2, leased=frozenset({0, 1}), encoder_sessions=2, encoder_session_limit=2)
    sizes = [{"min_memory_bytes": size * GIB} for size in (16, 40, 80)]

    assert [play([node("a", busy)], ends, waiting(size)) for size in sizes] == [[10], [20], [None]]
    assert play([node("a", full)], ends, waiting({"encoder": True})) == [10]


def test_a_node_without_free_ports_waits_for_any_of_its_launches() -> None:
    """A device is free there; an end on another device of the node frees the ports."""
    fleet = [node("a", device("A", leased=TAKEN), device("B"), port_blocks=1, launches=1)]

    assert play(fleet, [LeaseEnd(30, "a", "A", (0,))], waiting({}, {}, lasts_s=None)) == [30, None]


def test_the_end_of_a_back_off_counts() -> None:
    """Of a device, of a device for one session, of an application on a node, and of one everywhere."""
    apart = node("a", device("A", quarantine="failed 3 times", back_s=45.0))
    unknown = node("a", device("A", quarantine="failed 3 times"))
    free = [node("a", device("A")), node("b", device("B", leased=TAKEN))]
    there = {"crashes": {"a": "failed 3 times"}, "back_s": {"a": 30.0}}
    refused = {"avoid": {("a", "A"): "FOREIGN_PROCESS"}, "avoid_s": {("a", "A"): 20.0}}
    everywhere = {"crashes": {"": "failed 6 times"}, "back_s": {"": 90.0}}

    assert play([apart], [], waiting({})) == [45]
    assert play([unknown], [], waiting({})) == [None]
    assert play(free, [LeaseEnd(40, "b", "B", (0,))], waiting(there, there)) == [30, 40]
    assert play(free, [], waiting(refused)) == [20]
    assert play(free, [LeaseEnd(40, "b", "B", (0,))], waiting(everywhere, everywhere)) == [90, 90]


def test_however_many_want_something_else_it_is_tried_a_bounded_number_of_times() -> None:
    """The event loop waits for it: who would be placed after that has no forecast, and nothing is made up."""
    fleet = [node("a", *(device(f"{number:02}", leased=TAKEN) for number in range(50)))]
    ends = [LeaseEnd(10.0 * (number + 1), "a", f"{number:02}", (0,)) for number in range(50)]
    nowhere = [{"node_labels": {"for": str(number)}} for number in range(MOST_TRIES // 20)]

    told = play(fleet, ends, waiting(*nowhere, *[{}] * 50))

    placed = [each for each in told if each is not None]
    assert told[: len(nowhere)] == [None] * len(nowhere)
    assert placed == [10.0 * (number + 1) for number in range(len(placed))]
    assert 15 <= len(placed) <= 20


@given(
    ends=st.lists(st.floats(0, 1e4), min_size=1, max_size=12),
    lasts=st.none() | st.floats(1, 1e3),
    queue=st.integers(1, 30),
)
def test_among_equals_nobody_further_back_is_placed_earlier(ends: list[float], lasts: float | None, queue: int) -> None:
    """And unknown stays unknown further back."""
    fleet = [node("a", *(device(f"{number:02}", leased=TAKEN) for number in range(len(ends))))]
    known = [LeaseEnd(end, "a", f"{number:02}", (0,)) for number, end in enumerate(ends)]

    told = play(fleet, known, waiting(*[{}] * queue, lasts_s=lasts))

    placed = [each for each in told if each is not None]
    assert placed == sorted(placed)
    assert told == [*placed, *[None] * (queue - len(placed))]
    assert placed[0] == min(ends)
    assert len(placed) == (min(queue, len(ends)) if lasts is None else queue)
