"""Text of unknown origin, such as an application's output, a label or a file's name, for a message or a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINE_CHARACTERS: Final = 4096
MAX_TAIL_BYTES: Final = 64 << 10
"""Of all lines together, in UTF-8. 64 launches that end at once fit one message of 4 MiB."""
CUT: Final = " … [cut]"
LEFT_OUT: Final = "… [earlier lines left out]"

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, but for tabs and line ends; and what reverses the order of text."""


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


def encodable(text: str) -> str:
    """Return ``text`` without halves of surrogate pairs, which no message can carry: they are shown as escapes.

    Python makes them of bytes that are not UTF-8, in names of files and processes, and JSON may have them.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def visible(text: str) -> str:
    """Return ``text`` as a terminal may be given it: control characters are shown as escapes."""
    return encodable(_CONTROLS.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
