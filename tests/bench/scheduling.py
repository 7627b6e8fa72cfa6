"""What the placement index is worth: its speed and its choices against a search through every device.

The fleet is 10,000 nodes of eight GPUs, of four models, with applications that want different things and have been on
some nodes before (``tests.scheduler.generated``). One operation ends a random launch and places the next wish. Rounds
of both sides alternate, in time of the processor, since nothing here waits; the search is so slow that it gets few
operations a round. How good the choices are is compared on 500 nodes, over one sequence of ends and wishes that both
are given from the same full fleet on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from footlights.scheduler import Index, SlotChoice, Wish
from tests.bench.figures import Bench, Figure
from tests.scheduler import exhaustive, generated

NODES = 10_000
FULL = {"50": 0.5, "95": 0.95, "999": 0.999}
ROUNDS = 3
OPERATIONS = 2_000
SEARCHES = 4
"""Operations a round of the search."""
WAITING = 2_000
COMPARED_NODES = 500
COMPARED = 400
"""Decisions for every fullness."""


async def measure(_directory: Path) -> list[Figure]:
    """Take all figures."""
    return await asyncio.to_thread(lambda: [*_speed(), *_quality()])


class _Indexed:
    """The index, and what runs in its fleet."""

    def __init__(self, nodes: int, seed: int) -> None:
        random = Random(seed)
        self.fleet = generated.nodes(random, nodes)
        self.wishes = generated.Wishes(random)
        self.index = Index(self.fleet)
        self.live: list[SlotChoice] = []
        self.slots = sum(device.slots for node in self.fleet for device in node.devices)

    def fill(self, share: float) -> None:
        """Place until so much is taken."""
        taken = sum(len(placement.slots) for placement in self.live)
        refused = 0
        while taken < share * self.slots:
            placement = self.place(next(self.wishes))
            if placement is None:
                refused += 1
                assert refused < 10 * self.slots, f"the fleet cannot be filled to {share:.1%} with these wishes"
                continue
            self.live.append(placement)
            taken += len(placement.slots)

    def place(self, wish: Wish) -> SlotChoice | None:
        """Decide, as if the store agreed at once."""
        placement = self.index.place(wish)
        if placement is not None:
            self.index.confirm(placement)
        return placement

    def end(self, placement: SlotChoice) -> None:
        """End a launch."""
        self.index.release(placement.node, placement.device, placement.slots)


class _Searched:
    """A fleet in which every device is looked at for every wish, from where an indexed one stands."""

    def __init__(self, start: _Indexed) -> None:
        self._board = {node.name: node for node in start.index.nodes()}

    def place(self, wish: Wish) -> SlotChoice | None:
        """Decide."""
        placement = exhaustive.choose(wish, self._board.values())
        if placement is not None:
            self._board[placement.node] = exhaustive.taken(self._board[placement.node], placement)
        return placement

    def end(self, placement: SlotChoice) -> None:
        """End a launch."""
        self._board[placement.node] = exhaustive.freed(self._board[placement.node], placement)


@dataclass(slots=True)
class _Outcome:
    placed: int = 0
    refused: int = 0
    warm: int = 0

    @property
    def refused_percent(self) -> float:
        return 100 * self.refused / (self.placed + self.refused)

    @property
    def warm_percent(self) -> float:
        return 100 * self.warm / self.placed


def _speed() -> list[Figure]:
    indexed = _Indexed(NODES, seed=1)
    ratios: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for name, share in FULL.items():
        indexed.fill(share)
        ratios[name], rates[name] = [], []
        for number in range(ROUNDS):
            searched = _Searched(indexed)
            slow = _seconds(indexed, searched.end, searched.place, SEARCHES, seed=number)
            fast = _seconds(indexed, indexed.end, indexed.place, OPERATIONS, seed=number)
            ratios[name].append(slow / fast)
            rates[name].append(1 / fast)
    what = "place and release among 80,000 GPUs, {} full, search through all over index"
    return [
        Figure("schedule_vs_naive", ratios["95"], "", what.format("95 %"), ">= 30"),
        Figure("schedule_vs_naive_50", ratios["50"], "", what.format("50 %")),
        Figure("schedule_vs_naive_999", ratios["999"], "", what.format("99.9 %")),
        Figure("schedule_per_s", rates["95"], "1/s", "place and release by the index, 95 % full, one core"),
        Figure("schedule_pass_ms", _passes(indexed), "ms", f"a pass over {WAITING:,} wishes, 99.9 % full"),
    ]


def _seconds(
    state: _Indexed,
    end: Callable[[SlotChoice], None],
    place: Callable[[Wish], SlotChoice | None],
    operations: int,
    *,
    seed: int,
) -> float:
    """Return how long one operation takes. The live launches are the state's only if the index has done it."""
    random = Random(seed)
    live = state.live if place == state.place else list(state.live)
    wishes = [next(state.wishes) for _ in range(operations)]
    began = time.thread_time()
    for wish in wishes:
        end(_pop(live, random))
        placement = place(wish)
        if placement is not None:
            live.append(placement)
    return (time.thread_time() - began) / operations


def _passes(indexed: _Indexed) -> list[float]:
    took = []
    for _ in range(ROUNDS):
        wishes = [next(indexed.wishes) for _ in range(WAITING)]
        began = time.thread_time()
        decisions = exhaustive.place_all(indexed.index, wishes)
        took.append(1e3 * (time.thread_time() - began))
        waiting = 0
        for decision in decisions:
            if isinstance(decision, exhaustive.Waiting):
                waiting += 1
            else:
                indexed.index.withdraw(decision)
        assert waiting > WAITING / 2, f"only {waiting} of {WAITING} waited: the fleet is not full"
    return took


def _quality() -> list[Figure]:
    figures, refusals, warmth = [], 0.0, 0.0
    indexed = _Indexed(COMPARED_NODES, seed=2)
    for name, share in FULL.items():
        indexed.fill(share)
        sequence = [next(indexed.wishes) for _ in range(COMPARED)]
        searched = _Searched(indexed)
        naive = _decide(indexed, searched.end, searched.place, list(indexed.live), sequence)
        ours = _decide(indexed, indexed.end, indexed.place, indexed.live, sequence)
        refusals = max(refusals, abs(ours.refused_percent - naive.refused_percent))
        warmth = max(warmth, abs(ours.warm_percent - naive.warm_percent))
        full = f"{100 * share:g} % full"
        figures += [
            Figure(f"schedule_refused_{name}", [ours.refused_percent], "%", f"wishes refused by the index, {full}"),
            Figure(f"schedule_warm_{name}", [ours.warm_percent], "%", f"placements on a warm node, {full}"),
        ]
    what = "the worst difference between index and search, percentage points, one sequence of decisions"
    return [
        Figure("schedule_refusals_vs_naive_points", [refusals], "", f"refusals: {what}", "within 2"),
        Figure("schedule_warm_vs_naive_points", [warmth], "", f"warm hits: {what}", "within 2"),
        *figures,
    ]


def _decide(
    state: _Indexed,
    end: Callable[[SlotChoice], None],
    place: Callable[[Wish], SlotChoice | None],
    live: list[SlotChoice],
    sequence: list[Wish],
) -> _Outcome:
    random = Random(len(sequence))
    warm = {node.name: node.warm for node in state.fleet}
    outcome = _Outcome()
    for wish in sequence:
        end(_pop(live, random))
        placement = place(wish)
        if placement is None:
            outcome.refused += 1
            continue
        live.append(placement)
        outcome.placed += 1
        outcome.warm += (wish.application, wish.application_version) in warm[placement.node]
    return outcome


def _pop(live: list[SlotChoice], random: Random) -> SlotChoice:
    chosen = random.randrange(len(live))
    live[chosen], live[-1] = live[-1], live[chosen]
    return live.pop()


BENCH = Bench(
    (
        "schedule_vs_naive",
        "schedule_vs_naive_50",
        "schedule_vs_naive_999",
        "schedule_per_s",
        "schedule_pass_ms",
        "schedule_refusals_vs_naive_points",
        "schedule_warm_vs_naive_points",
        *(f"schedule_{what}_{name}" for name in FULL for what in ("refused", "warm")),
    ),
    measure,
)
