"""Query strings and forms, read as strictly as Go's ``url.ParseQuery``."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from footlights.gateway.errors import INVALID_ARGUMENT, Refusal, go_quote

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def parse_query(raw: bytes) -> dict[str, list[str]]:
    """Parameters in the order of their first appearance.

    Raises:
        Refusal: a semicolon, a malformed escape, or bytes that are not UTF-8.
    """
    found: dict[str, list[str]] = {}
    for pair in raw.split(b"&"):
        if not pair:
            continue
        if b";" in pair:
            raise _refusal(
                "invalid semicolon separator in query", 'the query has a ";"; separate parameters with "&" or write %3B'
            )
        key, _, value = pair.partition(b"=")
        found.setdefault(_unescape(key), []).append(_unescape(value))
    return found


def check_path(raw: bytes) -> None:
    """Refuse a path whose escapes are malformed or not UTF-8.

    Raises:
        Refusal: as above.
    """
    if b"%" in raw:
        try:
            _unescape(raw)
        except Refusal as refusal:
            # Go's server answers malformed escapes itself, before any handler.
            refusal.text = "400 Bad Request" if "escape" in refusal.message else ""
            raise


def _unescape(raw: bytes) -> str:
    bad = _BAD_ESCAPE.search(raw)
    if bad is not None:
        shown = go_quote(raw[bad.start() : bad.start() + 3].decode("latin1"))
        raise _refusal(f"invalid URL escape {shown}", f"{shown} is not an escape; write a percent sign as %25")
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        text = "invalid UTF-8 in the URL"
        raise _refusal(text, text + "; percent-encode the UTF-8 bytes of the text") from None


def _refusal(message: str, plain: str) -> Refusal:
    return Refusal(INVALID_ARGUMENT, message, plain=plain, reason="INVALID_URL")
