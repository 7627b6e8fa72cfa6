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
