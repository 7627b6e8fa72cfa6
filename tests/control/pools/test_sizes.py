"""How many instances a pool is to have (`sizes`)."""

from __future__ import annotations

import math
import random

import pytest
from footlights.v1 import pool_pb2

from footlights.control.pools import sizes
from tests.control.harness import seconds


def goal(goal_s: float, **members: int) -> pool_pb2.Pool:
    """A pool with a wait goal."""
    pool = pool_pb2.Pool(wait_goal=seconds(goal_s))
    for name, value in members.items():
        setattr(pool, name, value)
    return pool


def test_a_fixed_size_is_what_it_says() -> None:
    """Whatever comes."""
    assert sizes.wanted(pool_pb2.Pool(size=3), [1.0] * 500, 60) == 3
    assert sizes.wanted(pool_pb2.Pool(size=0), [1.0] * 500, 60) == 0


@pytest.mark.parametrize(
    ("pool", "ages", "start_s", "size"),
    [
        (goal(5), [], 25, 1),  # nobody came: one for who comes first
        (goal(5, min_size=0), [], 25, 0),
        (goal(30), [10.0] * 100, 25, 1),  # it starts within the goal
        (goal(5), [10.0] * 100, 0, 1),  # nothing was measured
        (goal(5, max_size=4), [10.0] * 600, 25, 4),
        (goal(5, min_size=9, max_size=4), [], 25, 4),
    ],
)
def test_bounds_hold(pool: pool_pb2.Pool, ages: list[float], start_s: float, size: int) -> None:
    """From the least to the greatest, and the least where nothing is to be won or known."""
    assert sizes.wanted(pool, ages, start_s) == size


def test_more_come_of_late_counts_at_once() -> None:
    """Ten minutes are enough to see a rush; an hour, that it is over."""
    assert sizes.rate([30.0] * 60) == pytest.approx(0.1)
    assert sizes.rate([3000.0] * 60) == pytest.approx(60 / 3600)


@pytest.mark.parametrize("a_minute", [0.5, 3, 12, 40])
def test_the_goal_is_met_by_95_of_100(a_minute: float) -> None:
    """Played with arrivals that are independent of each other: who comes finds one, or waits for the goal at most."""
    start_s, goal_s, dice = 25.0, 5.0, random.Random(7)  # no secret
    ages = [number * 60 / a_minute for number in range(int(60 * a_minute))]
    size = sizes.wanted(goal(goal_s, max_size=1000), ages, start_s)
    ready = [0.0] * size
    now, late, count = 0.0, 0, 4000
    for _ in range(count):
        now += dice.expovariate(a_minute / 60)
        first = min(range(size), key=ready.__getitem__)
        late += ready[first] - now > goal_s
        ready[first] = max(now, ready[first]) + start_s
    assert late / count < 0.08
    assert size <= math.ceil(a_minute / 60 * start_s * 2 + 3), "and not by many more than needed"
