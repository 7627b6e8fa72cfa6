"""An engine's log in parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from footlights.launch.container.log_lines import merge, part, second_of

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=10)


@st.composite
def logs(draw: st.DrawFn) -> list[str]:
    """Lines whose times never go back and are often equal, in the forms of both engines."""
    nanos, lines = 0, []
    for text in draw(st.lists(TEXTS, max_size=20)):
        nanos += draw(st.sampled_from([0, 0, 1, 999, 1_500_000_000]))
        zone = draw(st.sampled_from(["Z", "+00:00", "+02:00"]))
        local = BEGIN.astimezone(timezone(timedelta(hours=2)) if zone == "+02:00" else UTC)
        second = local + timedelta(seconds=nanos // 1_000_000_000)
        lines.append(f"{second:%Y-%m-%dT%H:%M:%S}.{nanos % 1_000_000_000:09d}{zone} {text}")
    return lines


def since(lines: list[str], second: int) -> list[str]:
    """What an engine answers for ``since``: it knows whole seconds."""
    begin = [
        int(datetime.fromisoformat(line[:19] + line[29:].split(" ")[0].replace("Z", "+00:00")).timestamp())
        for line in lines
    ]
    return [line for line, time in zip(lines, begin, strict=True) if time >= second]


@given(logs(), st.data())
def test_parts_are_the_whole(lines: list[str], data: st.DataObject) -> None:
    """Reading on from cursor to cursor, while lines are added, gives every line once and in order."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=5)))
    read: list[str] = []
    cursor = ""
    for cut in [*cuts, len(lines)]:
        there = since(lines[:cut], second_of(cursor))
        found = part(there, tail_lines=0, cursor=cursor)
        read.extend(found.lines)
        cursor = found.cursor

    assert read == [line.split(" ", 1)[1] for line in lines]


@given(logs(), st.integers(1, 25))
def test_tail(lines: list[str], count: int) -> None:
    """The tail is the last lines, and reading on from it gives none of them again."""
    found = part(lines, tail_lines=count, cursor="")

    assert list(found.lines) == [line.split(" ", 1)[1] for line in lines[-count:]]
    assert found.truncated == (count < len(lines))
    if lines:
        assert part(since(lines, second_of(found.cursor)), tail_lines=0, cursor=found.cursor).lines == ()


@given(logs(), st.data())
def test_merge(lines: list[str], data: st.DataObject) -> None:
    """Two streams merge by time, each in its own order."""
    first = [line for line in lines if data.draw(st.booleans())]
    second = list(lines)
    for line in first:
        second.remove(line)

    merged = merge(first, second)

    assert sorted(merged) == sorted(lines)
    assert [line for line in merged if line in first] == first or len(set(lines)) < len(lines)


def test_long_parts_are_cut() -> None:
    """A part is at most a mebibyte; the next one continues it."""
    lines = [f"2026-11-01T00:00:00.{number:09d}Z {'x' * 1000}" for number in range(3000)]

    first = part(lines, tail_lines=0, cursor="")
    second = part(lines, tail_lines=0, cursor=first.cursor)

    assert sum(len(line) + 1 for line in first.lines) <= 1 << 20
    assert len(first.lines) + len(second.lines) > 2000
    assert second.lines


def test_malformed_cursor() -> None:
    """A malformed cursor is the beginning."""
    assert second_of("nonsense") == 0
    assert part(["2026-11-01T00:00:00Z a"], tail_lines=0, cursor="-1").lines == ("a",)
