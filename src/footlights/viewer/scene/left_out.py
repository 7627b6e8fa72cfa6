"""What of a stage is not shown as its author meant it: counted by kind, for the log, the status and the console."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MOST_KINDS: Final = 40
_OTHER: Final = "other things are not shown as authored"
_LONGEST: Final = 300


@dataclass(slots=True)
class _Kind:
    count: int
    first: str


@dataclass(slots=True)
class LeftOut:
    """One sentence a kind, with how often it occurred and where first. One thread adds."""

    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def add(self, what: str, where: str = "", count: int = 1) -> None:
        """Count `what`, a sentence without values that differ from case to case; these belong to `where`."""
        if what not in self._kinds and len(self._kinds) >= MOST_KINDS:
            what = _OTHER
        kind = self._kinds.setdefault(what, _Kind(0, where[:_LONGEST]))
        kind.count += count

    def lines(self) -> list[str]:
        """Return one line a kind."""
        return [
            what + (f": {kind.count}" if kind.count > 1 else "") + (f" (first: {kind.first})" if kind.first else "")
            for what, kind in self._kinds.items()
        ]

    def report(self) -> list[dict[str, Any]]:
        """Return the same for programs."""
        return [{"what": what, "count": kind.count, "first": kind.first} for what, kind in self._kinds.items()]

    def __bool__(self) -> bool:
        return bool(self._kinds)
