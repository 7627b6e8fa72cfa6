"""Request ids: the one that a client sent in ``X-Request-Id``, or a new one."""

from __future__ import annotations

import re
from typing import Final

import uuid_utils

_USABLE: Final = re.compile(rb"[!-~]{1,128}")
"""Printable ASCII, and short enough to log."""


def request_id(given: bytes) -> str:
    """The id of a request.

    Args:
        given: the value of ``X-Request-Id``; empty, or unusable as an id, makes a new one (UUID version 7).
    """
    return given.decode("ascii") if _USABLE.fullmatch(given) else str(uuid_utils.uuid7())
