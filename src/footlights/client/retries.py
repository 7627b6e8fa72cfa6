"""Which calls are retried, and how: gRPC's service config, made from the contract.

A call is retried if its RPC has no side effects, is idempotent, or takes a ``request_id`` that servers of the release
before understand, too; the client always fills it. gRPC does it: on UNAVAILABLE, after a growing pause, or after the
one that the server asks for (``grpc-retry-pushback-ms``).
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.descriptor_pb2 import MethodOptions

from footlights.v1 import (
    application_pb2,
    enrollment_pb2,
    node_pb2,
    pool_pb2,
    profile_pb2,
    session_pb2,
    token_pb2,
    viewer_pb2,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

_RequestT = TypeVar("_RequestT", bound="Message")
_UNRECOGNISED_BEFORE: Final = frozenset({"CreateToken", "CreateVersion", "ExtendSession"})
"""A server of the release before ignores their ``request_id`` and would do them twice. The next one removes this."""


def repeatable(method: MethodDescriptor) -> bool:
    """Return whether a call of ``method`` that this client makes may arrive twice."""
    level = method.GetOptions().idempotency_level
    if level != MethodOptions.IDEMPOTENCY_UNKNOWN:
        return True
    return "request_id" in method.input_type.fields_by_name and method.name not in _UNRECOGNISED_BEFORE


def with_request_id(request: _RequestT) -> _RequestT:
    """Return ``request`` with a new ``request_id`` if it takes one and has none: a repetition is the same call then."""
    name = "request_id"
    if name not in request.DESCRIPTOR.fields_by_name or getattr(request, name):
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    setattr(copy, name, str(uuid.uuid4()))
    return copy


SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": service.full_name, "method": method.name}
                    for file in (
                        application_pb2,
                        enrollment_pb2,
                        node_pb2,
                        pool_pb2,
                        profile_pb2,
                        session_pb2,
                        token_pb2,
                        viewer_pb2,
                    )
                    for service in file.DESCRIPTOR.services_by_name.values()
                    for method in service.methods
                    if repeatable(method)
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""The service config, for any gRPC client that fills ``request_id``: the option ``grpc.service_config``."""
