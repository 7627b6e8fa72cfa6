"""Spans of time that callers give, held to bounds within which every later sum is a moment that can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

MAX_S = 366 * 86400
"""The longest limit, as for versions: a year."""

MAX_TTL_S = 10 * MAX_S
"""The longest that a token is good for, where it is not good for ever."""


def positive(
    field: str, span: Duration, *, most_s: int = MAX_S, fix: str = "Give a duration such as '1800s'."
) -> float:
    """Return a span in seconds.

    Raises:
        InvalidArgument: it is 0, negative, or longer than ``most_s``.
    """
    value = seconds(span)
    if value <= 0:
        raise InvalidArgument(field, f"{value:g}s is not above 0. {fix}", reason="OUT_OF_RANGE")
    return _at_most(field, value, most_s)


def not_negative(field: str, span: Duration, *, most_s: int = MAX_S, fix: str) -> float:
    """Return a span in seconds, which may be 0.

    Raises:
        InvalidArgument: it is negative, or longer than ``most_s``.
    """
    value = seconds(span)
    if value < 0:
        raise InvalidArgument(field, f"{value:g}s is below 0. {fix}", reason="OUT_OF_RANGE")
    return _at_most(field, value, most_s)


def _at_most(field: str, value: float, most_s: int) -> float:
    if value > most_s:
        raise InvalidArgument(
            field, f"{value:.0f}s is above the greatest, {most_s}s. Give at most that.", reason="OUT_OF_RANGE"
        )
    return value
