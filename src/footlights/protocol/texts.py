"""Text of unknown origin, such as a label, a file's name or an application's word, for a message or a terminal."""

from __future__ import annotations

import re
from typing import Final

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, but for tabs and line ends; and what reverses the order of text."""


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
