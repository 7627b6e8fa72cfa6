"""Asking other replicas: a node's link is open to one of them only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from footlights.control.dispatch.link import Hub, unreachable
from footlights.control.observability import certificates
from footlights.gateway.upstream.grpc import status_of
from footlights.protocol import times
from footlights.status import from_status
from footlights.store.cluster import replica_rows
from footlights.v1 import agent_pb2, replica_pb2, replica_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from footlights.control.call.context import Call
    from footlights.store import Store

_RIVAL_SLACK_S = 3.0
_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.enable_retries", 0),
)


class Peers:
    """The other replicas, by what may be asked of them."""

    def __init__(self, store: Store, hub: Hub, me: str, proof: str, certificate: Path | None = None) -> None:
        """Take where nodes' links are, which replica this is, what proves it, and the certificate that all serve with.

        Args:
            store: Says which replica has a node's link.
            hub: The links of this one.
            me: This one.
            proof: What others know it by.
            certificate: That all of them serve with; None without TLS.
        """
        self._store, self._hub, self._me = store, hub, me
        self._metadata = (("authorization", f"Bearer {proof}"),)
        self._certificate = certificate
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            await channel.close()

    async def log(
        self, node: str, launch_id: str, *, tail_lines: int, follow: bool
    ) -> AsyncIterator[agent_pb2.LogPart]:
        """Read a launch's output from its node's agent, wherever its link is.

        Raises:
            errors.Unavailable: nobody has the agent's link, or it does not answer.
            errors.NotFound: the agent has no output of the launch any more.
        """
        stub = None if self._hub.get(node) is not None else await self._replica_of(node)
        if stub is None:
            async for part in self._hub.log(node, launch_id, tail_lines=tail_lines, follow=follow):
                yield part
            return
        request = replica_pb2.ReadLogRequest(node=node, launch_id=launch_id, tail_lines=tail_lines, follow=follow)
        # A log that is followed has no end that could be waited for; the first call's caller has a deadline of its own.
        call = stub.ReadLog(request, metadata=self._metadata, timeout=None if follow else Hub.LOG_TIMEOUT_S * 2)
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise from_status(status_of(error)) from None
        finally:
            call.cancel()

    async def rival(self, node: str, incarnation: str, patience_s: float, notice: agent_pb2.Notice) -> str:
        """Ask the replica that has a node's link whether its agent is alive; return its incarnation, or nothing.

        A replica that does not answer has no link that lives.
        """
        stub = await self._replica_of(node)
        if stub is None:
            return ""
        request = replica_pb2.FindRivalRequest(
            node=node, incarnation=incarnation, patience=times.duration(patience_s), notice=notice
        )
        try:
            answer = await stub.FindRival(request, metadata=self._metadata, timeout=patience_s + _RIVAL_SLACK_S)
        except grpc.aio.AioRpcError:
            return ""
        return str(answer.incarnation)

    async def _replica_of(self, node: str) -> replica_pb2_grpc.ReplicaServiceAsyncStub | None:
        replica, address = await self._store.read(lambda tx: replica_rows.address_of_hub(tx, node))
        if not address or replica == self._me:
            return None
        return replica_pb2_grpc.ReplicaServiceStub(self._channel(address))

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            if self._certificate is None:
                channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            else:
                credentials = grpc.ssl_channel_credentials(self._certificate.read_bytes())
                # Replicas are dialled by address, which certificates rarely name. What is trusted is our own chain, so
                # whoever answers under its name is one of us.
                name = certificates.name(self._certificate)
                override = (("grpc.ssl_target_name_override", name),) if name else ()
                channel = grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, *override))
            self._channels[address] = channel
        return self._channels[address]


class ReplicaService:
    """Answers other replicas from the links of this one."""

    MAX_PATIENCE_S = 30.0

    def __init__(self, hub: Hub) -> None:
        """Take the links."""
        self._hub = hub

    async def read_log(self, request: replica_pb2.ReadLogRequest, call: Call) -> AsyncIterator[agent_pb2.LogPart]:
        """Read a launch's output from an agent that is linked here."""
        async for part in self._hub.log(
            request.node, request.launch_id, tail_lines=request.tail_lines, follow=request.follow
        ):
            yield part

    async def find_rival(self, request: replica_pb2.FindRivalRequest, call: Call) -> replica_pb2.FindRivalResponse:
        """Say whether the agent that is linked here under this name is alive and another one."""
        if self._hub.get(request.node) is None:
            raise unreachable(request.node)
        patience = min(times.seconds(request.patience), self.MAX_PATIENCE_S)
        rival = await self._hub.rival(request.node, request.incarnation, patience)
        if rival is None:
            return replica_pb2.FindRivalResponse()
        rival.say(agent_pb2.LinkResponse(notice=request.notice))
        return replica_pb2.FindRivalResponse(incarnation=rival.incarnation)
