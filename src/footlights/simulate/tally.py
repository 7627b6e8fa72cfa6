"""What is counted and timed, in a form that several processes' can be added up."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROWTH: Final = 1.05
_LEAST_S: Final = 1e-5


@dataclass
class Times:
    """Many durations: counted in buckets that each are 5 % wide, so that a percentile is right within that."""

    buckets: Counter[int] = field(default_factory=Counter)
    count: int = 0

    def add(self, seconds: float) -> None:
        """Take in one."""
        self.buckets[math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S, _GROWTH))] += 1
        self.count += 1

    def merge(self, other: Times) -> None:
        """Take in another one's."""
        self.buckets.update(other.buckets)
        self.count += other.count

    def percentile(self, share: float) -> float | None:
        """Return the seconds that ``share`` of them do not exceed; None where there are none."""
        rank = math.ceil(share * self.count)
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return float(_LEAST_S * _GROWTH**bucket)
        return None

    def plain(self) -> dict[str, float | int | None]:
        """What a report says of them."""
        shares = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "max_s": 1.0}
        found = {name: self.percentile(share) for name, share in shares.items()}
        return {"count": self.count, **{name: value and float(f"{value:.3g}") for name, value in found.items()}}


@dataclass
class Tally:
    """Counts and times by name, and the sentences that say what must never be."""

    counts: Counter[str] = field(default_factory=Counter)
    times: dict[str, Times] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    """For each slot that a node was given twice, who saw it."""

    def count(self, name: str, by: int = 1) -> None:
        """Count something."""
        self.counts[name] += by

    def time(self, name: str, seconds: float) -> None:
        """Time something."""
        self.times.setdefault(name, Times()).add(seconds)

    def of(self, name: str) -> Times:
        """Return the times of a name; empty where there are none."""
        return self.times.get(name) or Times()

    def merge(self, other: Tally) -> None:
        """Add another one's up."""
        self.counts.update(other.counts)
        self.doubled.extend(other.doubled)
        for name, times in other.times.items():
            self.times.setdefault(name, Times()).merge(times)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``from_json`` takes them back."""
        return {
            "counts": dict(self.counts),
            "times": {
                name: {str(key): many for key, many in each.buckets.items()} for name, each in self.times.items()
            },
            "doubled": self.doubled,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Take back what ``to_json`` gave."""
        tally = cls(Counter(values["counts"]), doubled=list(values["doubled"]))
        for name, buckets in values["times"].items():
            found = Counter({int(key): many for key, many in buckets.items()})
            tally.times[name] = Times(found, found.total())
        return tally
