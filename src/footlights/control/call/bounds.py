"""Durations in requests, bounded so that every sum with them is still a valid time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

MAX_S = 366 * 86400
"""The longest limit: a year."""

MAX_TTL_S = 10 * MAX_S
"""The longest lifetime of a token that expires."""


def positive(
    field: str, span: Duration, *, most_s: int = MAX_S, fix: str = "Give a duration such as '1800s'."
) -> float:
    """Return a duration in seconds. Raises InvalidArgument where it is 0, negative, or longer than ``most_s``."""
    value = seconds(span)
    if value <= 0:
        raise InvalidArgument(field, f"must be more than 0s (got {value:g}s). {fix}", reason="OUT_OF_RANGE")
    return _at_most(field, value, most_s)


def not_negative(field: str, span: Duration, *, most_s: int = MAX_S, fix: str) -> float:
    """Return a duration in seconds, which may be 0.

    Raises InvalidArgument where it is negative, or longer than ``most_s``.
    """
    value = seconds(span)
    if value < 0:
        raise InvalidArgument(field, f"must be at least 0s (got {value:g}s). {fix}", reason="OUT_OF_RANGE")
    return _at_most(field, value, most_s)


def _at_most(field: str, value: float, most_s: int) -> float:
    if value > most_s:
        raise InvalidArgument(field, f"must be at most {most_s}s (got {value:.0f}s).", reason="OUT_OF_RANGE")
    return value
