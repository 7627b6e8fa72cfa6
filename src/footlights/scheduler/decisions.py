"""The outputs of placement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotChoice:
    """The wish gets these slots."""

    session_id: str
    node: str
    device: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wish fits nowhere now."""

    session_id: str
    position: int
    """Among the wishes that wait; 1 is next."""
    reasons: tuple[str, ...]
    """``NO_SLOT: 3 devices``, most frequent first."""
