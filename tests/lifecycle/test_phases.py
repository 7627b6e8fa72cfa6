"""Every second of a launch belongs to one phase."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.lifecycle.phases import Phases, phases

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("ready", "ending", "ended", "spent"),
    [
        (2, 10, 13, Phases(2, 8, 3)),
        (2, None, 13, Phases(2, 11, 0)),
        (None, 4, 5, Phases(4, 0, 1)),
        (None, None, 5, Phases(5, 0, 0)),
        (2, 1, 5, Phases(1, 0, 4)),
        (-5, 3, 5, Phases(0, 3, 2)),
        (2, 3, -5, Phases(0, 0, 0)),
    ],
)
def test_each_second_belongs_to_one_phase(
    ready: float | None, ending: float | None, ended: float, spent: Phases
) -> None:
    """Seconds from when it began."""
    assert phases(NOW, at(ready), at(ending), NOW + timedelta(seconds=ended)) == spent


_moments = st.none() | st.integers(-100, 100)


@given(_moments, _moments, st.integers(-100, 100))
def test_phases_sum_to_the_whole_whatever_the_clock_did(ready: int | None, ending: int | None, ended: int) -> None:
    """And none is negative."""
    spent = phases(NOW, at(ready), at(ending), NOW + timedelta(seconds=ended))

    assert spent.total == max(0, ended)
    assert min(spent.starting, spent.used, spent.ending) >= 0


def test_phases_add_and_multiply() -> None:
    """Two slots of one launch, and another launch."""
    assert Phases(1, 2, 3) * 2 + Phases(1, 0, 0) == Phases(3, 4, 6)
