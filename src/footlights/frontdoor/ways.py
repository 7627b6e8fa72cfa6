"""What the front door needs to know of the world: where a session is, what a grant says, how much is too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Target:
    """Where a session's application listens, and whether it does yet."""

    address: str
    """The node's address as the front door reaches it: a host name or an IP, without brackets; empty before placing."""
    signal_port: int
    """The launch's signal port; 0 while it has none."""
    whep_path: str
    """The path of its WHEP endpoint, such as ``/whep``; empty where it has none."""
    websocket_path: str
    """The path of its WebSocket, such as ``/sign_in``; empty where it has none."""
    state: str
    """The name of its ``footlights.v1.Session.State``."""


class Resolve(Protocol):
    async def __call__(self, session_id: str) -> Target | None:
        """Where the session is; None where there is no such session. May raise an ``errors.Error``."""


class Grant(Protocol):
    """What a verified grant says; ``auth.grants.Grant`` is one."""

    @property
    def session_id(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def nonce(self) -> str: ...


class Grants(Protocol):
    """Verifies grants; ``auth.grants.Grants`` is one. Both raise ``errors.Unauthenticated``."""

    def verify(self, text: str, now: datetime) -> Grant:
        """The grant in ``text``, refused where its time is over."""

    def read(self, text: str) -> Grant:
        """The grant in ``text``, also when its time is over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the front door takes, in bytes, seconds and at once."""

    body_bytes: int = 256 * 1024
    """An SDP or a trickle fragment, either way."""
    message_bytes: int = 4 * 1024 * 1024
    """A WebSocket message, either way."""
    body_timeout_s: float = 10.0
    """For a client to send its body."""
    connect_timeout_s: float = 5.0
    """For a node to take a connection."""
    answer_timeout_s: float = 15.0
    """For an application to answer a request or a handshake."""
    requests: int = 256
    """HTTP requests in flight."""
    sockets: int = 4096
    """WebSockets open."""
