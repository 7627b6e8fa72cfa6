"""Checks of session requests, beyond the rules in the proto."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from footlights import errors
from footlights.control.call import bounds
from footlights.control.services.sessions import access
from footlights.protocol import times
from footlights.store.sessions import listing
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from footlights.auth.roles import Caller


def request_id(field: str, header: str) -> str:
    """Return the idempotency key, from the member or the header. Raises InvalidArgument where both differ."""
    if field and header and field != header:
        raise errors.InvalidArgument(
            "request_id", f"{field!r} differs from the Idempotency-Key header, {header!r}. Send one of them."
        )
    if len(header) > 128:
        raise errors.InvalidArgument("Idempotency-Key", f"has {len(header)} characters. Give at most 128.")
    return field or header


def check_labels(request: session_pb2.CreateSessionRequest) -> None:
    """Raise InvalidArgument for labels that are empty or too long."""
    for key, value in request.labels.items():
        if not key or len(key) > 63 or len(value) > 256:
            raise errors.InvalidArgument(
                "labels", f"{key!r} is too long or empty: keys have 1 to 63 characters, values at most 256."
            )


def apply_limits(request: session_pb2.CreateSessionRequest, limits: application_pb2.Limits) -> None:
    """Lower the limits to what the caller asks for; raising them is refused."""
    violations = errors.Violations()
    for name in ("max_duration", "idle_timeout"):
        if not request.HasField(name):
            continue
        asked = getattr(request, name)
        with violations:
            _check_limit(name, asked, limits)
        getattr(limits, name).CopyFrom(asked)
    violations.refuse()


def _check_limit(
    name: Literal["max_duration", "idle_timeout"], asked: Duration, limits: application_pb2.Limits
) -> None:
    span = bounds.bounded(name, asked)
    if limits.HasField(name) and span > times.seconds(getattr(limits, name)):
        allowed = times.seconds(getattr(limits, name))
        raise errors.InvalidArgument(
            name,
            f"{span:g}s is more than the {allowed:g}s that the version or profile allows. Give at most that.",
            reason=errors.Reason.ABOVE_LIMIT,
            metadata={"limit": name, "value": f"{span:g}s", "allowed": f"{allowed:g}s"},
        )


def digest(request: session_pb2.CreateSessionRequest) -> bytes:
    """Return a digest of a request without its idempotency key: a repeated request has the same one."""
    bare = session_pb2.CreateSessionRequest()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()


def list_filter(caller: Caller, request: session_pb2.ListSessionsRequest) -> listing.Filter:
    """Return which sessions a caller asks for.

    Raises InvalidArgument for a parameter that cannot be used, PermissionDenied for another user's sessions.
    """
    if request.page_token and request.offset:
        raise errors.InvalidArgument(
            "page_token", f"cannot be combined with offset={request.offset}. Give one of them."
        )
    return listing.Filter(
        states=tuple(sorted(session_pb2.Session.State.Name(state) for state in set(request.state) if state)),
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
