"""How many instances a pool is to have. No clock is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from footlights.protocol import times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.v1 import pool_pb2

MIN_SIZE: Final = 1
MAX_SIZE: Final = 10
WINDOW_S: Final = 3600.0
"""Arrivals are counted for so long."""
RECENT_S: Final = 600.0
"""And for so long, where more come in that time."""
SERVED: Final = 0.95
"""The share of sessions that are to wait no longer than the goal."""


def least(pool: pool_pb2.Pool) -> int:
    """Return the least size of a pool with a wait goal."""
    return min(pool.min_size if pool.HasField("min_size") else MIN_SIZE, most(pool))


def most(pool: pool_pb2.Pool) -> int:
    """Return the greatest size of a pool with a wait goal."""
    return pool.max_size if pool.HasField("max_size") else MAX_SIZE


def wanted(pool: pool_pb2.Pool, ages_s: Sequence[float], start_s: float) -> int:
    """Return how many instances a pool is to have now.

    One that is taken is there again when its successor has started. So a session waits longer than the goal where as
    many as there are instances came before it in so much of that time as the goal does not cover. There is one more
    than come then in 95 of 100 such times, if they come independently of each other.

    Args:
        pool: With a fixed size, or a wait goal and bounds.
        ages_s: How many seconds ago each session came that could have taken one, of the last hour.
        start_s: How many seconds its version takes from placed to ready; 0 where nothing was measured.
    """
    if not pool.HasField("wait_goal"):
        return pool.size
    uncovered_s = start_s - times.seconds(pool.wait_goal)
    if uncovered_s <= 0:
        # It starts within the goal, or how long it takes is not known yet.
        return least(pool)
    expected = rate(ages_s) * uncovered_s
    return max(least(pool), min(_enough(expected) + 1 if expected else 0, most(pool)))


def rate(ages_s: Sequence[float]) -> float:
    """Return how many sessions come in a second: as in the last hour, or in the last ten minutes if these were more."""
    return max(sum(age <= span for age in ages_s) / span for span in (WINDOW_S, RECENT_S))


def _enough(expected: float) -> int:
    """Return the least number that is not exceeded with the probability ``SERVED``, of events that are independent."""
    if expected > 500:
        # The sum below would be lost in rounding, and the normal distribution is as good.
        return math.ceil(expected + 1.645 * math.sqrt(expected))
    chance = total = math.exp(-expected)
    number = 0
    while total < SERVED:
        number += 1
        chance *= expected / number
        total += chance
    return number
