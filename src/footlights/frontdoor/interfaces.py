"""What the front door is given: where a session runs, what verifies grants, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from footlights import ids
from footlights.lifecycle import SessionState, known

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Target:
    """Where a session's application listens, and whether it does yet."""

    address: str
    """The node's address as its agent says it: a host name or an IP, without brackets; empty before placing."""
    signal_port: int
    """The launch's signal port; 0 while it has none."""
    whep_path: str
    """The path of its WHEP endpoint, such as ``/whep``; empty where it has none."""
    websocket_path: str
    """The path of its WebSocket, such as ``/sign_in``; empty where it has none."""
    state: str
    """The name of its ``footlights.v1.Session.State``."""
    removed: bool = False
    """Whether the viewer that asks was disconnected, so that its grant is refused."""
    dialled: tuple[str, ...] = ()
    """The IP addresses that it has and that were checked: no other is dialled."""
    problem: str = ""
    """Why there is none, for a viewer."""
    owner: str = ""
    """Whose session it is."""
    is_known: bool = False
    """Whether the viewer that asks has been connected before."""
    is_full: bool = False
    """Whether its application has as many viewers as it takes, and the one that asks is not among them."""
    max_viewers: int = 0
    """How many that is; 0 is not known."""
    forwarded_headers: tuple[str, ...] = ()
    """Headers of a handshake, in lower case, that are passed on to the application."""
    secret: str = field(default="", repr=False)
    """What its launch knows the front door by; empty where it has none. It is proved, and never sent."""

    @property
    def takes_viewers(self) -> bool:
        """Whether the session is in a state in which an application listens."""
        state = known(SessionState, self.state)
        return state is not None and state.has_picture and bool(self.address and self.signal_port)


class Resolve(Protocol):
    """Finds where a session runs."""

    async def __call__(self, session_id: str, viewer_id: str = "") -> Target | None:
        """Where the session is; None where there is no such session. May raise an ``errors.Error``.

        ``viewer_id``: of the viewer that asks, so that the target says whether it was disconnected.
        """


class ViewerRegister(Protocol):
    """Keeps who is connected. Its methods may raise an ``errors.Error``."""

    async def connect(self, grant: ViewerGrant, connection: str) -> Collection[str] | None:
        """Note a connection: a WHEP resource's path on the application, or a socket's name.

        Return the viewer's oldest connections where it has too many: they are not known any more, and are to be ended.
        None where the viewer has been disconnected meanwhile: the new one is to be ended.
        """

    async def disconnect(self, session_id: str, viewer_id: str, connection: str) -> None:
        """Note that a connection has ended."""

    async def removed(self, viewer_ids: Collection[str]) -> Collection[str]:
        """Which of these viewers were disconnected by a call, whenever that was."""


class ViewerGrant(Protocol):
    """The content of a verified grant; ``auth.grants.Grant`` is one."""

    @property
    def session_id(self) -> str:
        """The one session that it opens."""

    @property
    def subject(self) -> str:
        """The user who asked for it."""

    @property
    def nonce(self) -> str:
        """What makes it different from every other grant."""

    @property
    def viewer_id(self) -> str:
        """The id of the viewer that uses it."""


class EndSession(Protocol):
    """Ends a session for its owner."""

    async def __call__(self, session_id: str, owner: str) -> None:
        """Have it end. May raise an ``errors.Error``."""


class TokenHolder(Protocol):
    """Says whose an API token is."""

    async def __call__(self, token: str, permission: str) -> str:
        """Return its subject, who has this permission. May raise an ``errors.Error``."""


@dataclass(frozen=True, slots=True)
class OpenSessions:
    """Sessions that are watched and ended without a grant, as in Kit App Streaming."""

    owner: str
    """The user whose sessions are watched and ended by all who know their id; empty: nobody's."""
    end: EndSession
    holder: TokenHolder | None = None
    """Lets the holders of API tokens watch and end their own; None: it does not."""


@dataclass(frozen=True, slots=True)
class KnownById:
    """A viewer of a session of ``subject``, which has shown the session's id and no grant; a `ViewerGrant`."""

    session_id: str
    subject: str
    nonce: str

    @property
    def viewer_id(self) -> str:
        """The id of the viewer."""
        return ids.viewer_id(self.nonce)


class GrantVerifier(Protocol):
    """Verifies grants; ``auth.grants.Grants`` is one. Both raise ``errors.Unauthenticated``."""

    def verify(self, text: str, now: datetime) -> ViewerGrant:
        """The grant in ``text``; an expired one is refused."""

    def read(self, text: str) -> ViewerGrant:
        """The grant in ``text``, expired or not."""


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """How many of something may be open at the same time.

    One caller of the API may have as many, with all grants that it asked for, as it leaves free: half of them where it
    is alone, a quarter more where another one wants all, and so on. However many want all, one more still gets in.
    """

    total: int
    per_session: int
    per_grant: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The front door's bounds: bytes, seconds, and how many at the same time."""

    body_bytes: int = 256 * 1024
    """An SDP or a trickle fragment, either way."""
    message_bytes: int = 4 * 1024 * 1024
    """A WebSocket message, either way."""
    body_timeout_s: float = 10.0
    """For a client to send its whole body."""
    connect_timeout_s: float = 5.0
    """For a node to take a connection."""
    answer_timeout_s: float = 15.0
    """For an application to answer a request or a handshake."""
    room_timeout_s: float = 4.0
    """For a viewer to leave that an application counts while a new one dials: one that has just left is counted for
    seconds."""
    requests: PlaceLimits = PlaceLimits(256, per_session=32, per_grant=8)
    """Concurrent HTTP requests."""
    sockets: PlaceLimits = PlaceLimits(4096, per_session=64, per_grant=8)
    """Open WebSockets."""
