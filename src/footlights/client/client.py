"""The client: one connection, seven services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.client.applications import Applications, Profiles
from footlights.client.connection import Connection, Tls
from footlights.client.fleet import Enrollment, Nodes, Tokens
from footlights.client.pools import Pools
from footlights.client.sessions import Sessions

if TYPE_CHECKING:
    from types import TracebackType


class Client:
    """A control plane's API. An async context manager, bound to the event loop that it was created in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.sessions = Sessions(connection)
        self.applications = Applications(connection)
        self.profiles = Profiles(connection)
        self.pools = Pools(connection)
        self.nodes = Nodes(connection)
        self.enrollment = Enrollment(connection)
        self.tokens = Tokens(connection)

    @classmethod
    def connect(cls, address: str, token: str, *, tls: Tls | None = None) -> Client:
        """Return a client for ``address`` (``HOST:PORT`` or ``unix:PATH``). Connects at the first call.

        Args:
            address: its gRPC address.
            token: the API token, sent with every call.
            tls: the TLS settings; None is plain text, for this machine or behind a proxy that terminates TLS.
        """
        return cls(Connection(address, token, tls))

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        await self._connection.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
