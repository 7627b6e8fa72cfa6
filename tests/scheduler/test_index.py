"""The placement index against the exhaustive choice, whatever happens to the fleet.

Covers what it is made of: `fleet_state`, `node_directory`, `nodesets`, `device_cells`, `wish_shapes`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from footlights.scheduler import Index, NodeView, SlotChoice, Wish, verdicts
from tests.scheduler import exhaustive, generated
from tests.scheduler.fleets import GIB, device, fleets, node, nodes, queues, wish, wishes

pytestmark = pytest.mark.slow

NAMES = ("node-0", "node-1", "node-2", "node-3", "node-4")


class Fleet(RuleBasedStateMachine):
    """An index, and beside it a plain model of what it was told: views, and holds on top of them."""

    placements = Bundle[SlotChoice]("placements")

    def __init__(self) -> None:
        """Start with an index that knows nothing."""
        super().__init__()
        self.index = Index()
        self.told: dict[str, NodeView] = {}
        self.holds: list[SlotChoice] = []
        self.standing: list[Wish] = []

    def board(self) -> dict[str, NodeView]:
        """Return the fleet as it is: as told, and what is held."""
        board = dict(self.told)
        for hold in self.holds:
            if _has(board.get(hold.node), hold):
                board[hold.node] = exhaustive.taken(board[hold.node], hold)
        # A placement that is already told of is one launch, not two.
        for name, home in board.items():
            own = [hold for hold in self.holds if hold.node == name]
            fresh = sum(_has(home, hold) and not _leases(self.told[name], hold) for hold in own)
            board[name] = replace(home, launches=self.told[name].launches + fresh)
        return board

    @initialize(wanted=queues(), fleet=fleets())
    def begin(self, wanted: list[Wish], fleet: list[NodeView]) -> None:
        """Begin with some nodes, and with wishes that are asked about after every step."""
        self.index = Index(fleet)
        self.told = {each.name: each for each in fleet}
        self.standing = wanted[:4]

    @rule(view=st.sampled_from(NAMES).flatmap(nodes))
    def set_node(self, view: NodeView) -> None:
        """A node joins, or changes in anything."""
        self.told[view.name] = view
        self.index.set_node(view)

    @rule(name=st.sampled_from(NAMES))
    def set_again(self, name: str) -> None:
        """The same news twice are none."""
        if name in self.told:
            self.index.set_node(self.told[name])

    @rule(name=st.sampled_from(NAMES))
    def remove_node(self, name: str) -> None:
        """A node is forgotten, known or not."""
        self.told.pop(name, None)
        self.holds = [hold for hold in self.holds if hold.node != name]
        self.index.remove_node(name)

    @rule(target=placements, wanted=wishes("s"))
    def place(self, wanted: Wish) -> SlotChoice:
        """The index takes what the exhaustive choice takes."""
        expected = exhaustive.choose(wanted, self.board().values())

        assert self.index.choose(wanted) == expected
        assert self.index.place(wanted) == expected
        if expected is None:
            return multiple()  # type: ignore[return-value]
        self.holds.append(expected)
        return expected

    @rule(placement=consumes(placements))
    def confirm(self, placement: SlotChoice) -> None:
        """The store has a placement."""
        self.index.confirm(placement)
        if placement in self.holds:
            self.holds.remove(placement)
            self._take(placement)

    @rule(placement=consumes(placements))
    def withdraw(self, placement: SlotChoice) -> None:
        """The store has refused a placement."""
        self.index.withdraw(placement)
        if placement in self.holds:
            self.holds.remove(placement)

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 2), slots=st.frozensets(st.integers(0, 3), min_size=1))
    def release(self, name: str, number: int, slots: frozenset[int]) -> None:
        """Somebody's launch has ended."""
        ended = SlotChoice("other", name, f"GPU-{name}-{number}", tuple(slots))
        self.index.release(ended.node, ended.device, ended.slots)
        home = self.told.get(name)
        if home is not None and any(each.leased & slots for each in home.devices if each.uuid == ended.device):
            self.told[name] = exhaustive.freed(home, ended)

    @invariant()
    def it_is_as_told(self) -> None:
        """What it explains with is the fleet as it is."""
        board = self.board()

        assert list(self.index.nodes()) == [_in_order(board[name]) for name in sorted(board)]

    @invariant()
    def it_answers_as_the_exhaustive_choice_does(self) -> None:
        """Every standing wish gets the same device, or the same reasons."""
        board = list(self.board().values())
        for wanted in self.standing:
            assert self.index.choose(wanted) == exhaustive.choose(wanted, board)
            assert self.index.reasons(wanted) == exhaustive.reasons(wanted, board)

        for wanted in self.standing[:1]:
            shown, known = self.index.explain(wanted, limit=2), verdicts(wanted, self.index.nodes())
            assert len(shown) == min(2, len(known))
            assert all(verdict in known for verdict in shown)

    def _take(self, placement: SlotChoice) -> None:
        home = self.told.get(placement.node)
        if _has(home, placement) and home is not None and not _leases(home, placement):
            self.told[placement.node] = exhaustive.taken(home, placement)


def _has(home: NodeView | None, placement: SlotChoice) -> bool:
    return home is not None and any(each.uuid == placement.device for each in home.devices)


def _leases(home: NodeView, placement: SlotChoice) -> bool:
    return any(each.uuid == placement.device and each.leased >= set(placement.slots) for each in home.devices)


def _in_order(home: NodeView) -> NodeView:
    return replace(home, devices=tuple(sorted(home.devices, key=lambda each: each.uuid)))


Fleet.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestTheIndexChoosesAsTheExhaustiveChoiceDoes = Fleet.TestCase


# Quality, on more than a state machine can draw


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_fleet_is_filled_as_by_looking_at_everything(seed: int) -> None:
    """Through hundreds of placements and ends, every choice and every reason is the exhaustive one."""
    random = Random(seed)
    fleet = generated.nodes(random, 24)
    wanted = generated.Wishes(random)
    board, index = {each.name: each for each in fleet}, Index(fleet)
    live: list[SlotChoice] = []
    refused = 0
    for _ in range(400):
        wanted_now = next(wanted)
        placement = index.place(wanted_now)
        assert placement == exhaustive.choose(wanted_now, board.values())
        if placement is None:
            refused += 1
            assert index.reasons(wanted_now) == exhaustive.reasons(wanted_now, board.values())
            for ended in random.sample(live, 2):
                live.remove(ended)
                board[ended.node] = exhaustive.freed(board[ended.node], ended)
                index.release(ended.node, ended.device, ended.slots)
            continue
        index.confirm(placement)
        live.append(placement)
        board[placement.node] = exhaustive.taken(board[placement.node], placement)

    assert refused >= 5


# Warmth


def test_a_warm_node_is_taken_before_a_fuller_or_smaller_device() -> None:
    """Seconds instead of minutes for the user are worth more than a well packed fleet."""
    warm = frozenset({("usd-viewer", "1.0.0")})
    index = Index(
        [
            node("fuller", device("1", slots=2, leased=frozenset({0}))),
            node("smaller", device("2", slots=2, memory_total_bytes=8 * GIB)),
            node("warm", device("3", slots=2, memory_total_bytes=48 * GIB), launches=9, warm=warm),
        ]
    )
    viewer = {"application": "usd-viewer", "application_version": "1.0.0"}

    assert _node(index.place(wish("a", **viewer))) == "warm"
    assert _node(index.place(wish("b", application="usd-viewer", application_version="1.1.0"))) == "fuller"
    assert _node(index.place(wish("c", **viewer))) == "warm"
    assert _node(index.place(wish("d", **viewer))) == "smaller"


def test_no_gpu_is_spent_for_warmth() -> None:
    """A wish that needs no GPU takes a software device, though a node with GPUs is warm."""
    warm = frozenset({("usd-viewer", "1.0.0")})
    index = Index([node("gpu", device("1"), warm=warm), node("software", device("2", kind="SOFTWARE"))])

    assert _node(index.place(wish(application="usd-viewer", application_version="1.0.0"))) == "software"


# Explaining


def test_an_explanation_shows_some_nodes_of_every_sort() -> None:
    """What would be taken, what would do as well, what is full, and each reason against a whole node."""
    full = [node(f"full-{number}", device(leased=frozenset({0}))) for number in range(500)]
    cordoned = [node(f"cordoned-{number}", device(), cordoned=True) for number in range(500)]
    away = [node("away", device(), connected=False)]
    free = [node(f"free-{number}", device(), launches=number) for number in reversed(range(300))]
    index = Index([*full, *cordoned, *away, *free])

    shown = index.explain(wish(), limit=40)

    assert Counter(verdict.verdict.reason for verdict in shown) == {
        "FITS": 13,
        "NO_DEVICE_FITS": 13,
        "CORDONED": 13,
        "UNREACHABLE": 1,
    }
    assert "free-0" in [verdict.node for verdict in shown]
    assert [verdict.node for verdict in index.explain(wish(), limit=1)] == ["free-0"]


# Holds


def test_a_view_that_is_older_than_a_placement_does_not_give_its_slots_away() -> None:
    """What is on its way into the store stays taken, whatever the store said before."""
    before = node("a", device("1", slots=2))
    index = Index([before])
    placement = index.place(wish("first"))
    assert placement is not None

    index.set_node(replace(before, cordoned=True))
    index.set_node(before)
    second = index.place(wish("second"))

    assert second is not None
    assert (placement.slots, second.slots) == ((0,), (1,))
    assert [each.launches for each in index.nodes()] == [2]


def test_a_placement_is_one_launch_however_it_is_told() -> None:
    """By the hold, by a view that has it already, and by the confirmation."""
    before = node("a", device("1", slots=2))
    index = Index([before])
    placement = index.place(wish())
    assert placement is not None

    index.set_node(exhaustive.taken(before, placement))
    index.confirm(placement)
    index.confirm(placement)

    assert list(index.nodes()) == [exhaustive.taken(before, placement)]


def test_a_refused_placement_leaves_what_the_node_says() -> None:
    """The slots of somebody who was faster stay theirs, also after the hold on them is gone."""
    before = node("a", device("1", slots=2))
    index = Index([before])
    placement = index.place(wish("mine"))
    assert placement is not None

    theirs = exhaustive.taken(before, replace(placement, session_id="theirs"))
    index.set_node(theirs)
    index.withdraw(placement)

    assert list(index.nodes()) == [theirs]


def test_news_of_what_is_not_known_is_no_error() -> None:
    """A node may be forgotten while its launches end."""
    index = Index([node("a", device("1"))])
    placement = index.place(wish())
    assert placement is not None

    index.remove_node("a")
    index.remove_node("a")
    index.confirm(placement)
    index.withdraw(placement)
    index.release("b", "1", [0])

    assert list(index.nodes()) == []
    assert [why.text for why in index.reasons(wish())] == ["NO_NODE: no node has joined"]


# Bounds


def test_what_is_remembered_is_bounded_and_forgetting_changes_no_answer() -> None:
    """Thousands of shapes, memory sizes and reasons later, answers are right and the books are small."""
    index = Index([node("a", device("1", memory_free_bytes=10_000))])
    for number in range(1, 6000):
        sick = device("1", usable=False, health_reason=f"XID_{number}: x")
        index.set_node(node("b", sick, device("2", memory_free_bytes=number)))
        assert (index.choose(wish(min_memory_bytes=number, launcher="process")) is None) == (number > 10_000)

    for number in (9_999, 10_000, 10_001, 4, 5_999, 6_000):
        wanted = wish(min_memory_bytes=number)
        assert index.choose(wanted) == exhaustive.choose(wanted, index.nodes())
        assert index.reasons(wanted) == exhaustive.reasons(wanted, index.nodes())
    assert len(index._shapes) <= 4096
    assert len(list(index._cells)) <= 600


def _node(placement: SlotChoice | None) -> str | None:
    return placement.node if placement else None
