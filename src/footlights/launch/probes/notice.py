"""Sends a running application what its viewers should know: an optional part of the launch contract.

``POST http://127.0.0.1:{http_port}/v1/streaming/notice`` with
``{"reason": "DRAIN", "message": "…", "ends_in_seconds": 299.5}``; an empty reason withdraws the last notice. An
application shows it to every viewer that is or becomes connected, and answers 2xx. One that answers 404, 405 or 501
does not offer it, and is not asked again.
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
    """What viewers should know; the empty one withdraws it."""

    reason: str = ""
    """UPPER_SNAKE and stable: ``DRAIN``, ``MAX_DURATION``."""
    message: str = ""
    ends_in_s: float | None = None


class NoticeOutcome(enum.Enum):
    """Whether a notice was delivered."""

    DELIVERED = "DELIVERED"
    NOT_NOW = "NOT_NOW"
    """It did not answer, or badly: the notice may be sent again."""
    UNSUPPORTED = "UNSUPPORTED"


async def send_notice(
    plan: LaunchPlan, notice: SessionNotice, *, secret: str = "", timeout_s: float = TIMEOUT_S
) -> NoticeOutcome:
    """Send a notice once; ``secret`` is the launch's."""
    if traits_of(plan.version).answers is not None:
        return NoticeOutcome.UNSUPPORTED
    ends = None if notice.ends_in_s is None else round(notice.ends_in_s, 1)
    body = {"reason": notice.reason, "message": notice.message, "ends_in_seconds": ends}
    try:
        async with asyncio.timeout(timeout_s):
            content = json.dumps(body).encode()
            source = traits_of(plan.version).asked_from
            status, _ = await loopback.ask(
                plan.ports.http, PATH, method="POST", body=content, secret=secret, source=source
            )
    except (OSError, ValueError, EOFError, TimeoutError):
        return NoticeOutcome.NOT_NOW
    if status in (404, 405, 501):
        return NoticeOutcome.UNSUPPORTED
    return NoticeOutcome.DELIVERED if 200 <= status < 300 else NoticeOutcome.NOT_NOW
