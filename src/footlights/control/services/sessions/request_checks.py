"""Checks of session requests, beyond the rules in the proto."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from footlights import errors
from footlights.control.services.sessions import access
from footlights.launch.recipe import limits as recipe_limits
from footlights.protocol import enums
from footlights.store.sessions import listing
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

    from footlights.auth.roles import Caller


MOST_LABELS = 32


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument for labels that are too many, empty or too long."""
    if len(labels) > MOST_LABELS:
        raise errors.InvalidArgument(
            field, f"there would be {len(labels)}. Have at most {MOST_LABELS}.", reason="TOO_MANY"
        )
    for key, value in labels.items():
        if not key or len(key) > 63 or len(value) > 256:
            raise errors.InvalidArgument(
                field, f"{key!r} is too long or empty: keys have 1 to 63 characters, values at most 256."
            )


def apply_limits(request: session_pb2.CreateSessionRequest, limits: application_pb2.Limits) -> None:
    """Lower the limits to what the caller asks for. Raises InvalidArgument for more than they allow."""
    deprecated = application_pb2.Limits()
    for name in ("max_duration", "idle_timeout"):
        if not request.HasField(name):
            continue
        if request.limits.HasField(name) or name in request.limits.unlimited:
            raise errors.InvalidArgument(name, f"is given in limits as well. Leave {name} out: it is deprecated.")
        getattr(deprecated, name).CopyFrom(getattr(request, name))
    recipe_limits.narrow(limits, request.limits, field="limits")
    recipe_limits.narrow(limits, deprecated)


def list_filter(caller: Caller, request: session_pb2.ListSessionsRequest) -> listing.Filter:
    """Return which sessions a caller asks for.

    Raises InvalidArgument for a parameter that cannot be used, PermissionDenied for another user's sessions.
    """
    if request.page_token and request.offset:
        raise errors.InvalidArgument(
            "page_token", f"cannot be combined with offset={request.offset}. Give one of them."
        )
    return listing.Filter(
        states=tuple(sorted(enums.name_of(session_pb2.Session.State, state) for state in set(request.state) if state)),
        username=access.visible_username(caller, request.username),
        application=request.application,
        from_time=_moment(request, "from_time"),
        to_time=_moment(request, "to_time"),
        labels=_labels(request.label),
        search=_search(request.search),
    )


def _moment(request: session_pb2.ListSessionsRequest, name: Literal["from_time", "to_time"]) -> datetime | None:
    if not request.HasField(name):
        return None
    stamp: Timestamp = getattr(request, name)
    return stamp.ToDatetime(UTC)


def _labels(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the labels of a filter, each given as ``key=value``. Raises InvalidArgument for anything else."""
    pairs = set()
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise errors.InvalidArgument("label", f"{text!r} is not a label. Write key=value, such as team=design.")
        pairs.add((key, value))
    return tuple(sorted(pairs))


def _search(text: str) -> str:
    """Return a text to search for. Raises InvalidArgument where it is too short for the index."""
    if text and len(text) < 3:
        raise errors.InvalidArgument("search", f"{text!r} is too short. Give three characters or more.")
    return text
