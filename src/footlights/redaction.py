"""Removes credentials from text before it is logged or shown."""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(r"(fle?_[0-9A-Za-z]{13}_)[0-9A-Za-z]+")
_GRANT: Final = re.compile(r"(fl[gps]_)[0-9A-Za-z_-]+")
_BEARER: Final = re.compile(
    r"(?i)(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer\s+)?|authorization-bearer\.|bearer\s+)(?!fle?_|fl[gps]_)[^\s\"',;&]+"
)
_SIGNATURE: Final = re.compile(
    r"(?i)([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|key-pair-id|policy)=)"
    r"(?!\[redacted\])[^\s&\"'#]+"
)
_QUERY: Final = re.compile(r"(?i)([?&#](?:access_)?token=)(?!fle?_|fl[gps]_)[^\s&\"'#]+")


def redact(text: str) -> str:
    """Return ``text`` without the secret part of tokens, codes, grants, proofs, launches' secrets, headers and URLs.

    A token or an invitation's code keeps its id (``fl_<id>_[redacted]``), so that a log still identifies it.
    """
    text = _TOKEN.sub(r"\1[redacted]", text)
    text = _GRANT.sub(r"\1[redacted]", text)
    text = _BEARER.sub(r"\1[redacted]", text)
    text = _SIGNATURE.sub(r"\1[redacted]", text)
    return _QUERY.sub(r"\1[redacted]", text)
