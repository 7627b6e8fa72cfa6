"""Durations in requests, bounded so that every sum with them is still a valid time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument, Reason
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

MAX_S = 366 * 86400
"""The longest limit: a year."""

MAX_TTL_S = 10 * MAX_S
"""The longest lifetime of a token that expires."""


def bounded(
    field: str,
    span: Duration,
    *,
    zero: bool = False,
    most_s: int = MAX_S,
    fix: str = "Give a duration such as '1800s'.",
) -> float:
    """Return a duration in seconds, 0 only with ``zero``. Raises InvalidArgument for what is out of bounds."""
    value = seconds(span)
    if value < 0 or (value == 0 and not zero):
        least = "at least" if zero else "more than"
        raise InvalidArgument(field, f"must be {least} 0s (got {value:g}s). {fix}", reason=Reason.OUT_OF_RANGE)
    if value > most_s:
        raise InvalidArgument(field, f"must be at most {most_s}s (got {value:.0f}s).", reason=Reason.OUT_OF_RANGE)
    return value
