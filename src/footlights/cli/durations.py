"""Durations as they are written on the command line."""

from __future__ import annotations

import typer

from footlights.protocol.durations import parse_duration


def show_duration(seconds: float) -> str:
    """Return a duration in at most two units: ``45s``, ``3m10s``, ``2h5m``, ``4d``."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    shown = [part for part in parts if not part.startswith("0")]
    return "".join(shown) or "0s"


def duration(text: str | float) -> float:
    """``parse_duration`` for typer's options; typer also calls it with their defaults."""
    if not isinstance(text, str):
        return text
    try:
        return parse_duration(text)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
