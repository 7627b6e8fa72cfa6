"""Durations as they are shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from footlights.cli.durations import show_duration
from footlights.protocol.durations import parse_duration


@given(st.integers(0, 10**7))
def test_what_is_shown_can_be_read_again(seconds: int) -> None:
    """The two greatest units: never more than was given, and less by under one of the smaller unit."""
    again = parse_duration(show_duration(seconds))
    unit = next(size for limit, size in ((3600, 1), (86400, 60), (10**9, 3600)) if seconds < limit)

    assert again <= seconds < again + unit
