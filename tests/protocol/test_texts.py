"""Text of unknown origin: in messages, and on terminals."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.protocol.output import encodable, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é 漢 👩‍🚀", "é 漢 👩‍🚀"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m\x7f\x00\r", "\\x9b31m\\x7f\\x00\\r"),
        ("\x1b]52;c;cm0=\x07", "\\x1b]52;c;cm0=\\x07"),
        ("a\u202eb", "a\\u202eb"),
        (os.fsdecode(b"\xff.usd"), "\\udcff.usd"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_terminal_obeys_nothing_of_it(text: str, shown: str) -> None:
    """What is no text is shown as an escape; everything else as it is."""
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_a_message_carries_whatever_it_was(text: str) -> None:
    """Text that is text is not changed."""
    assert encodable(text).encode().decode() == encodable(text)
    assert visible(text).encode().decode() == visible(text)
    if not any("\ud800" <= each <= "\udfff" for each in text):
        assert encodable(text) == text
