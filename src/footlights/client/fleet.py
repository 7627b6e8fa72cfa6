"""Nodes and tokens: NodeService and TokenService."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        """The nodes, by name, with their devices."""
        return await self._connection.call(self._stub.ListNodes, pb.ListNodesRequest(), pb.ListNodesResponse, timeout_s)

    async def get(self, node: str, *, timeout_s: float | None = None) -> pb.Node:
        """One node."""
        return await self._connection.call(self._stub.GetNode, pb.GetNodeRequest(node=node), pb.Node, timeout_s)

    async def cordon(self, node: str, *, timeout_s: float | None = None) -> pb.Node:
        """Place nothing new on a node."""
        return await self._connection.call(self._stub.CordonNode, pb.CordonNodeRequest(node=node), pb.Node, timeout_s)

    async def uncordon(self, node: str, *, timeout_s: float | None = None) -> pb.Node:
        """Place on a node again, also one that is draining."""
        request = pb.UncordonNodeRequest(node=node)
        return await self._connection.call(self._stub.UncordonNode, request, pb.Node, timeout_s)

    async def drain(self, node: str, deadline_s: float | None = None, *, timeout_s: float | None = None) -> pb.Node:
        """Empty a node; its sessions may go on for ``deadline_s`` seconds, or to their own end where it is None."""
        request = pb.DrainNodeRequest(node=node)
        if deadline_s is not None:
            request.deadline.FromMilliseconds(round(deadline_s * 1000))
        return await self._connection.call(self._stub.DrainNode, request, pb.Node, timeout_s)

    async def forget(self, node: str, *, timeout_s: float | None = None) -> pb.ForgetNodeResponse:
        """Give up a node that will not come back."""
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
        """Create a token. Its secret is in this answer and nowhere else."""
        return await self._connection.call(self._stub.CreateToken, request, token_pb2.CreateTokenResponse, timeout_s)

    async def list(self, *, timeout_s: float | None = None) -> token_pb2.ListTokensResponse:
        """The tokens, newest first, without their secrets."""
        return await self._connection.call(
            self._stub.ListTokens, token_pb2.ListTokensRequest(), token_pb2.ListTokensResponse, timeout_s
        )

    async def revoke(self, token_id: str, *, timeout_s: float | None = None) -> token_pb2.Token:
        """Refuse a token from now on."""
        request = token_pb2.RevokeTokenRequest(token_id=token_id)
        return await self._connection.call(self._stub.RevokeToken, request, token_pb2.Token, timeout_s)

    async def caller(self, *, timeout_s: float | None = None) -> token_pb2.Caller:
        """Who the caller is, and what it may do."""
        return await self._connection.call(
            self._stub.GetCaller, token_pb2.GetCallerRequest(), token_pb2.Caller, timeout_s
        )
