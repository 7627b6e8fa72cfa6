"""The error hierarchy: the class determines the code, the instance holds the details.

Error:
    ├ InvalidArgument      3   400   names the field, the value and the fix
    ├ NotFound             5   404
    ├ AlreadyExists        6   409
    ├ PermissionDenied     7   403
    ├ Exhausted            8   429   may carry a retry delay
    ├ FailedPrecondition   9   400
    ├ Conflict            10   409   a concurrent change won: read again and retry
    ├ OutOfRange          11   400   what was asked for is no longer kept, or not there yet
    ├ Internal            13   500   a defect of ours
    ├ Unavailable         14   503   may carry a retry delay
    └ Unauthenticated     16   401

``status`` converts an ``Error`` to a ``google.rpc.Status`` with exactly one ``ErrorInfo`` (AIP-193) and back, so that
the client raises the same class as the server. Codes are ``google.rpc.Code``.

A message states what is wrong, with the value, then the fix: ``limit must be at least 1 (got 0).``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAIN = "footlights.dev"
"""The ``ErrorInfo.domain`` of all errors."""


class Error(Exception):
    """An error, for a person (``message``) and for a program (``reason``, ``metadata``)."""

    code: ClassVar[int] = 2
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Describe one error.

        Args:
            message: What is wrong, with the value, then the fix.
            reason: UPPER_SNAKE, at most 63 characters, stable (AIP-193).
            metadata: All variable parts of the message, by name.
            retry_after_s: The delay after which a retry makes sense, in seconds.
        """
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


class InvalidArgument(Error):
    """A field of the request is invalid, independent of the state of the system."""

    code = 3
    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        field: str,
        problem: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Describe an invalid ``field`` (its path in the request): the ``problem``, with the value and the fix."""
        super().__init__(f"{field}: {problem}", reason=reason, metadata={"field": field, **(metadata or {})})
        self.field = field
        self.problem = problem


class NotFound(Error):
    """The resource does not exist, or the caller may not see it."""

    code = 5
    default_reason = "RESOURCE_NOT_FOUND"


class AlreadyExists(Error):
    """A resource with this id exists with other contents."""

    code = 6
    default_reason = "RESOURCE_ALREADY_EXISTS"


class PermissionDenied(Error):
    """The caller is known and lacks a permission."""

    code = 7
    default_reason = "PERMISSION_DENIED"


class Exhausted(Error):
    """A limit or quota is reached."""

    code = 8
    default_reason = "RESOURCE_EXHAUSTED"


class FailedPrecondition(Error):
    """The state of the system does not allow the request."""

    code = 9
    default_reason = "FAILED_PRECONDITION"


class Conflict(Error):
    """A concurrent change came first."""

    code = 10
    default_reason = "CONFLICT"


class OutOfRange(Error):
    """What was asked for lies outside of what is kept."""

    code = 11
    default_reason = "OUT_OF_RANGE"


class Internal(Error):
    """A defect of Footlights."""

    code = 13
    default_reason = "INTERNAL"


class Unavailable(Error):
    """The service cannot answer now."""

    code = 14
    default_reason = "UNAVAILABLE"


class Unauthenticated(Error):
    """The caller's credentials are missing or invalid."""

    code = 16
    default_reason = "UNAUTHENTICATED"


BY_CODE: Mapping[int, type[Error]] = {
    cls.code: cls
    for cls in (
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Exhausted,
        FailedPrecondition,
        Conflict,
        OutOfRange,
        Internal,
        Unavailable,
        Unauthenticated,
    )
}
"""The class for each code, except InvalidArgument, which is built from its field violation."""
