"""Countdowns on the monotonic clock."""

from __future__ import annotations

from footlights.control.expiry.countdowns import Countdowns


def test_a_countdown_counts_from_when_it_was_first_seen() -> None:
    """What is left counts once; those that were forgotten start again."""
    now = [100.0]
    countdowns: Countdowns[str] = Countdowns(lambda: now[0])

    countdowns.start("a", 10)
    now[0] += 9
    countdowns.start("a", 0)
    assert countdowns.over() == []
    now[0] += 1
    countdowns.start("a", 1000)
    assert countdowns.over() == ["a"]
    countdowns.keep(set())
    countdowns.start("a", 10)
    countdowns.start("b", 0)
    countdowns.start("c", -5)
    assert countdowns.over() == ["b", "c"]
    countdowns.restart("c", 1)
    countdowns.postpone(4)
    assert countdowns.over() == []
    now[0] += 5
    assert countdowns.over() == ["b", "c"]
