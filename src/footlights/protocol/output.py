"""The last lines of an application's output, cut to what a message may carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINE_CHARACTERS: Final = 4096
MAX_TAIL_BYTES: Final = 64 << 10
"""Of all lines together, in UTF-8. 64 launches that end at once fit one message of 4 MiB."""
CUT: Final = " … [cut]"
LEFT_OUT: Final = "… [earlier lines left out]"


def bounded_tail(lines: Iterable[str]) -> list[str]:
    """Return the last lines that fit; what is cut or left out is marked."""
    kept: list[str] = []
    room = MAX_TAIL_BYTES
    for line in reversed(list(lines)):
        short = line if len(line) <= MAX_LINE_CHARACTERS else line[: MAX_LINE_CHARACTERS - len(CUT)] + CUT
        room -= len(short.encode(errors="replace")) + 1
        if room < 0:
            kept.append(LEFT_OUT)
            break
        kept.append(short)
    return kept[::-1]
