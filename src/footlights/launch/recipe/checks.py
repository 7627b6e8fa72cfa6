"""Checks that the parts of a recipe share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

MAX_DURATION_S = 366 * 86400


def refuse(field: str, problem: str) -> InvalidArgument:
    """Make the error of a malformed recipe."""
    return InvalidArgument(field, problem, reason="VERSION_INVALID")


def check_duration(field: str, duration: Duration, *, least: float, most: float = MAX_DURATION_S) -> None:
    """Check that a duration lies between two numbers of seconds. Raises InvalidArgument."""
    seconds = duration.seconds + duration.nanos / 1e9
    if not math.isfinite(seconds) or not least <= seconds <= most:
        wanted = "more than 0 s" if least > 0 else "0 s or more"
        raise refuse(field, f"{seconds:g}s is out of bounds: give {wanted} and at most {most}s.")
