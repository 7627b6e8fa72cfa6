"""Notices from the platform to the viewers: that the session ends soon, and why."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StreamNotice:
    """A notice; an empty one withdraws the previous one."""

    reason: str = ""
    message: str = ""
    ends_at: float | None = None
    """When the session ends, on the monotonic clock; None if that is not known."""

    @classmethod
    def parse(cls, body: bytes, now: float) -> StreamNotice:
        """Read the body of a request received at ``now``. Raises ValueError if it is not a notice."""
        value = json.loads(body)
        if not isinstance(value, dict):
            raise ValueError("the body must be a JSON object")
        reason, message, ends = value.get("reason", ""), value.get("message", ""), value.get("ends_in_seconds")
        if not isinstance(reason, str) or not isinstance(message, str):
            raise ValueError("reason and message must be strings")
        if ends is None:
            return cls(reason, message)
        if isinstance(ends, bool) or not isinstance(ends, int | float) or not math.isfinite(ends) or ends < 0:
            raise ValueError(f"ends_in_seconds must be null or a number of at least 0 (got {ends!r})")
        return cls(reason, message, now + ends)

    def message_at(self, now: float) -> dict[str, Any]:
        """Return the message for the data channel, with the time that is left at `now`."""
        left = None if self.ends_at is None else round(max(0.0, self.ends_at - now), 1)
        return {"type": "notice", "reason": self.reason, "message": self.message, "ends_in_seconds": left}
