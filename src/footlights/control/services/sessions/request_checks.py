"""Checks of session requests, beyond the rules in the proto."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from footlights import errors
from footlights.control.call.sealed import digest
from footlights.control.services.sessions import access
from footlights.control.services.sessions.follow import Followed
from footlights.filters import parse
from footlights.filters.conditions import comparisons
from footlights.launch.recipe import limits as recipe_limits
from footlights.protocol import enums
from footlights.store.schema import moment
from footlights.store.sessions import filtering, listing
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

    from footlights.auth.roles import Caller
    from footlights.filters import Condition


MOST_LABELS = 32


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument for labels that are too many, empty or too long."""
    if len(labels) > MOST_LABELS:
        raise errors.InvalidArgument(
            field, f"there would be {len(labels)}. Have at most {MOST_LABELS}.", reason=errors.Reason.TOO_MANY
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
            raise errors.InvalidArgument(
                name,
                f"is given in limits as well. Leave {name} out: it is deprecated.",
                reason=errors.Reason.VALUE_CONFLICT,
            )
        getattr(deprecated, name).CopyFrom(getattr(request, name))
    recipe_limits.narrow(limits, request.limits, field="limits")
    recipe_limits.narrow(limits, deprecated)


def list_filter(caller: Caller, request: session_pb2.ListSessionsRequest) -> listing.Filter:
    """Return which sessions a caller asks for.

    Raises InvalidArgument for a parameter that cannot be used, PermissionDenied for another user's sessions.
    """
    if request.page_token and request.offset:
        raise errors.InvalidArgument(
            "page_token",
            f"cannot be combined with offset={request.offset}. Give one of them.",
            reason=errors.Reason.VALUE_CONFLICT,
        )
    condition = parse(request.filter, filtering.MEMBERS)
    return listing.Filter(
        states=_states(request.state),
        username=access.visible_username(caller, request.username),
        application=request.application,
        from_time=_moment(request, "from_time"),
        to_time=_moment(request, "to_time"),
        labels=_labels(request.label),
        search=_search(request.search),
        ended=request.include_ended or _names_ended(condition),
        condition=condition,
    )


def list_order(request: session_pb2.ListSessionsRequest) -> listing.Order:
    """Return the order that a request asks for. Raises InvalidArgument where it asks for none that there is, or two."""
    if not request.order_by:
        return listing.Order(request.sort_by, request.order == "DESC")
    others = {"sort-by": request.sort_by != "created_time", "order": request.order == "DESC", "offset": request.offset}
    for name, given in others.items():
        if given:
            raise errors.InvalidArgument(
                "order_by", f"cannot be combined with {name}. Give one of them.", reason=errors.Reason.VALUE_CONFLICT
            )
    by, *direction = request.order_by.split()
    if by not in listing.ORDERS or direction not in ([], ["asc"], ["desc"]):
        raise errors.InvalidArgument(
            "order_by",
            f"{request.order_by!r} is no order; choose from {', '.join(listing.ORDERS)}, with ' desc' for the other "
            "direction.",
            reason=errors.Reason.NOT_ALLOWED,
            metadata={"value": request.order_by},
        )
    return listing.Order(by, direction == ["desc"])


def followed(caller: Caller, request: session_pb2.FollowSessionsRequest) -> Followed:
    """Return which sessions a caller wants to follow; raises as ``list_filter`` does."""
    condition = parse(request.filter, filtering.MEMBERS)
    states = _states(request.state)
    possible = listing.possible_states(states, condition)
    username = access.visible_username(caller, request.username)
    return Followed(
        username=username,
        application=request.application,
        session_id=request.session_id,
        states=frozenset(states),
        labels=_labels(request.label),
        condition=condition,
        ended=(bool(states) or _names_ended(condition)) and bool(possible & listing.ENDED),
        possible=possible if possible != listing.EVERY_STATE else frozenset(),
        selection=selection(username, request),
    )


def selection(username: str, request: session_pb2.ListSessionsRequest | session_pb2.FollowSessionsRequest) -> str:
    """Return what is equal for lists and watches of the same sessions. ``username``: whose are asked for and seen."""
    about = session_pb2.FollowSessionsRequest(
        username=username,
        application=request.application,
        filter=request.filter,
        state=request.state,
        label=request.label,
    )
    if isinstance(request, session_pb2.FollowSessionsRequest):
        about.session_id = request.session_id
    return digest(about)


def released_place(token: str, wanted: listing.Filter, order: listing.Order) -> listing.Place | None:
    """Return the place that a page token of the release before names; None where it is none, or of another list.

    Nobody sealed it, so nothing in it is believed. What it was made for is told by a digest of how that release wrote
    its filters and orders.
    """
    if wanted.ended or wanted.condition is not None or order.by not in ("created_time", "username"):
        return None
    names = ("states", "username", "application", "from_time", "to_time", "labels", "search")
    members = ", ".join(f"{name}={getattr(wanted, name)!r}" for name in names)
    text = f"(Filter({members}), Order(by={order.by!r}, descending={order.descending!r}))"
    try:
        digest, *place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        *name, created, session_id = place
        moment(created)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    texts = [*name, session_id]
    if (
        digest == hashlib.sha256(text.encode()).hexdigest()[:12]
        and type(created) is int
        and len(name) == (order.by == "username")
        and all(isinstance(text, str) and "\0" not in text for text in texts)
    ):
        return list(place)
    return None


def _states(states: Iterable[session_pb2.Session.State.ValueType]) -> tuple[str, ...]:
    return tuple(sorted(enums.name_of(session_pb2.Session.State, state) for state in set(states) if state))


def _names_ended(condition: Condition | None) -> bool:
    return condition is not None and any(each.member in filtering.OF_ENDED for each in comparisons(condition))


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
