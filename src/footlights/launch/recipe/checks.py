"""Checks that the parts of a recipe share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument, Reason
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

MAX_DURATION_S = 366 * 86400


def refuse(field: str, problem: str) -> InvalidArgument:
    """Make the error of a malformed recipe."""
    return InvalidArgument(field, problem, reason=Reason.VERSION_INVALID)


def check_duration(field: str, duration: Duration, *, least: float, most: float = MAX_DURATION_S) -> None:
    """Check that a duration lies between two numbers of seconds. Raises InvalidArgument."""
    value_s = seconds(duration)
    if not least <= value_s <= most:
        wanted = "more than 0 s" if least > 0 else "0 s or more"
        raise refuse(field, f"{value_s:g}s is out of bounds: give {wanted} and at most {most}s.")
