"""Durations as people write them: ``90``, ``90s``, ``1h30m``, ``2d``, ``1.5h``, ``250ms``."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
_LONGEST_S: Final = 315_576_000_000.0
"""The maximum of ``google.protobuf.Duration``: 10,000 years."""


def parse_duration(text: str) -> float:
    """Return the seconds of a duration; a bare number is seconds. Raises ValueError with the accepted forms."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    elif _WHOLE.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError(f"invalid duration {text!r}; write it as 90s, 30m, 1h30m or 2d.")
    if seconds > _LONGEST_S:
        raise ValueError(f"duration must be at most 10,000 years (got {text!r}).")
    return seconds
