"""Refusals: the answers that the gateway gives by itself.

A refusal knows two wordings: the reference's, word for word, and a plain one that strict mode gives with
``google.rpc`` details. Modules below ``app`` raise refusals and know nothing of HTTP beyond the status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 2, 3, 4, 5
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 13, 14, 16

HTTP_STATUS: Final = {
    0: 200,
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}
"""HTTP status by gRPC code, as grpc-gateway maps them (FAILED_PRECONDITION is 400, not 412)."""


class Malformed(ValueError):
    """A text that does not stand for a value of its type.

    Attributes:
        reference: why, in the reference's words.
        wanted: what would do, as a noun phrase ("an integer").
    """

    def __init__(self, reference: str, wanted: str) -> None:
        super().__init__(reference)
        self.reference, self.wanted = reference, wanted


class Refusal(Exception):
    """A request that the gateway answers by itself.

    Args:
        code: the gRPC code.
        message: the reference's words.
        plain: our words, for strict mode; the same as ``message`` when empty.
        reason: ErrorInfo.reason, UPPER_SNAKE_CASE.
        field: the request field at fault, if one is.
        http_status: where it differs from the code's.
        headers: more response headers, lower case.
        retry_after_s: when to try again, for overload.
        text: a plain-text body that the reference has instead of a status.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        plain: str = "",
        reason: str = "INVALID_REQUEST",
        field: str = "",
        http_status: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        retry_after_s: int | None = None,
        text: str = "",
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.plain = code, message, plain or message
        self.reason, self.field = reason, field
        self.http_status = HTTP_STATUS[code] if http_status is None else http_status
        self.headers = list(headers)
        self.retry_after_s, self.text = retry_after_s, text

    def status(self, *, strict: bool, domain: str) -> status_pb2.Status:
        """The refusal as the message that becomes the body."""
        if not strict:
            return status_pb2.Status(code=self.code, message=self.message)
        status = status_pb2.Status(code=self.code, message=self.plain)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=domain)
        if self.field:
            info.metadata["field"] = self.field
        status.details.append(_packed(info))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.plain, reason=self.reason
            )
            status.details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration(seconds=self.retry_after_s)
            status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status


def _packed(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def go_quote(text: str) -> str:
    """``text`` as Go's strconv.Quote prints it, which is how the reference shows values."""
    return '"' + "".join(_ESCAPES.get(char) or _escape(char) for char in text) + '"'


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r",
                   "\t": "\\t", "\v": "\\v"}  # fmt: skip


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    point = ord(char)
    if point < 0x80:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
