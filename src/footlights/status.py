"""Errors as ``google.rpc.Status`` and back: two functions, inverses of each other.

AIP-193: a status carries exactly one ``ErrorInfo``, a ``BadRequest`` with all violations if a field is invalid, a
``ResourceInfo`` if something was not found, and a ``RetryInfo`` if a retry makes sense.

The server calls ``to_status``, the client ``from_status``, so that both raise the same class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf import any_pb2, json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from footlights.errors import BY_CODE, DOMAIN, Error, InvalidArgument, Violation
from footlights.protocol import times
from footlights.v1 import error_reason_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_T = TypeVar("_T", bound=Message)

_DETAILS: Final = "grpc-status-details-bin"
"""Where gRPC carries a ``google.rpc.Status``."""

CODE_NAMES: Final[Mapping[int, str]] = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}
"""``google.rpc.Code`` by number."""


def _resources() -> dict[str, tuple[str, str]]:
    found = {}
    for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values:
        info = value.GetOptions().Extensions[error_reason_pb2.reason_info]
        if info.resource_type:
            found[value.name] = (info.resource_type, info.resource_key)
    return found


_RESOURCES: Final[Mapping[str, tuple[str, str]]] = _resources()
"""What is not found, by reason: its type, and the metadata key that has its name."""


def to_status(error: Error) -> status_pb2.Status:
    """Return ``error`` as a status. Never fails: text that cannot be encoded in UTF-8 is replaced."""
    status = status_pb2.Status(code=error.code, message=_utf8(error.message))
    metadata = {_utf8(key): _utf8(value) for key, value in error.metadata.items()}
    _add(status, error_details_pb2.ErrorInfo(reason=_utf8(error.reason), domain=DOMAIN, metadata=metadata))
    if isinstance(error, InvalidArgument):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_utf8(each.field), description=_utf8(each.problem), reason=_utf8(each.reason)
            )
            for each in error.violations
        ]
        _add(status, error_details_pb2.BadRequest(field_violations=violations))
    elif resource := _RESOURCES.get(error.reason):
        kind, key = resource
        _add(status, error_details_pb2.ResourceInfo(resource_type=kind, resource_name=metadata.get(key, "")))
    if error.retry_after_s is not None:
        delay = times.duration(max(error.retry_after_s, 0.0))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def to_json(error: Error) -> dict[str, Any]:
    """Return ``error`` as the gateway prints a status: with members that are empty, and the name of the code."""
    body = json_format.MessageToDict(
        to_status(error), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"code": error.code, "status": CODE_NAMES[error.code], **body}


def from_status(status: status_pb2.Status) -> Error:
    """Return ``status`` as an error of the class for its code; ``Error`` for codes that Footlights never sends.

    The statuses of other servers are accepted: without an ``ErrorInfo`` the reason is the name of the code.
    """
    info = _find(status, error_details_pb2.ErrorInfo()) or error_details_pb2.ErrorInfo()
    reason = info.reason or ("" if status.code in BY_CODE else CODE_NAMES.get(status.code, ""))
    metadata = dict(info.metadata)
    if status.code == InvalidArgument.code:
        return _invalid_argument(status, reason, metadata)
    retry = _find(status, error_details_pb2.RetryInfo())
    retry_after_s = None if retry is None else times.seconds(retry.retry_delay)
    error = BY_CODE.get(status.code, Error)(status.message, metadata=metadata, retry_after_s=retry_after_s)
    error.reason = reason or error.reason
    return error


def from_trailing(metadata: Iterable[tuple[str, str | bytes]] | None) -> Error | None:
    """Return the error that a server put into an RPC's trailing metadata; None where it put none."""
    for key, value in metadata or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                return None
    return None


def _invalid_argument(status: status_pb2.Status, reason: str, metadata: dict[str, str]) -> InvalidArgument:
    bad_request = _find(status, error_details_pb2.BadRequest())
    found = bad_request.field_violations if bad_request is not None else ()
    default = reason or InvalidArgument.default_reason
    violations = [Violation(each.field, each.description, each.reason or default) for each in found]
    violations = violations or [Violation(metadata.get("field", "request"), status.message, default)]
    error = InvalidArgument.of(violations, metadata=metadata, message=status.message)
    error.reason = default
    return error


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _find(status: status_pb2.Status, into: _T) -> _T | None:
    for detail in status.details:
        try:
            if detail.Unpack(into):
                return into
        except DecodeError:
            continue
    return None


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
