"""From a list request to a query of the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from footlights import errors
from footlights.control.services.sessions import access, request_checks
from footlights.store.sessions import listing
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from footlights.auth.roles import Caller


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
        labels=request_checks.label_filter(request.label),
        search=request_checks.search(request.search),
    )


def _moment(request: session_pb2.ListSessionsRequest, name: Literal["from_time", "to_time"]) -> datetime | None:
    if not request.HasField(name):
        return None
    stamp: Timestamp = getattr(request, name)
    return stamp.ToDatetime(UTC)
