"""Durations as people write them."""

from __future__ import annotations

import pytest

from footlights.protocol.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        ("250ms", 0.25),
    ],
)
def test_what_people_write(text: str, seconds: float) -> None:
    """Each form is so many seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1x", "-5", "1 h", "h1", "1:30", "nan", "inf", "1e3"])
def test_what_is_none(text: str) -> None:
    """Anything else is refused with its text and what would do."""
    with pytest.raises(ValueError, match="invalid duration") as caught:
        parse_duration(text)

    assert repr(text) in str(caught.value)
    assert "1h30m" in str(caught.value)


@pytest.mark.parametrize("text", ["315576000001", "3652501d", "9" * 400])
def test_what_no_message_can_hold(text: str) -> None:
    """More than a protobuf duration is refused here: the API could not even be asked."""
    with pytest.raises(ValueError, match="at most 10,000 years"):
        parse_duration(text)
