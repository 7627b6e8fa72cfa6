"""One call, as its handler sees it: who calls, under which id, and until when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from footlights.auth.roles import Caller

    Metadata = Sequence[tuple[str, str | bytes]]


AnyRequestT_co = TypeVar("AnyRequestT_co", covariant=True)
RequestT_co = TypeVar("RequestT_co", bound=Message, covariant=True)
ResponseT_contra = TypeVar("ResponseT_contra", bound=Message, contravariant=True)


class Call:
    """A call in progress. It is cancelled by cancelling the task that runs its handler."""

    __slots__ = (
        "_send_metadata", "caller", "certificate", "deadline", "initial_metadata", "metadata", "method", "peer",
        "request_id", "trailing_metadata",
    )  # fmt: skip

    caller: Caller
    """Set once the caller is authenticated."""

    def __init__(
        self,
        method: str,
        metadata: Metadata,
        *,
        peer: str = "inproc:",
        deadline: float | None = None,
        send_metadata: Callable[[Metadata], Awaitable[None]] | None = None,
        certificate: Callable[[], bytes] = bytes,
        caller: Caller | None = None,
    ) -> None:
        """Create it.

        ``certificate`` returns the one that its connection was opened with, PEM; empty without one. ``caller`` is for
        whom this process calls itself.
        """
        self.method, self.metadata, self.peer, self.deadline = method, metadata, peer, deadline
        self.certificate = certificate
        self.request_id = ""
        self.initial_metadata: list[tuple[str, str | bytes]] = []
        """Sent before the first response. A handler of one response may add to it, one of a stream comes too late."""
        self.trailing_metadata: list[tuple[str, str | bytes]] = []
        """Sent with the status."""
        self._send_metadata = send_metadata
        if caller is not None:
            self.caller = caller

    @property
    def opened(self) -> bool:
        """Whether the initial metadata were sent, where the transport sends them on their own."""
        return self._send_metadata is None

    async def open(self) -> None:
        """Send the initial metadata, unless they were sent."""
        if self._send_metadata is not None:
            send, self._send_metadata = self._send_metadata, None
            await send(self.initial_metadata)

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None where there is none."""
        return None if self.deadline is None else max(self.deadline - asyncio.get_running_loop().time(), 0.0)


@dataclass(frozen=True, slots=True)
class Unread(Generic[AnyRequestT_co]):
    """A call's only request, not read yet: it is read once it is known that the caller may call."""

    read: Callable[[], Awaitable[AnyRequestT_co]]


def peer_address(peer: str) -> str:
    """Return the IP address of a connection's other end, given in gRPC's form; empty where it is not over a network."""
    if not peer.startswith(("ipv4:", "ipv6:")):
        return ""
    host = peer.partition(":")[2].replace("%5B", "[").replace("%5D", "]").rpartition(":")[0]
    return host.strip("[]").partition("%")[0]


class MessageStream(Protocol[RequestT_co, ResponseT_contra]):
    """Both directions of a bidirectional stream: an object of one call, because each generator costs KiB."""

    async def read(self) -> RequestT_co | None:
        """Return the next request; None once the client has ended its side."""

    async def write(self, message: ResponseT_contra) -> None:
        """Send a response; waits while the client does not keep up."""
