"""Nodes, who they are, and tokens: NodeService, EnrollmentService and TokenService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.client.pages import Items, items
from footlights.protocol import times
from footlights.v1 import enrollment_pb2, token_pb2
from footlights.v1 import node_pb2 as pb
from footlights.v1.enrollment_pb2_grpc import EnrollmentServiceStub
from footlights.v1.node_pb2_grpc import NodeServiceStub
from footlights.v1.token_pb2_grpc import TokenServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from footlights.client.connection import CallOptions, ChangeOptions, Connection, WriteOptions


class Nodes:
    """NodeService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = NodeServiceStub(connection.channel)

    async def list(
        self, request: pb.ListNodesRequest | None = None, **options: Unpack[CallOptions]
    ) -> pb.ListNodesResponse:
        """Return one page of nodes, by name, with their devices."""
        wanted = request or pb.ListNodesRequest()
        return await self._connection.call(self._stub.ListNodes, wanted, pb.ListNodesResponse, options)

    def iterate(
        self, request: pb.ListNodesRequest | None = None, **options: Unpack[CallOptions]
    ) -> Items[pb.ListNodesResponse, pb.Node]:
        """Return all nodes that ``list`` has pages of."""
        return items(lambda wanted: self.list(wanted, **options), request or pb.ListNodesRequest())

    async def get(self, node: str, **options: Unpack[CallOptions]) -> pb.Node:
        """Return one node."""
        return await self._connection.call(self._stub.GetNode, pb.GetNodeRequest(node=node), pb.Node, options)

    async def cordon(self, node: str, message: str = "", **options: Unpack[ChangeOptions]) -> pb.Node:
        """Stop placing sessions on a node; ``message`` says why, for other operators."""
        request = pb.CordonNodeRequest(node=node, message=message)
        return await self._connection.call(self._stub.CordonNode, request, pb.Node, options)

    async def uncordon(self, node: str, **options: Unpack[ChangeOptions]) -> pb.Node:
        """Place sessions on a node again, also on one that is draining."""
        request = pb.UncordonNodeRequest(node=node)
        return await self._connection.call(self._stub.UncordonNode, request, pb.Node, options)

    async def accept(self, node: str, **options: Unpack[ChangeOptions]) -> pb.Node:
        """Let sessions be placed on a node that is new, or whose hardware has changed."""
        request = pb.AcceptNodeRequest(node=node)
        return await self._connection.call(self._stub.AcceptNode, request, pb.Node, options)

    async def drain(
        self, node: str, drain_timeout_s: float | None = None, message: str = "", **options: Unpack[ChangeOptions]
    ) -> pb.Node:
        """Empty a node; its sessions may continue for ``drain_timeout_s`` seconds, or until they end if it is None.

        ``message`` says why, for other operators.
        """
        request = pb.DrainNodeRequest(node=node, message=message)
        if drain_timeout_s is not None:
            request.drain_timeout.CopyFrom(times.duration(drain_timeout_s))
        return await self._connection.call(self._stub.DrainNode, request, pb.Node, options)

    async def update(self, node: pb.Node, paths: Iterable[str] = (), **options: Unpack[ChangeOptions]) -> pb.Node:
        """Change what is wanted of a node.

        Args:
            node: its name, and the members to change: ``scheduling.cordoned`` and ``scheduling.message``.
            paths: the members to change; one that ``node`` lacks is cleared. Empty: those that ``node`` has.
            options: as of every change.
        """
        request = pb.UpdateNodeRequest(node=node)
        request.update_mask.paths.extend(paths)
        return await self._connection.call(self._stub.UpdateNode, request, pb.Node, options)

    async def forget(self, node: str, **options: Unpack[ChangeOptions]) -> pb.ForgetNodeResponse:
        """Remove a node that will not return."""
        request = pb.ForgetNodeRequest(node=node)
        return await self._connection.call(self._stub.ForgetNode, request, pb.ForgetNodeResponse, options)


class Enrollment:
    """EnrollmentService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = EnrollmentServiceStub(connection.channel)

    async def invite(
        self, node: str, ttl_s: float | None = None, **options: Unpack[WriteOptions]
    ) -> enrollment_pb2.InviteNodeResponse:
        """Invite a node's agent, by a code that works once within ``ttl_s`` seconds, 15 minutes if that is None."""
        request = enrollment_pb2.InviteNodeRequest(node=node)
        if ttl_s is not None:
            request.ttl.CopyFrom(times.duration(ttl_s))
        return await self._connection.call(self._stub.InviteNode, request, enrollment_pb2.InviteNodeResponse, options)

    async def authorities(self, **options: Unpack[CallOptions]) -> enrollment_pb2.Authorities:
        """Return the authorities that certificates are from, the newest first."""
        request = enrollment_pb2.GetAuthoritiesRequest()
        return await self._connection.call(self._stub.GetAuthorities, request, enrollment_pb2.Authorities, options)

    async def rotate_authority(
        self, ttl_s: float | None = None, **options: Unpack[WriteOptions]
    ) -> enrollment_pb2.Authorities:
        """Make another authority, which can sign for ``ttl_s`` seconds, ten years if that is None."""
        request = enrollment_pb2.RotateAuthorityRequest()
        if ttl_s is not None:
            request.ttl.CopyFrom(times.duration(ttl_s))
        return await self._connection.call(self._stub.RotateAuthority, request, enrollment_pb2.Authorities, options)

    async def retire_authorities(
        self, *, force: bool = False, **options: Unpack[WriteOptions]
    ) -> enrollment_pb2.Authorities:
        """Trust the newest authority alone; ``force``: although nodes have certificates of another one."""
        request = enrollment_pb2.RetireAuthoritiesRequest(force=force)
        return await self._connection.call(self._stub.RetireAuthorities, request, enrollment_pb2.Authorities, options)

    async def revoke(self, node: str, **options: Unpack[WriteOptions]) -> enrollment_pb2.NodeIdentity:
        """Revoke a node's certificates, tokens and invitation; its link ends at once."""
        request = enrollment_pb2.RevokeNodeRequest(node=node)
        return await self._connection.call(self._stub.RevokeNode, request, enrollment_pb2.NodeIdentity, options)


class Tokens:
    """TokenService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = TokenServiceStub(connection.channel)

    async def create(
        self, request: token_pb2.CreateTokenRequest, **options: Unpack[WriteOptions]
    ) -> token_pb2.CreateTokenResponse:
        """Create a token. Its secret is only in this answer."""
        return await self._connection.call(self._stub.CreateToken, request, token_pb2.CreateTokenResponse, options)

    async def list(
        self, request: token_pb2.ListTokensRequest | None = None, **options: Unpack[CallOptions]
    ) -> token_pb2.ListTokensResponse:
        """Return one page of tokens, newest first, without their secrets."""
        wanted = request or token_pb2.ListTokensRequest()
        return await self._connection.call(self._stub.ListTokens, wanted, token_pb2.ListTokensResponse, options)

    def iterate(self, **options: Unpack[CallOptions]) -> Items[token_pb2.ListTokensResponse, token_pb2.Token]:
        """Return all tokens, newest first, without their secrets."""
        return items(lambda wanted: self.list(wanted, **options), token_pb2.ListTokensRequest())

    async def revoke(self, token_id: str, **options: Unpack[WriteOptions]) -> token_pb2.Token:
        """Revoke a token: it is refused from now on."""
        request = token_pb2.RevokeTokenRequest(token_id=token_id)
        return await self._connection.call(self._stub.RevokeToken, request, token_pb2.Token, options)

    async def caller(self, **options: Unpack[CallOptions]) -> token_pb2.Caller:
        """Return the caller's identity and permissions."""
        return await self._connection.call(
            self._stub.GetCaller, token_pb2.GetCallerRequest(), token_pb2.Caller, options
        )
