"""What the gateway needs of whatever serves its calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import Message

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.rpc import status_pb2

    from footlights.gateway.guard import CallGuard

Metadata = Sequence[tuple[str, str | bytes]]
Requests = Message | AsyncIterator[Message]
"""One request, or those of a client stream."""


class UpstreamError(Exception):
    """A call ended with a status that is not OK."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class OutgoingCall:
    """What goes along with the messages of one call.

    Args:
        metadata: What the server is told beside the request.
        timeout_s: Seconds until the deadline; None for none.
        guard: Guards the task that calls, for an upstream in this process to set the deadline on.
    """

    __slots__ = ("_waiters", "deadline", "guard", "initial", "is_open", "metadata", "timeout_s", "trailing")

    def __init__(self, metadata: Metadata = (), timeout_s: float | None = None, guard: CallGuard | None = None) -> None:
        self.metadata, self.timeout_s, self.guard = metadata, timeout_s, guard
        self.deadline: float | None = None
        """The deadline on the event loop's clock, where the call is served in this process."""
        self.initial: Metadata = ()
        """The server's initial metadata: of a stream once it is open, else with the response."""
        self.trailing: Metadata = ()
        """The server's trailing metadata, once the call is over."""
        self.is_open = False
        self._waiters: list[asyncio.Future[None]] | None = None

    def open(self, initial: Metadata) -> None:
        """Note the server's initial metadata; only the first ones count."""
        if self.is_open:
            return
        self.initial, self.is_open = initial, True
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def opened(self) -> None:
        """Wait until the server has accepted the call, or has ended it."""
        if not self.is_open:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter


class Responses(Protocol):
    """The responses of a running call."""

    async def read(self) -> Message | None:
        """Return the next response, or None after the last one.

        Raises:
            UpstreamError: The call failed.
        """

    def cancel(self) -> None:
        """End the call; does nothing once it is over."""


UnaryMethod = Callable[[Requests, OutgoingCall], Awaitable[Message]]
"""Gives the one response; raises `UpstreamError`. The request belongs to the call: its caller does not use it again."""

StreamMethod = Callable[[Requests, OutgoingCall], Responses]
"""Starts a call with many responses."""


class Upstream(Protocol):
    """Serves RPCs by their descriptors."""

    def unary(self, rpc: MethodDescriptor) -> UnaryMethod:
        """Return the callable of an RPC with one response."""

    def stream(self, rpc: MethodDescriptor) -> StreamMethod:
        """Return the callable of an RPC with many responses."""


def method_path(rpc: MethodDescriptor) -> str:
    """Return an RPC's path: ``/package.Service/Method``."""
    assert rpc.containing_service is not None
    return f"/{rpc.containing_service.full_name}/{rpc.name}"


def pairs(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Return metadata as plain pairs, whatever type gRPC gives them."""
    return [(key, value) for key, value in metadata] if metadata else ()
