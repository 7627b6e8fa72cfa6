"""Tells a running application what its viewers should know: an optional part of the launch contract.

``POST http://127.0.0.1:{http_port}/v1/streaming/notice`` with
``{"reason": "DRAIN", "message": "…", "ends_in_seconds": 299.5}``; an empty reason takes the last notice back. An
application shows it to whoever is, or comes to be, connected, and answers 2xx. One that answers 404, 405 or 501 does
not offer it, and is not asked again.
"""

from __future__ import annotations

import asyncio
import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback

if TYPE_CHECKING:
    from footlights.launch.launcher import LaunchPlan

PATH = "/v1/streaming/notice"
TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class SessionNotice:
    """What viewers are told; the empty one takes it back."""

    reason: str = ""
    """UPPER_SNAKE and stable: ``DRAIN``, ``MAX_DURATION``."""
    message: str = ""
    """The same for a person."""
    ends_in_s: float | None = None
    """Seconds until the session ends; None where that is not known."""


class Heard(enum.Enum):
    """What became of a notice."""

    YES = "YES"
    NOT_NOW = "NOT_NOW"
    """It did not answer, or badly: it may be told again."""
    NEVER = "NEVER"
    """It does not offer this."""


async def tell(plan: LaunchPlan, notice: SessionNotice, *, timeout_s: float = TIMEOUT_S) -> Heard:
    """Tell an application once."""
    if traits_of(plan.version).answers is not None:
        return Heard.NEVER
    ends = None if notice.ends_in_s is None else round(notice.ends_in_s, 1)
    body = {"reason": notice.reason, "message": notice.message, "ends_in_seconds": ends}
    try:
        async with asyncio.timeout(timeout_s):
            status, _ = await loopback.ask(plan.ports.http, PATH, method="POST", body=json.dumps(body).encode())
    except (OSError, ValueError, EOFError, TimeoutError):
        return Heard.NOT_NOW
    if status in (404, 405, 501):
        return Heard.NEVER
    return Heard.YES if 200 <= status < 300 else Heard.NOT_NOW
