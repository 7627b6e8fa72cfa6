"""The error hierarchy: the class determines the code, the instance holds the details.

Error:
    ├ InvalidArgument      3   400   names all fields at fault, each with its value and the fix
    ├ NotFound             5   404
    ├ AlreadyExists        6   409
    ├ PermissionDenied     7   403
    ├ Exhausted            8   429   may carry a retry delay
    ├ FailedPrecondition   9   400
    ├ Conflict            10   409   a concurrent change won: read again and retry
    ├ OutOfRange          11   400   what was asked for is no longer kept, or not there yet
    ├ Unimplemented       12   501   this process does not serve the call
    ├ Internal            13   500   a defect of ours
    ├ Unavailable         14   503   may carry a retry delay
    └ Unauthenticated     16   401

``status`` converts an ``Error`` to a ``google.rpc.Status`` with exactly one ``ErrorInfo`` (AIP-193) and back, so that
the client raises the same class as the server. Codes are ``google.rpc.Code``.

A message states what is wrong, with the value, then the fix: ``limit must be at least 1 (got 0).``

Reasons are the values of the enum ``ErrorReason`` (error_reason.proto), which also says with which code and metadata
keys each is raised; ``tests/test_errors.py`` holds every place that raises one against it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from footlights.v1 import reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

Reason = reasons.Reason

DOMAIN = "footlights.dev"
"""The ``ErrorInfo.domain`` of all errors."""


class LocalReason(StrEnum):
    """Reasons of errors that are raised and caught in one process, and are never sent."""

    # The server's own start, the administration of its database, and what its loops tell one another.
    BACKUP_FILE_UNUSABLE = "BACKUP_FILE_UNUSABLE"
    CACHE_NOT_TAKEN = "CACHE_NOT_TAKEN"
    CANNOT_LISTEN = "CANNOT_LISTEN"
    CLUSTER_KEY_DIFFERS = "CLUSTER_KEY_DIFFERS"
    CLUSTER_KEY_EXPOSED = "CLUSTER_KEY_EXPOSED"
    CLUSTER_KEY_INVALID = "CLUSTER_KEY_INVALID"
    CLUSTER_KEY_IN_USE = "CLUSTER_KEY_IN_USE"
    CLUSTER_KEY_LOCKED = "CLUSTER_KEY_LOCKED"
    CLUSTER_KEY_MISSING = "CLUSTER_KEY_MISSING"
    DATABASE_DAMAGED = "DATABASE_DAMAGED"
    DATABASE_IN_USE = "DATABASE_IN_USE"
    DATABASE_MISSING = "DATABASE_MISSING"
    DATABASE_OF_OTHER_VERSION = "DATABASE_OF_OTHER_VERSION"
    DATABASE_TOO_NEW = "DATABASE_TOO_NEW"
    DATA_DIR_LOCKED = "DATA_DIR_LOCKED"
    DATA_DIR_UNUSABLE = "DATA_DIR_UNUSABLE"
    DRIVER_MISSING = "DRIVER_MISSING"
    FIREWALL_NOT_LOADED = "FIREWALL_NOT_LOADED"
    IDENTITY_UNUSABLE = "IDENTITY_UNUSABLE"
    NOT_ENROLLED = "NOT_ENROLLED"
    NO_DEVICE = "NO_DEVICE"
    PG_DUMP_MISSING = "PG_DUMP_MISSING"
    WORK_SUPERSEDED = "WORK_SUPERSEDED"

    # Clients.
    SERVER_TOO_OLD = "SERVER_TOO_OLD"
    SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
    SESSION_OVER = "SESSION_OVER"
    TLS_DIFFERS = "TLS_DIFFERS"
    WAIT_TIMEOUT = "WAIT_TIMEOUT"

    # The simulator.
    NOT_LINKED = "NOT_LINKED"
    OPEN_FILES = "OPEN_FILES"
    WORKER = "WORKER"


class Error(Exception):
    """An error, for a person (``message``) and for a program (``reason``, ``metadata``)."""

    code: ClassVar[int] = 2
    default_reason: ClassVar[Reason] = Reason.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | LocalReason | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Describe one error.

        Args:
            message: What is wrong, with the value, then the fix.
            reason: Why, for programs; the class's default where None.
            metadata: Variable parts of the message, by name: exactly the keys that are declared with the reason.
            retry_after_s: The delay after which a retry makes sense, in seconds.
        """
        super().__init__(message)
        self.message = message
        self.reason: str = (reason or self.default_reason).value
        """A `Reason`, a `LocalReason`, or what another server sent."""
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def reword(self, words: Callable[[str], str]) -> Self:
        """Say it in other words; what it is stays. Returns itself."""
        self.message = words(self.message)
        return self


class Violation(NamedTuple):
    """A field of the request that is invalid."""

    field: str
    """Its path in the request."""
    problem: str
    """What is wrong, with the value and the fix."""
    reason: str


class InvalidArgument(Error):
    """Fields of the request are invalid, independent of the state of the system."""

    code = 3
    default_reason = Reason.INVALID_ARGUMENT

    def __init__(
        self,
        field: str,
        problem: str,
        *,
        reason: Reason | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Describe one invalid ``field`` (its path in the request): the ``problem``, with the value and the fix."""
        super().__init__(f"{field}: {problem}", reason=reason, metadata={"field": field, **(metadata or {})})
        self.violations: tuple[Violation, ...] = (Violation(field, problem, self.reason),)
        """All that were found, at least one. Reason and metadata of the error are those of the first."""

    @classmethod
    def of(cls, violations: Sequence[Violation], *, metadata: Mapping[str, str], message: str = "") -> InvalidArgument:
        """Return an error with these violations; the metadata is that of the first."""
        error = cls(violations[0].field, violations[0].problem, metadata=metadata)
        error.reason, error.violations = violations[0].reason, tuple(violations)
        error.message = message or " ".join(f"{each.field}: {each.problem}" for each in violations)
        error.args = (error.message,)
        return error

    @classmethod
    def joined(cls, found: Sequence[InvalidArgument]) -> InvalidArgument:
        """Return one error with the violations of several: the first of each field."""
        by_field: dict[str, Violation] = {}
        for violation in (each for error in found for each in error.violations):
            by_field.setdefault(violation.field, violation)
        return found[0] if len(by_field) == 1 else cls.of(tuple(by_field.values()), metadata=found[0].metadata)

    @property
    def field(self) -> str:
        """The field of the first violation."""
        return self.violations[0].field

    @property
    def problem(self) -> str:
        """What is wrong with it."""
        return self.violations[0].problem

    def renamed(self, rename: Callable[[str], str]) -> InvalidArgument:
        """Return the same error for a request that has these fields elsewhere: the violations' fields are renamed."""
        moved = [each._replace(field=rename(each.field)) for each in self.violations]
        return self.of(moved, metadata={**self.metadata, "field": moved[0].field})


class Violations:
    """Collects what several checks refuse, so that a request is refused with all of it at once.

    Each check runs in a ``with`` block of its own, which keeps an InvalidArgument back; ``refuse`` raises them::

        violations = Violations()
        for name, value in given.items():
            with violations:
                check(name, value)
        violations.refuse()
    """

    def __init__(self) -> None:
        self._found: list[InvalidArgument] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, InvalidArgument):
            return False
        self._found.append(error)
        return True

    def refuse(self) -> None:
        """Raise one InvalidArgument with all that was kept back; do nothing where nothing was."""
        if self._found:
            raise InvalidArgument.joined(self._found)


class NotFound(Error):
    """The resource does not exist, or the caller may not see it."""

    code = 5
    default_reason = Reason.RESOURCE_NOT_FOUND


class AlreadyExists(Error):
    """A resource with this id exists with other contents."""

    code = 6
    default_reason = Reason.RESOURCE_ALREADY_EXISTS


class PermissionDenied(Error):
    """The caller is known and lacks a permission."""

    code = 7
    default_reason = Reason.PERMISSION_DENIED


class Exhausted(Error):
    """A limit or quota is reached."""

    code = 8
    default_reason = Reason.RESOURCE_EXHAUSTED


class FailedPrecondition(Error):
    """The state of the system does not allow the request."""

    code = 9
    default_reason = Reason.FAILED_PRECONDITION


class Conflict(Error):
    """A concurrent change came first."""

    code = 10
    default_reason = Reason.CONFLICT


class Unimplemented(Error):
    """This process does not serve the call."""

    code = 12
    default_reason = Reason.UNIMPLEMENTED


class OutOfRange(Error):
    """What was asked for lies outside of what is kept."""

    code = 11
    default_reason = Reason.OUT_OF_RANGE


class Internal(Error):
    """A defect of Footlights."""

    code = 13
    default_reason = Reason.INTERNAL


class Unavailable(Error):
    """The service cannot answer now."""

    code = 14
    default_reason = Reason.UNAVAILABLE


class Unauthenticated(Error):
    """The caller's credentials are missing or invalid."""

    code = 16
    default_reason = Reason.UNAUTHENTICATED


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
        Unimplemented,
        Internal,
        Unavailable,
        Unauthenticated,
    )
}
"""The class for each code, except InvalidArgument, which is built from its field violations."""
