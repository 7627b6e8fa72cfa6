"""How long a place in the queue means waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def eta_s(position: int, remaining_s: Iterable[float | None], start_s: float | None) -> float | None:
    """Estimate the seconds until the wish at ``position`` is ready; None where nothing can be known.

    Args:
        position: Its place in the queue, 1 is next.
        remaining_s: For each lease that could serve it, how long it has left at most; None for one without an end.
        start_s: The measured time from placed to ready, the median of late; None before the first.

    It is the time to the ``position``-th known end: an upper bound for leases that run to their limit, and no promise.
    """
    ends = sorted(left for left in remaining_s if left is not None)
    if len(ends) < position:
        return None
    return max(0.0, ends[position - 1]) + (start_s or 0.0)
