"""Nodes and tokens: NodeService and TokenService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.protocol import times
from footlights.v1 import node_pb2 as pb
from footlights.v1 import token_pb2
from footlights.v1.node_pb2_grpc import NodeServiceStub
from footlights.v1.token_pb2_grpc import TokenServiceStub

if TYPE_CHECKING:
    from footlights.client.connection import Connection


class Nodes:
    """NodeService. Every method raises ``footlights.errors.Error``; ``timeout_s`` is the call's deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = NodeServiceStub(connection.channel)

    async def list(self, *, timeout_s: float | None = None) -> pb.ListNodesResponse:
        """Return the nodes, by name, with their devices."""
        request = pb.ListNodesRequest()
        return await self._connection.whole(self._stub.ListNodes, request, pb.ListNodesResponse, timeout_s)

    async def get(self, node: str, *, timeout_s: float | None = None) -> pb.Node:
        """Return one node."""
        return await self._connection.call(self._stub.GetNode, pb.GetNodeRequest(node=node), pb.Node, timeout_s)

    async def cordon(self, node: str, message: str = "", *, timeout_s: float | None = None) -> pb.Node:
        """Stop placing sessions on a node; ``message`` tells other operators why."""
        request = pb.CordonNodeRequest(node=node, message=message)
        return await self._connection.call(self._stub.CordonNode, request, pb.Node, timeout_s)

    async def uncordon(self, node: str, *, timeout_s: float | None = None) -> pb.Node:
        """Place sessions on a node again, also on one that is draining."""
        request = pb.UncordonNodeRequest(node=node)
        return await self._connection.call(self._stub.UncordonNode, request, pb.Node, timeout_s)

    async def drain(
        self, node: str, deadline_s: float | None = None, message: str = "", *, timeout_s: float | None = None
    ) -> pb.Node:
        """Empty a node; its sessions may continue for ``deadline_s`` seconds, or until they end if it is None.

        ``message`` tells other operators why.
        """
        request = pb.DrainNodeRequest(node=node, message=message)
        if deadline_s is not None:
            # A server of the release before does not know drain_timeout.
            request.deadline.CopyFrom(times.duration(deadline_s))
        return await self._connection.call(self._stub.DrainNode, request, pb.Node, timeout_s)

    async def forget(self, node: str, *, timeout_s: float | None = None) -> pb.ForgetNodeResponse:
        """Remove a node that will not return."""
        request = pb.ForgetNodeRequest(node=node)
        return await self._connection.call(self._stub.ForgetNode, request, pb.ForgetNodeResponse, timeout_s)


class Tokens:
    """TokenService. Every method raises ``footlights.errors.Error``; ``timeout_s`` is the call's deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = TokenServiceStub(connection.channel)

    async def create(
        self, request: token_pb2.CreateTokenRequest, *, timeout_s: float | None = None
    ) -> token_pb2.CreateTokenResponse:
        """Create a token. Its secret is only in this answer."""
        return await self._connection.call(self._stub.CreateToken, request, token_pb2.CreateTokenResponse, timeout_s)

    async def list(self, *, timeout_s: float | None = None) -> token_pb2.ListTokensResponse:
        """Return the tokens, newest first, without their secrets."""
        return await self._connection.whole(
            self._stub.ListTokens, token_pb2.ListTokensRequest(), token_pb2.ListTokensResponse, timeout_s
        )

    async def revoke(self, token_id: str, *, timeout_s: float | None = None) -> token_pb2.Token:
        """Revoke a token: it is refused from now on."""
        request = token_pb2.RevokeTokenRequest(token_id=token_id)
        return await self._connection.call(self._stub.RevokeToken, request, token_pb2.Token, timeout_s)

    async def caller(self, *, timeout_s: float | None = None) -> token_pb2.Caller:
        """Return the caller's identity and permissions."""
        return await self._connection.call(
            self._stub.GetCaller, token_pb2.GetCallerRequest(), token_pb2.Caller, timeout_s
        )
