"""How long a place in the queue means waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def eta_s(position: int, ends_s: Sequence[float], start_s: float | None) -> float | None:
    """Estimate the seconds until the wish at ``position`` is ready; None where nothing can be known.

    It is the time to the ``position``-th known end: an upper bound for leases that run to their limit, and no promise.
    """
    if len(ends_s) < position:
        return None
    return max(0.0, ends_s[position - 1]) + (start_s or 0.0)
