"""Filters as text: what they mean, and what is said about one that means nothing."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights import errors
from footlights.filters import Both, Comparison, Condition, Either, Kind, Member, Negation, parse

MEMBERS = {
    "state": Member(Kind.NAME, ("PENDING", "READY")),
    "username": Member(Kind.TEXT),
    "priority": Member(Kind.NUMBER),
    "ended_time": Member(Kind.TIME),
    "cordoned": Member(Kind.FLAG),
    "labels": Member(Kind.MAP),
    "facts.labels": Member(Kind.MAP),
}
READY = Comparison("state", "=", "READY")
HIGH = Comparison("priority", ">", 3)
ANN = Comparison("username", "=", "ann")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", None),
        ("  ", None),
        ("state = READY", READY),
        ('state="READY"', READY),
        ("state='READY'", READY),
        ("state != READY", Negation(READY)),
        ("NOT state = READY", Negation(READY)),
        ("-state = READY", Negation(READY)),
        ("state = READY AND priority > 3", Both((READY, HIGH))),
        ("state = READY OR priority > 3 OR username = ann", Either((READY, HIGH, ANN))),
        ("(state = READY OR priority>3) AND username=ann", Both((Either((READY, HIGH)), ANN))),
        ("((((state = READY))))", READY),
        ("priority <= -2", Comparison("priority", "<=", -2)),
        ("cordoned = true", Comparison("cordoned", "=", value=True)),
        ('username = "a b"', Comparison("username", "=", "a b")),
        ('username = "AND"', Comparison("username", "=", "AND")),
        (r'username = "say \"hi\" \\"', Comparison("username", "=", 'say "hi" \\')),
        ("username = usd-*", Comparison("username", "prefix", "usd-")),
        ('username = "usd *"', Comparison("username", "prefix", "usd ")),
        (r'username = "usd\*"', Comparison("username", "=", "usd*")),
        (r'username = "usd\\*"', Comparison("username", "prefix", "usd\\")),
        ('username = "a*b"', Comparison("username", "=", "a*b")),
        ("username:*", Comparison("username", "set")),
        ("labels:team", Comparison("labels", "set", key="team")),
        ("labels.team:*", Comparison("labels", "set", key="team")),
        ("labels.team = red", Comparison("labels", "=", "red", "team")),
        ("labels.team:red", Comparison("labels", "=", "red", "team")),
        ("labels.app/name-x.y = 1", Comparison("labels", "=", "1", "app/name-x.y")),
        ('labels."a b" != red', Negation(Comparison("labels", "=", "red", "a b"))),
        ("facts.labels.zone = a", Comparison("facts.labels", "=", "a", "zone")),
        (
            "ended_time >= 2026-11-01T01:00:00+01:00",
            Comparison("ended_time", ">=", datetime(2026, 11, 1, tzinfo=UTC)),
        ),
    ],
)
def test_a_filter_means(text: str, meaning: Condition | None) -> None:
    """Each form of AIP-160 that is supported."""
    assert parse(text, MEMBERS) == meaning


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-01t01:00:00z", datetime(2026, 11, 1, 1, tzinfo=UTC)),
        ('"2026-11-01 01:00:00Z"', datetime(2026, 11, 1, 1, tzinfo=UTC)),
        ("2026-11-01T01:00:00-00:00", datetime(2026, 11, 1, 1, tzinfo=UTC)),
        ("2026-11-01T01:00:00.5Z", datetime(2026, 11, 1, 1, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-01T01:00:00.123456789012Z", datetime(2026, 11, 1, 1, 0, 0, 123_456, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1990-12-31T15:59:60-08:00", datetime(1991, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_any_of_rfc_3339(text: str, time: datetime) -> None:
    """Section 5.6 and the examples of section 5.8: small letters, a space, any fraction, a leap second."""
    assert parse(f"ended_time > {text}", MEMBERS) == Comparison("ended_time", ">", time)


@pytest.mark.parametrize("text", ["20261101T000000Z", "2026-W44-7T00:00:00Z", "2026-11-01T24:00:00Z", "2026-11-01Z"])
def test_a_time_of_another_standard_is_refused(text: str) -> None:
    """ISO 8601 allows more than RFC 3339 does."""
    with pytest.raises(errors.InvalidArgument, match="Write a time with its zone"):
        parse(f"ended_time > {text}", MEMBERS)


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("stat = READY", 1, "unknown member 'stat'; choose from state, username, .*labels.KEY"),
        ("state = READY AND stat = 1", 19, "unknown member 'stat'"),
        ("facts.labels. = x", 1, "unknown member 'facts.labels.'"),
        ("state = BUSY", 9, "'BUSY' is no value of state. Write one of PENDING, READY"),
        ("state > READY", 7, "state is a name, which has no order"),
        ("username < b", 10, "username is a text, which has no order"),
        ("priority = high", 12, "'high' is no value of priority. Write a whole number"),
        ("priority = 99999999999", 12, "is no value of priority"),
        ("ended_time > 2026-11-01T00:00:00", 14, "Write a time with its zone"),
        ("cordoned = 1", 12, "Write true or false"),
        ("labels = x", 8, "labels is a map. Write labels.KEY = VALUE, or labels:KEY"),
        ("username:ann", 9, r"username:\* asks whether there is a value"),
        ("state = READY OR priority > 3 AND username = a", 31, "AND and OR beside each other need parentheses"),
        ("state", 6, "found the end where a comparison is expected"),
        ("state =", 8, "found the end where a value is expected"),
        ("state = READY)", 14, "where AND, OR or the end is expected"),
        ("state = READY and priority > 3", 15, "found 'and' where AND, OR or the end is expected"),
        ("(state = READY", 15, "found the end"),
        ('username = "ann', 12, "where a value is expected. Put texts into quotes"),
        ("AND", 1, "where a member is expected"),
        ("NOT " * 20 + "state = READY", 1, "nested more than 16 deep"),
        (" AND ".join(["priority = 1"] * 65), 1089, "more than 64 comparisons"),
    ],
)
def test_what_is_wrong_is_told_with_its_position(text: str, position: int, says: str) -> None:
    """Counted from 1, with what would be right there."""
    with pytest.raises(errors.InvalidArgument, match=says) as caught:
        parse(text, MEMBERS)

    assert (caught.value.field, caught.value.reason) == ("filter", "INVALID_FILTER")
    assert caught.value.metadata["position"] == str(position)
    assert f"position {position}:" in caught.value.message


def test_a_filter_is_bounded() -> None:
    """Also where it comes over a way on which nothing else bounds it."""
    with pytest.raises(errors.InvalidArgument, match="has 5000 characters"):
        parse("x" * 5000, MEMBERS)
    assert parse("(" * 1000 + "state = READY" + ")" * 1000, MEMBERS) == READY


PIECES = [*"ab=<>!:()\"'\\*-. ,", " AND ", " OR ", "NOT ", "state", "labels", "username", "READY", " = "]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never anything else."""
    with contextlib.suppress(errors.InvalidArgument):
        parse(text, MEMBERS)
