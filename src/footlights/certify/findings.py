"""What a certification says."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass


class Grade(enum.StrEnum):
    """How a line of a certification went."""

    PASS = "PASS"  # noqa: S105 - no password
    WARN = "WARN"
    """It works, and operators or users will miss something."""
    FAIL = "FAIL"
    """Sessions of the application would fail, hang, or be in the way of others."""
    SKIP = "SKIP"
    """It could not be tried, or the recipe does not ask for it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a certification."""

    check: str
    """UPPER_SNAKE and stable: ``COLD_START``, ``PORTS``, ``STOP``."""
    verdict: Grade
    detail: str
    fix: str = ""
    """What to do; empty where there is nothing to do."""

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {name: str(value) for name, value in asdict(self).items()}


def passed(check: str, detail: str) -> Finding:
    """Return a line that went well."""
    return Finding(check, Grade.PASS, detail)


def skipped(check: str, detail: str) -> Finding:
    """Return a line that was not tried."""
    return Finding(check, Grade.SKIP, detail)
