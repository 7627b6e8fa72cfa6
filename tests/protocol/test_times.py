"""Times and durations between Python and protobuf (`protocol.times`)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.protocol import times


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_survives_the_way_to_a_message_and_back(time: datetime) -> None:
    """`moment` is the inverse of `timestamp`, to the microsecond."""
    assert times.moment(times.timestamp(time)) == time


@given(st.integers(-315_576_000_000, 315_576_000_000), st.integers(0, 999_999))
def test_a_duration_survives_the_way_to_a_message_and_back(whole: int, micros: int) -> None:
    """`seconds` is the inverse of `duration`, to the microsecond or to what a float can hold."""
    span = float(whole) + micros / 1e6 if whole < 315_576_000_000 else float(whole)

    assert times.seconds(times.duration(span)) == pytest.approx(span, abs=1e-6)


def test_unix_seconds_are_those_of_the_moment() -> None:
    """A timestamp's seconds since 1970 are what Python says of the same moment."""
    time = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)

    assert times.unix_seconds(times.timestamp(time)) == time.timestamp()
