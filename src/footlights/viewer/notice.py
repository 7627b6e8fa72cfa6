"""What the platform wants viewers to know: that the session ends soon, and why."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice; the empty one takes the last one back."""

    reason: str = ""
    message: str = ""
    ends_at: float | None = None
    """When the session ends, on the monotonic clock; None where that is not known."""

    @classmethod
    def parse(cls, body: bytes, now: float) -> Notice:
        """Read the body of a request that came at ``now``. Raises ValueError where it makes no sense."""
        value = json.loads(body)
        if not isinstance(value, dict):
            raise ValueError("the body is no object")
        reason, message, ends = value.get("reason", ""), value.get("message", ""), value.get("ends_in_seconds")
        if not isinstance(reason, str) or not isinstance(message, str):
            raise ValueError("reason and message must be strings")
        if ends is None:
            return cls(reason, message)
        if isinstance(ends, bool) or not isinstance(ends, int | float) or not math.isfinite(ends) or ends < 0:
            raise ValueError(f"ends_in_seconds is {ends!r}: give a number of seconds from 0, or null")
        return cls(reason, message, now + ends)

    def told(self, now: float) -> dict[str, Any]:
        """The message for the data channel."""
        left = None if self.ends_at is None else round(max(0.0, self.ends_at - now), 1)
        return {"type": "notice", "reason": self.reason, "message": self.message, "ends_in_seconds": left}
