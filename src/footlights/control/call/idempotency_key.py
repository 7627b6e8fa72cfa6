"""``Idempotency-Key`` in a call's metadata: another way to send ``request_id``, for every RPC that has that member.

An RPC without it refuses the key, because its caller would rely on what nothing gives; only one that changes nothing
takes it without effect. (draft-ietf-httpapi-idempotency-key-header)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from footlights.errors import InvalidArgument, Reason

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

HEADER, FIELD = "Idempotency-Key", "request_id"
LONGEST = 128

TakeKey = Callable[[object, str], None]
"""Puts a key into a request. Raises InvalidArgument where the request has another one, or takes none."""


def taker(method: MethodDescriptor) -> TakeKey:
    """Return what takes the keys of an RPC's calls."""
    if FIELD in method.input_type.fields_by_name:
        return _fill
    if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS:
        return _ignore
    return _Refusal(method.name)


def _fill(request: object, key: str) -> None:
    assert isinstance(request, Message)
    if len(key) > LONGEST:
        raise InvalidArgument(HEADER, f"has {len(key)} characters. Give at most {LONGEST}.", reason=Reason.TOO_LONG)
    known = getattr(request, FIELD)
    if known and known != key:
        raise InvalidArgument(
            FIELD,
            f"{known!r} differs from the {HEADER} header, {key!r}. Send one of them.",
            reason=Reason.VALUE_CONFLICT,
        )
    setattr(request, FIELD, key)


def _ignore(_request: object, _key: str) -> None:
    """Take a key that has no effect."""


class _Refusal:
    def __init__(self, method: str) -> None:
        self._method = method

    def __call__(self, _request: object, _key: str) -> None:
        raise InvalidArgument(
            HEADER,
            f"{self._method} takes no {HEADER}: repeated calls are not recognized. Leave it out.",
            reason=Reason.HEADER_NOT_SUPPORTED,
        )
