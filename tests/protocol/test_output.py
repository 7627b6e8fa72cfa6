"""The end of an application's output fits a message, whatever the application writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from footlights.protocol.output import CUT, LEFT_OUT, MAX_LINE_CHARACTERS, MAX_TAIL_BYTES, bounded_tail


def test_short_output_is_kept_as_it_is() -> None:
    """Nothing is cut that fits."""
    assert bounded_tail(["one", "", "three"]) == ["one", "", "three"]


def test_a_long_line_is_cut_and_marked() -> None:
    """Its beginning is kept."""
    [line] = bounded_tail(["x" * 1_000_000])
    assert len(line) == MAX_LINE_CHARACTERS
    assert line.startswith("xxx")
    assert line.endswith(CUT)


def test_the_last_lines_are_kept_and_the_rest_is_said_to_be_missing() -> None:
    """The end of the output says why an application ended."""
    lines = bounded_tail([f"{number} " + "y" * 4000 for number in range(100)])
    assert lines[0] == LEFT_OUT
    assert lines[-1].startswith("99 ")


@given(st.lists(st.text(max_size=9000), max_size=60))
def test_what_is_kept_never_exceeds_the_bound(lines: list[str]) -> None:
    """Also for characters that take several bytes; and cutting again changes nothing."""
    kept = bounded_tail(lines)
    size = sum(len(line.encode(errors="replace")) + 1 for line in kept if line != LEFT_OUT)
    assert size <= MAX_TAIL_BYTES
    assert bounded_tail(kept) == kept
