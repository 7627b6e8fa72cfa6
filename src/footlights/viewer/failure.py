"""How the viewer reports a failure: an exit code for programs and one last line for people."""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum

PREFIX = "FOOTLIGHTS_FAILURE: "
"""The agent shows the message of the last line of the log that starts with this."""


class ExitCode(IntEnum):
    """The exit code of the process."""

    OK = 0
    CRASHED = 1
    USAGE = 2  # bad arguments, or a port that is taken
    FAILED = 3  # with a FOOTLIGHTS_FAILURE line


class FailureReason(StrEnum):
    """The machine-readable part of a failure."""

    STAGE_NOT_FOUND = "STAGE_NOT_FOUND"
    STAGE_UNREADABLE = "STAGE_UNREADABLE"
    STAGE_TOO_LARGE = "STAGE_TOO_LARGE"
    STAGE_EMPTY = "STAGE_EMPTY"
    UNSUPPORTED_SCHEME = "UNSUPPORTED_SCHEME"
    MISSING_LIBRARY = "MISSING_LIBRARY"
    RENDERER_UNAVAILABLE = "RENDERER_UNAVAILABLE"
    INTERNAL = "INTERNAL"


class ViewerFailure(Exception):
    """The viewer cannot continue. The message states what is wrong, with the value, and what to do."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def line(self) -> str:
        """The one line that ends the log: `FOOTLIGHTS_FAILURE: {"reason": ..., "message": ...}`."""
        return PREFIX + json.dumps({"reason": self.reason.value, "message": self.message})
