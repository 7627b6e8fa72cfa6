"""The answers that the gateway gives by itself: a status with its details, and how values are shown in messages.

Modules below ``app`` raise ``GatewayError`` and know nothing of HTTP beyond the status.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from footlights.http.status import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 2, 3, 4, 5
RESOURCE_EXHAUSTED, ABORTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 10, 12, 13, 14, 16
_MAX_QUOTED = 100


REASONS: Final[Mapping[str, tuple[int, int, tuple[str, ...]]]] = {
    "ANSWER_NOT_JSON": (UNKNOWN, 500, ()),
    "BODY_NOT_SUPPORTED": (INVALID_ARGUMENT, 400, ()),
    "BODY_TIMEOUT": (INVALID_ARGUMENT, 408, ("field",)),
    "BODY_TOO_LARGE": (INVALID_ARGUMENT, 413, ("field",)),
    "CANCELLED": (CANCELLED, 499, ()),
    "DEADLINE_EXCEEDED": (DEADLINE_EXCEEDED, 504, ()),
    "DUPLICATE_MEMBER": (INVALID_ARGUMENT, 400, ("field",)),
    "HEADER_NOT_SUPPORTED": (INVALID_ARGUMENT, 400, ("field",)),
    "INTERNAL": (INTERNAL, 500, ("request_id",)),
    "INVALID_HEADER": (INVALID_ARGUMENT, 400, ("field",)),
    "INVALID_JSON": (INVALID_ARGUMENT, 400, ()),
    "INVALID_MEMBER": (INVALID_ARGUMENT, 400, ("field",)),
    "INVALID_PARAMETER": (INVALID_ARGUMENT, 400, ("field",)),
    "INVALID_URL": (INVALID_ARGUMENT, 400, ()),
    "METHOD_NOT_ALLOWED": (UNIMPLEMENTED, 405, ()),
    "OVERLOADED": (UNAVAILABLE, 503, ()),
    "PATH_NOT_FOUND": (NOT_FOUND, 404, ("path",)),
    "SERVER_STOPPING": (UNAVAILABLE, 503, ()),
    "TOO_MANY_HEADERS": (INVALID_ARGUMENT, 431, ()),
    "UNIMPLEMENTED": (UNIMPLEMENTED, 501, ()),
    "UNKNOWN": (UNKNOWN, 500, ()),
    "UNKNOWN_FIELD": (INVALID_ARGUMENT, 400, ("field",)),
    "UNKNOWN_VALUE": (INVALID_ARGUMENT, 400, ("field",)),
    "UNSUPPORTED_MEDIA_TYPE": (INVALID_ARGUMENT, 415, ()),
    "URL_TOO_LONG": (INVALID_ARGUMENT, 414, ()),
    "VALUE_CONFLICT": (INVALID_ARGUMENT, 400, ("field",)),
}
"""The reasons of the gateway's own errors in strict mode: code, HTTP status and metadata keys of each."""


class Malformed(ValueError):
    """A text that is not a value of its type.

    Attributes:
        wanted: what the text must be, as a noun phrase ("an integer").
        reason: why, where there is a more exact reason than that of its place.
    """

    def __init__(self, wanted: str, reason: str = "") -> None:
        super().__init__(f"must be {wanted}")
        self.wanted, self.reason = wanted, reason


class GatewayError(Exception):
    """A request that the gateway answers by itself.

    Args:
        code: the gRPC code.
        message: what is wrong, and the fix.
        reason: ErrorInfo.reason, one of `REASONS`.
        field: the request field at fault, if there is one; its metadata key is ``field``.
        metadata: the rest of ErrorInfo.metadata.
        http_status: where it differs from the code's.
        headers: more response headers, lower case.
        retry_after_s: when to try again, for overload.
        text: a plain-text body that the default dialect has instead of a status.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        http_status: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        retry_after_s: int | None = None,
        text: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code, self.reason, self.field = code, reason, field
        self.metadata = {**({"field": field} if field else {}), **(metadata or {})}
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status
        self.headers = list(headers)
        self.retry_after_s, self.text = retry_after_s, text

    def status(self, *, strict: bool, domain: str) -> status_pb2.Status:
        """The error as the message that becomes the body; strict mode adds ``google.rpc`` details."""
        status = status_pb2.Status(code=self.code, message=self.message)
        if not strict:
            return status
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=domain, metadata=self.metadata)
        status.details.append(_packed(info))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message, reason=self.reason
            )
            status.details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration(seconds=self.retry_after_s)
            status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status


def stopping(retry_after_s: int) -> GatewayError:
    """The answer to what comes, or still streams, while the server stops."""
    return GatewayError(
        UNAVAILABLE,
        "this server stops: connect again, to another one or in a moment.",
        reason="SERVER_STOPPING",
        retry_after_s=retry_after_s,
    )


def _packed(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def quoted(text: str) -> str:
    """``text`` for a message: in double quotes, shortened, with escapes for what cannot be printed."""
    shown = text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…"
    return json.dumps(shown, ensure_ascii=not shown.isprintable())
