"""Query strings and forms, read as strictly as Go's ``url.ParseQuery``."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError, quoted

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def parse_query(raw: bytes) -> dict[str, list[str]]:
    """Parameters in the order of their first appearance.

    Raises:
        GatewayError: a semicolon, a malformed escape, or bytes that are not UTF-8.
    """
    found: dict[str, list[str]] = {}
    for pair in raw.split(b"&"):
        if not pair:
            continue
        if b";" in pair:
            raise _invalid('the query must not have a ";": separate parameters with "&", or write %3B.')
        key, _, value = pair.partition(b"=")
        found.setdefault(_unescape(key), []).append(_unescape(value))
    return found


def check_path(raw: bytes) -> None:
    """Refuse a path whose escapes are malformed or not UTF-8.

    Raises:
        GatewayError: the path has one of these.
    """
    if _BAD_ESCAPE.search(raw):
        # Go's HTTP server answers malformed escapes in a path itself, in plain text.
        raise _bad_escape(raw, text="400 Bad Request")
    if b"%" in raw:
        _unescape(raw)


def _unescape(raw: bytes) -> str:
    if _BAD_ESCAPE.search(raw):
        raise _bad_escape(raw)
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise _invalid("the URL must be UTF-8: percent-encode the UTF-8 bytes of the text.") from None


def _bad_escape(raw: bytes, text: str = "") -> GatewayError:
    bad = _BAD_ESCAPE.search(raw)
    shown = quoted(raw[bad.start() : bad.start() + 3].decode("latin1")) if bad else ""
    return _invalid(f"{shown} is not an escape: write a percent sign as %25.", text)


def _invalid(message: str, text: str = "") -> GatewayError:
    return GatewayError(INVALID_ARGUMENT, message, reason="INVALID_URL", text=text)
