"""The time limits of a session: from the stored message to the lifecycle's own type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.lifecycle import TimeLimits
from footlights.protocol import times
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from footlights.store.schema import SessionRow


def of_session(row: SessionRow) -> application_pb2.Limits:
    """Return the limits that apply to a session."""
    return application_pb2.Limits.FromString(row.limits)


def time_limits(applied: application_pb2.Limits) -> TimeLimits:
    """Return the limits of a ready session as the lifecycle takes them."""

    def span(name: str) -> float | None:
        return times.seconds(getattr(applied, name)) if applied.HasField(name) else None  # type: ignore[arg-type]

    return TimeLimits(span("never_connected_timeout"), span("idle_timeout"), span("max_duration"))
