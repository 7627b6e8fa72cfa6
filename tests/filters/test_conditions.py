"""What follows from one member alone, and what must hold."""

from __future__ import annotations

import pytest

from footlights.filters import Kind, Member, parse, possible
from footlights.filters.conditions import comparisons, required

MEMBERS = {name: Member(Kind.TEXT) for name in ("state", "user", "team")}


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("state = a", "a"),
        ("state != a", "bc"),
        ("state = a OR state = b", "ab"),
        ("state = a AND state = b", ""),
        ("state = a OR user = x", "abc"),
        ("state = a AND user = x", "a"),
        ("NOT (state = a AND user = x)", "abc"),
        ("NOT (state = a OR user = x)", "bc"),
        ("user = x", "abc"),
        ("state:*", "abc"),
    ],
)
def test_the_states_that_a_filter_allows(text: str, states: str) -> None:
    """Whatever the other members are."""
    condition = parse(text, MEMBERS)
    assert condition is not None

    assert "".join(each for each in "abc" if possible(condition, "state", each)) == states


def test_what_must_hold_is_what_no_other_part_can_replace() -> None:
    """Parts of an alternative need not hold; those of a conjunction must, however deep."""
    condition = parse("state = a AND (user = x AND (team = 1 OR team = 2)) AND NOT state = b", MEMBERS)
    assert condition is not None

    assert [each.value for each in required(condition)] == ["a", "x"]
    assert [each.value for each in comparisons(condition)] == ["a", "x", "1", "2", "b"]
