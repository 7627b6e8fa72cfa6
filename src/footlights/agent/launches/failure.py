"""The reason that an application gives: the last line of its output that begins with ``FOOTLIGHTS_FAILURE: ``.

Part of the launch contract: ``FOOTLIGHTS_FAILURE: {"reason": "STAGE_NOT_FOUND", "message": "..."}``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from footlights.agent.launches.step import LaunchEnding

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "FOOTLIGHTS_FAILURE: "
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]")
_LONGEST = 2000
_ITS_OWN_END = ("", "EXITED_EARLY")


def application_failure(log_tail: Sequence[str], ending: LaunchEnding) -> LaunchEnding:
    """Give ``ending`` the application's own reason, where it ended by itself and has said why."""
    if ending.reason not in _ITS_OWN_END:
        return ending
    for line in reversed(log_tail):
        if not line.startswith(PREFIX):
            continue
        try:
            said = json.loads(line.removeprefix(PREFIX))
            reason, message = said["reason"], said["message"]
        except (ValueError, TypeError, KeyError):
            return ending
        if not isinstance(reason, str) or not isinstance(message, str) or not _REASON.fullmatch(reason):
            return ending
        return LaunchEnding(ending.state, reason, message[:_LONGEST])
    return ending
