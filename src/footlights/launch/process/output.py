"""An application's output in bounded files: one stream of bytes, cut into segments, the oldest removed.

A segment's name is the place of its first byte in the stream, so a cursor survives every rotation. Standard library
only, for the shim imports it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEGMENT_BYTES = 1 << 20
SEGMENTS = 8
READ_BYTES = 1 << 20
LINE_BYTES = 64 << 10
_SUFFIX = ".log"


class OutputWriter:
    """Appends to the stream. Never raises for a full disk: what cannot be written is dropped and counted."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, segments: int = SEGMENTS) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._keep = max(segments, 2)
        self._position = 0
        self._room = 0
        self._file = -1
        self.dropped_bytes = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, data: bytes) -> None:
        """Append ``data``, rotating as often as it needs."""
        view = memoryview(data)
        while view:
            try:
                if self._room == 0:
                    self._rotate()
                written = os.write(self._file, view[: self._room])
            except OSError:
                self.dropped_bytes += len(view)
                return
            self._room -= written
            self._position += written
            view = view[written:]

    def close(self) -> None:
        """Close the segment that is written to."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _rotate(self) -> None:
        self.close()
        path = self._directory / f"{self._position:020d}{_SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._room = self._segment_bytes
        for _, old in _segments(self._directory)[: -self._keep]:
            old.unlink(missing_ok=True)


def read_after(directory: Path, cursor: int, *, complete: bool) -> tuple[tuple[str, ...], bool, int]:
    """Read at most ``READ_BYTES`` of the lines from ``cursor`` on; where ``complete``, the last needs no line end.

    Returns the lines, whether any before them are lost to rotation, and the cursor for what follows.
    """
    segments = _segments(directory)
    if not segments:
        return (), cursor > 0, cursor
    first = segments[0][0]
    start = max(cursor, first)
    data = b"".join(_pieces(segments, start, READ_BYTES))
    lines, used = _cut(data, complete=complete and len(data) < READ_BYTES)
    return lines, cursor < first, start + used


def read_tail(directory: Path, count: int, *, complete: bool) -> tuple[tuple[str, ...], bool, int]:
    """Read the last ``count`` lines, at most ``READ_BYTES`` of them; returns as ``read_after`` does."""
    segments = _segments(directory)
    if not segments:
        return (), False, 0
    end = segments[-1][0] + _size(segments[-1][1])
    start = max(segments[0][0], end - READ_BYTES)
    data = b"".join(_pieces(segments, start, READ_BYTES))
    lines, used = _cut(data, complete=complete)
    if start > 0 and lines:
        lines = lines[1:]  # it may have begun before the place that was read from
    kept = lines[-count:] if count > 0 else ()
    return kept, start > 0 or len(kept) < len(lines), start + used


def _segments(directory: Path) -> list[tuple[int, Path]]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_SUFFIX))
    except FileNotFoundError:
        return []
    return [(int(name[: -len(_SUFFIX)]), directory / name) for name in names if name[: -len(_SUFFIX)].isdigit()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pieces(segments: list[tuple[int, Path]], start: int, limit: int) -> Iterator[bytes]:
    """Yield up to ``limit`` bytes of the stream from ``start`` on, and stop at a gap."""
    for begin, path in segments:
        if limit <= 0:
            return
        try:
            with path.open("rb") as file:
                file.seek(max(start - begin, 0))
                piece = file.read(limit)
        except FileNotFoundError:
            continue
        limit -= len(piece)
        yield piece


def _cut(data: bytes, *, complete: bool) -> tuple[tuple[str, ...], int]:
    """Cut into lines; returns them and how many bytes they took, line ends included."""
    end = len(data) if complete else data.rfind(b"\n") + 1
    if end == 0 and len(data) >= LINE_BYTES:
        end = len(data)
    lines: list[str] = []
    for raw in data[:end].split(b"\n"):
        line = raw.removesuffix(b"\r")
        lines.extend(
            line[at : at + LINE_BYTES].decode("utf-8", "replace") for at in range(0, max(len(line), 1), LINE_BYTES)
        )
    if end and data[end - 1 : end] == b"\n":
        lines.pop()
    return tuple(lines) if end else (), end
