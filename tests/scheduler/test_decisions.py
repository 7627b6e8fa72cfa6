"""Which wish gets which slots (`views`), and how long the others wait (`eta`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from footlights.scheduler import Index, NodeView, SlotChoice, Wish, verdicts
from tests.scheduler import exhaustive
from tests.scheduler.exhaustive import Waiting
from tests.scheduler.fleets import GIB, device, fleets, node, queues, wish


def place(wishes: Sequence[Wish], nodes: Sequence[NodeView]) -> list[SlotChoice | Waiting]:
    """Decide for a queue on a fleet that is indexed for it."""
    return exhaustive.place_all(Index(nodes), wishes)


def placed(wishes: list[Wish], nodes: list[NodeView]) -> list[tuple[str, str] | None]:
    """Where each wish went."""
    return [
        (decision.node, decision.device) if isinstance(decision, SlotChoice) else None
        for decision in place(wishes, nodes)
    ]


def boards(nodes: list[NodeView], decisions: list[SlotChoice | Waiting]) -> list[list[NodeView]]:
    """The fleet as it was before each decision and after the last, by a plain model of leasing."""
    board = {each.name: each for each in nodes}
    seen = [list(board.values())]
    for decision in decisions:
        if isinstance(decision, SlotChoice):
            board[decision.node] = exhaustive.taken(board[decision.node], decision)
        seen.append(list(board.values()))
    return seen


# Properties


@given(queues(), fleets())
@settings(max_examples=60, deadline=None)
def test_a_slot_is_given_once_and_only_where_it_is_free(wishes: list[Wish], nodes: list[NodeView]) -> None:
    """Never two placements on one slot, never one that is leased, and always as many as were wanted."""
    leased = {(each.name, found.uuid, slot) for each in nodes for found in each.devices for slot in found.leased}
    sizes = {(each.name, found.uuid): found.slots for each in nodes for found in each.devices}
    given_out: Counter[tuple[str, str, int]] = Counter()
    for wanted, decision in zip(wishes, place(wishes, nodes), strict=True):
        assert decision.session_id == wanted.session_id
        if isinstance(decision, SlotChoice):
            assert len(set(decision.slots)) == len(decision.slots) == wanted.slots
            assert all(0 <= slot < sizes[decision.node, decision.device] for slot in decision.slots)
            given_out.update((decision.node, decision.device, slot) for slot in decision.slots)

    assert all(count == 1 for count in given_out.values())
    assert not given_out.keys() & leased


@given(queues(), fleets())
@settings(max_examples=60, deadline=None)
def test_a_wish_waits_exactly_if_every_verdict_is_against_it(wishes: list[Wish], nodes: list[NodeView]) -> None:
    """Work-conserving, and the explanation agrees with the decision; reasons are as the fleet stands at the end."""
    decisions = place(wishes, nodes)
    seen = boards(nodes, decisions)
    for wanted, decision, board in zip(wishes, decisions, seen, strict=False):
        fitting = {
            (verdict.node, found.uuid)
            for verdict in verdicts(wanted, board)
            for found in verdict.devices
            if found.verdict.reason == "FITS"
        }
        if isinstance(decision, SlotChoice):
            assert (decision.node, decision.device) in fitting
        else:
            assert not fitting
            assert decision.reasons == exhaustive.reasons(wanted, seen[-1])
            assert decision.reasons


@given(queues(), fleets())
@settings(max_examples=60, deadline=None)
def test_a_queue_is_placed_as_by_looking_at_everything(wishes: list[Wish], nodes: list[NodeView]) -> None:
    """The same devices, slots, positions and reasons as the exhaustive choice gives."""
    assert place(wishes, nodes) == exhaustive.place(wishes, nodes)


@given(queues(), fleets())
@settings(max_examples=40, deadline=None)
def test_a_node_gets_no_more_launches_than_it_has_ports_for(wishes: list[Wish], nodes: list[NodeView]) -> None:
    """Ports are counted like slots."""
    launches = Counter(found[0] for found in placed(wishes, nodes) if found)

    for each in nodes:
        if launches[each.name]:
            assert each.launches + launches[each.name] <= each.port_blocks


@given(queues(), fleets(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_in_which_nodes_are_listed_decides_nothing(
    wishes: list[Wish], nodes: list[NodeView], random: Random
) -> None:
    """Two replicas that read the same fleet decide the same."""
    shuffled = list(nodes)
    random.shuffle(shuffled)

    assert [d for d in place(wishes, nodes) if isinstance(d, SlotChoice)] == [
        d for d in place(wishes, shuffled) if isinstance(d, SlotChoice)
    ]


@given(queues(), fleets())
@settings(max_examples=40, deadline=None)
def test_an_earlier_wish_is_never_worse_off_for_the_later_ones(wishes: list[Wish], nodes: list[NodeView]) -> None:
    """Order is priority: what is behind a wish in the queue cannot take anything from it, nor its place in it."""
    whole = place(wishes, nodes)
    for length in range(len(wishes)):
        for alone, among in zip(place(wishes[:length], nodes), whole, strict=False):
            if isinstance(alone, SlotChoice):
                assert among == alone
            else:
                assert isinstance(among, Waiting)
                assert (among.session_id, among.position) == (alone.session_id, alone.position)


# Order and positions


def test_wishes_are_served_in_the_order_given() -> None:
    """The first two get the two devices, whichever they are."""
    fleet = [node("n", device("1"), device("2"))]

    decisions = place([wish("b"), wish("a"), wish("c"), wish("d")], fleet)

    assert [d.session_id for d in decisions if isinstance(d, SlotChoice)] == ["b", "a"]
    assert [(d.session_id, d.position) for d in decisions if isinstance(d, Waiting)] == [("c", 1), ("d", 2)]


def test_a_small_wish_may_overtake_one_that_fits_nowhere() -> None:
    """A slot is never left idle for a wish that it cannot serve; positions count only those that wait."""
    fleet = [node("n", device("1", slots=2))]

    first, second, third = place([wish("big", slots=4), wish("small"), wish("big-too", slots=4)], fleet)

    assert isinstance(first, Waiting)
    assert isinstance(second, SlotChoice)
    assert isinstance(third, Waiting)
    assert (first.position, third.position) == (1, 2)


# Ranking


def test_those_who_need_no_gpu_get_a_software_device_where_there_is_one() -> None:
    """GPUs stay free for those who need them."""
    fleet = [node("a", device("GPU-0")), node("b", device("SW-0", kind="SOFTWARE", memory_total_bytes=None))]

    assert placed([wish("x"), wish("y", gpu=True)], fleet) == [("b", "SW-0"), ("a", "GPU-0")]
    assert placed([wish("x"), wish("y")], fleet) == [("b", "SW-0"), ("a", "GPU-0")]


def test_the_smallest_memory_that_will_do_is_taken() -> None:
    """Best fit: the big one stays free for who needs it."""
    big = {"memory_total_bytes": 48 * GIB, "memory_free_bytes": 48 * GIB}
    fleet = [node("a", device("big", **big)), node("b", device("small"))]

    assert placed([wish("x", gpu=True), wish("y", gpu=True, min_memory_bytes=24 * GIB)], fleet) == [
        ("b", "small"),
        ("a", "big"),
    ]


def test_shared_devices_are_packed() -> None:
    """The fullest device that will do is taken, so that whole ones stay whole, also across nodes."""
    fleet = [
        node("a", device("1", slots=4)),
        node("b", device("2", slots=4, leased=frozenset({0, 2})), launches=2),
    ]

    decisions = place([wish("x"), wish("y"), wish("z", slots=4)], fleet)

    assert [(d.node, d.slots) for d in decisions if isinstance(d, SlotChoice)] == [
        ("b", (1,)),
        ("b", (3,)),
        ("a", (0, 1, 2, 3)),
    ]


def test_equal_devices_are_taken_on_the_least_busy_node_then_by_name() -> None:
    """Load spreads where packing does not speak against it, and ties have an order."""
    fleet = [node("c", device("1")), node("b", device("2"), launches=5), node("a", device("3"))]

    assert placed([wish("x"), wish("y"), wish("z")], fleet) == [("a", "3"), ("c", "1"), ("b", "2")]
