"""Spans that are waited for on the monotonic clock, each from when it was first seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Countdowns(Generic[K]):
    """Running countdowns by key. A wall clock that jumps changes none of them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ends: dict[K, float] = {}

    def start(self, key: K, left_s: float) -> None:
        """Start a countdown; one that runs already goes on as it is."""
        if key not in self._ends:
            self._ends[key] = self._monotonic() + left_s

    def restart(self, key: K, left_s: float) -> None:
        """Start a countdown again, whether it runs or not."""
        self._ends[key] = self._monotonic() + left_s

    def over(self) -> list[K]:
        """Return the keys whose countdown is over, in the order in which they were started."""
        now = self._monotonic()
        return [key for key, end in self._ends.items() if end <= now]

    def postpone(self, span_s: float) -> None:
        """Prolong every countdown."""
        for key in self._ends:
            self._ends[key] += span_s

    def keep(self, keys: Collection[K]) -> None:
        """Forget every countdown but these."""
        wanted = frozenset(keys)
        self._ends = {key: end for key, end in self._ends.items() if key in wanted}
