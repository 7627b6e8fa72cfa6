"""HTTP header values that come from a client and go back to it."""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A field name: a token of RFC 9110, section 5.6.2."""


def field_names(value: bytes) -> bytes:
    """Return the comma-separated field names in ``value``, without what is not a field name.

    A server may hand over any bytes as a header's value, control characters too. Only what this returns may be sent
    back.
    """
    names = (part.strip(b" \t") for part in value.split(b","))
    return b", ".join(name for name in names if _NAME.fullmatch(name))
