"""The errors of the client: the server's, and those that only a client can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from google.rpc import status_pb2

from footlights.errors import Error, FailedPrecondition, LocalReason, Reason, Unavailable, Unimplemented
from footlights.protocol import enums
from footlights.status import from_status, from_trailing

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc

    from footlights.v1 import session_pb2


class DeadlineExceeded(Error):
    """A deadline passed. What was waited for may still happen."""

    code: ClassVar[int] = 4
    default_reason = Reason.DEADLINE_EXCEEDED


class SessionOver(FailedPrecondition):
    """A session that was waited for has ended, or is ending, instead."""

    def __init__(self, session: session_pb2.Session) -> None:
        """Describe how ``session`` ended."""
        state = enums.field_name(session, "state")
        reason = enums.field_name(session, "end_reason") if session.end_reason else ""
        why = f" ({reason})" if reason else ""
        detail = f": {session.status_message}" if session.status_message else "."
        super().__init__(
            f"Session {session.session_id} is {state}{why}{detail}",
            reason=LocalReason.SESSION_OVER,
            metadata={"session_id": session.session_id, "state": state, "end_reason": reason},
        )
        self.session = session


class ServerTooOld(Unimplemented):
    """The control plane is of an earlier release, which does not have the call."""

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, reason=LocalReason.SERVER_TOO_OLD, metadata=metadata)


def from_rpc(problem: grpc.aio.AioRpcError) -> Error:
    """Return the error of a failed call: the one that the server raised, or one for gRPC's own."""
    code: int = problem.code().value[0]
    error = from_trailing(problem.trailing_metadata())
    if error is not None and error.reason != Reason.UNIMPLEMENTED:
        return error
    message = problem.details() or problem.code().name
    if code == DeadlineExceeded.code:
        return DeadlineExceeded("The control plane did not answer in time. Try again, or allow more time.")
    if code == ServerTooOld.code:
        return ServerTooOld(
            "The control plane does not have this call: it is of an earlier release than this client. Upgrade it, or "
            "use a client of its release."
        )
    if code == Unavailable.code:
        return Unavailable(f"The control plane cannot be reached: {message}", reason=LocalReason.SERVER_UNREACHABLE)
    return from_status(status_pb2.Status(code=code, message=message))
