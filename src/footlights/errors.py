"""The one error hierarchy: the class fixes the code, the instance the facts.

Error:
    ├ InvalidArgument      3   400   names the field, the value and the fix
    ├ NotFound             5   404
    ├ AlreadyExists        6   409
    ├ PermissionDenied     7   403
    ├ Exhausted            8   429   may say when to try again
    ├ FailedPrecondition   9   400
    ├ Conflict            10   409   somebody else was faster: read again and retry
    ├ Internal            13   500   our fault
    ├ Unavailable         14   503   may say when to try again
    └ Unauthenticated     16   401

One interceptor turns an ``Error`` into a ``google.rpc.Status`` with exactly one ``ErrorInfo`` (AIP-193); the client
raises the same class from it. Codes are ``google.rpc.Code``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAIN = "footlights.dev"
"""The ``ErrorInfo.domain`` of every error of ours."""


class Error(Exception):
    """What went wrong, for a person (``message``) and for a program (``reason``, ``metadata``)."""

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
            message: What is wrong, with the value, then what to do.
            reason: UPPER_SNAKE, at most 63 characters, stable (AIP-193).
            metadata: Everything variable in the message, by name.
            retry_after_s: When trying again makes sense, in seconds.
        """
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


class InvalidArgument(Error):
    """A member of the request is wrong whatever the state of the system."""

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
        """Name the ``field`` by its path in the request and say the ``problem`` with the value and the fix."""
        super().__init__(f"{field}: {problem}", reason=reason, metadata={"field": field, **(metadata or {})})
        self.field = field
        self.problem = problem


class NotFound(Error):
    code = 5
    default_reason = "RESOURCE_NOT_FOUND"


class AlreadyExists(Error):
    code = 6
    default_reason = "RESOURCE_ALREADY_EXISTS"


class PermissionDenied(Error):
    code = 7
    default_reason = "PERMISSION_DENIED"


class Exhausted(Error):
    code = 8
    default_reason = "RESOURCE_EXHAUSTED"


class FailedPrecondition(Error):
    code = 9
    default_reason = "FAILED_PRECONDITION"


class Conflict(Error):
    code = 10
    default_reason = "CONFLICT"


class Internal(Error):
    code = 13
    default_reason = "INTERNAL"


class Unavailable(Error):
    code = 14
    default_reason = "UNAVAILABLE"


class Unauthenticated(Error):
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
        Internal,
        Unavailable,
        Unauthenticated,
    )
}
"""Code -> class, but for InvalidArgument, which is built from its field violation."""
