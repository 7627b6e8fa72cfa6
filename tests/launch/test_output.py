"""An application's output: a stream in bounded files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from footlights.launch.process.output import LINE_BYTES, OutputWriter, read_after, read_tail

LINES = st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=40), max_size=60)


def written(directory: Path, data: bytes, *, piece: int, segment_bytes: int, segments: int) -> None:
    writer = OutputWriter(directory, segment_bytes=segment_bytes, segments=segments)
    for at in range(0, len(data), piece):
        writer.write(data[at : at + piece])
    writer.close()


@given(LINES, st.integers(1, 50), st.integers(1, 200))
def test_nothing_is_lost_before_the_bound(lines: list[str], piece: int, segment_bytes: int) -> None:
    """What was written is read back as the same lines, however it was cut, and a cursor anywhere continues it."""
    data = "".join(f"{line}\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        written(directory, data, piece=piece, segment_bytes=segment_bytes, segments=10_000)

        assert read_after(directory, 0, complete=False) == (tuple(lines), False, len(data))
        for count in (1, 3, len(lines) + 1):
            tail, truncated, end = read_tail(directory, count, complete=False)
            assert (tail, truncated, end) == (tuple(lines[-count:]), count < len(lines), len(data))
        middle = len("".join(f"{line}\n" for line in lines[: len(lines) // 2]))
        assert read_after(directory, middle, complete=False)[0] == tuple(lines[len(lines) // 2 :])


@given(LINES, st.integers(1, 300), st.integers(20, 100), st.integers(2, 4))
def test_bound(lines: list[str], piece: int, segment_bytes: int, segments: int) -> None:
    """The files never hold more than they may; what they hold is the stream's end, and a loss is said."""
    data = "".join(f"{line}\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        written(directory, data, piece=piece, segment_bytes=segment_bytes, segments=segments)

        sizes = [path.stat().st_size for path in directory.iterdir()]
        assert sum(sizes) <= segments * segment_bytes
        kept, truncated, end = read_after(directory, 0, complete=True)
        assert truncated == (len(data) > sum(sizes))
        assert end == len(data)
        assert data.endswith("\n".join([*kept, ""]).encode())


def test_last_line_without_an_end(tmp_path: Path) -> None:
    """A line without an end counts only when the stream is complete."""
    written(tmp_path, b"one\ntw", piece=10, segment_bytes=100, segments=2)

    assert read_after(tmp_path, 0, complete=False) == (("one",), False, 4)
    assert read_after(tmp_path, 0, complete=True) == (("one", "tw"), False, 6)
    assert read_tail(tmp_path, 1, complete=True)[0] == ("tw",)


def test_endless_line(tmp_path: Path) -> None:
    """A line without an end is broken up rather than held back for ever."""
    written(tmp_path, b"x" * (3 * LINE_BYTES), piece=4096, segment_bytes=1 << 20, segments=2)

    lines, _, end = read_after(tmp_path, 0, complete=False)

    assert (len(lines), {len(line) for line in lines}, end) == (3, {LINE_BYTES}, 3 * LINE_BYTES)


def test_nothing_yet(tmp_path: Path) -> None:
    """A directory that is not there, or empty, is an empty stream."""
    assert read_after(tmp_path / "none", 0, complete=False) == ((), False, 0)
    assert read_tail(tmp_path, 5, complete=True) == ((), False, 0)


def test_full_disk(tmp_path: Path) -> None:
    """What cannot be written is dropped and counted, and writing goes on."""
    directory = tmp_path / "output"
    writer = OutputWriter(directory, segment_bytes=10, segments=2)
    writer.write(b"0123456789")
    directory.rename(tmp_path / "gone")

    writer.write(b"lost!")
    (tmp_path / "gone").rename(directory)
    writer.write(b"kept\n")
    writer.close()

    assert writer.dropped_bytes == 5
    assert read_after(directory, 10, complete=True)[0] == ("kept",)
