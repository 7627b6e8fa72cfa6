"""Asks other replicas: a node's link is open to one of them only."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import grpc

from footlights.auth.authority import SERVER_NAME
from footlights.control.observability import certificates
from footlights.gateway.upstream.grpc import status_of
from footlights.protocol import times
from footlights.protocol.bounds import MAX_MESSAGE_BYTES
from footlights.protocol.dialing.proxies import DIRECT
from footlights.protocol.former import FormerNames
from footlights.replica.v1 import replica_pb2, replica_pb2_grpc
from footlights.status import from_status
from footlights.store.cluster import replica_rows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from footlights.agent.v1 import agent_pb2
    from footlights.control.call.context import Call
    from footlights.control.credentials.issuing import ServerCertificate
    from footlights.control.replication.membership import Membership
    from footlights.store import Store
    from footlights.store.cluster.replica_rows import PeerAddress
    from footlights.supervision import Supervisor

LOOP = "peers"
PERIOD_S = 30.0

_DUPLICATE_SLACK_S = 3.0
_LOG_TIMEOUT_S = 20.0
"""Twice what the replica that has the link gives the agent."""
_CLOSE_S = 5.0
"""What calls that are under way on a channel have left when it is closed."""
_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    *DIRECT,
)


class LocalLinks(Protocol):
    """The links of this replica."""

    def __contains__(self, node: object, /) -> bool:
        """Return whether a node's link is here."""

    async def find_other(self, node: str, incarnation: str, timeout_s: float, notice: agent_pb2.Notice) -> str:
        """Find another live agent under this name, and warn it; return its incarnation, empty where there is none."""


class LocalLogs(Protocol):
    """The logs that can be read over the links of this replica."""

    def read(
        self, node: str, launch_id: str, *, tail_lines: int, follow: bool
    ) -> AsyncGenerator[agent_pb2.LogPart, None]:
        """Read a launch's output from an agent that is linked here."""


@dataclass(slots=True)
class _Channel:
    connection: grpc.aio.Channel
    stub: replica_pb2_grpc.ReplicaServiceAsyncStub
    former: bool = False

    def turn_former(self) -> None:
        """Call by the names of the release before from now on; this release serves them too."""
        self.stub, self.former = _stub(FormerNames(self.connection)), True


class Peers:
    """The other replicas, by what may be asked of them."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        *,
        links: LocalLinks,
        logs: LocalLogs,
        proofs: Callable[[], Sequence[str]],
        supervisor: Supervisor,
        certificate: Path | None = None,
        mutual: ServerCertificate | None = None,
    ) -> None:
        """Create it.

        ``proofs`` are what replicas take from each other, first what is presented; ``certificate`` is the chain that
        all replicas serve with, None without TLS; ``mutual`` what this one proves itself with to the listeners that
        others have for replicas alone.
        """
        self._store, self._membership, self._links, self._logs = store, membership, links, logs
        self._proofs = proofs
        self._supervisor = supervisor
        self._certificate, self._mutual = certificate, mutual
        self._chain = b""
        """What the certificate's file held when the connections were made."""
        self._channels: dict[PeerAddress, _Channel] = {}

    async def run(self) -> None:
        """Drop connections that are of no more use, until cancelled."""
        await self._supervisor.supervise(LOOP, self.prune, every_s=PERIOD_S)

    async def prune(self) -> None:
        """Close the connections to replicas that are gone, and all of them where the certificate was renewed."""
        kept = self._membership.addresses
        if self._channels and self._shown() != self._chain:
            # A connection trusts the chain that it was made with; the next call makes another one.
            kept = frozenset()
        gone = [self._channels.pop(address) for address in self._channels.keys() - kept]
        for channel in gone:
            await channel.connection.close(_CLOSE_S)

    async def close(self) -> None:
        """Close the connections."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.connection.close()

    async def log(
        self, node: str, launch_id: str, *, tail_lines: int, follow: bool
    ) -> AsyncGenerator[agent_pb2.LogPart, None]:
        """Read a launch's output from its node's agent, whichever replica has its link.

        Raises Unavailable where no replica has the agent's link, or it does not answer; NotFound where the agent has no
        output of the launch any more.
        """
        channel = None if node in self._links else await self._replica_of(node)
        if channel is None:
            async with contextlib.aclosing(
                self._logs.read(node, launch_id, tail_lines=tail_lines, follow=follow)
            ) as parts:
                async for part in parts:
                    yield part
            return
        request = replica_pb2.ReadLogRequest(node=node, launch_id=launch_id, tail_lines=tail_lines, follow=follow)
        while True:
            # A log that is followed has no end that could be waited for; the first call's caller has a deadline of its
            # own.
            timeout_s = None if follow else _LOG_TIMEOUT_S
            call = channel.stub.ReadLog(request, metadata=self._metadata(), timeout=timeout_s)
            try:
                async for part in call:
                    yield part
                return
            except grpc.aio.AioRpcError as error:
                if not _is_of_the_release_before(channel, error):
                    raise from_status(status_of(error)) from None
            finally:
                call.cancel()
            channel.turn_former()

    async def find_other(self, node: str, incarnation: str, timeout_s: float, notice: agent_pb2.Notice) -> str:
        """Ask the replica that has a node's link whether another agent than this one is alive there, and warn it.

        Return its incarnation; empty where there is none. A replica that does not answer has no link that is alive.
        """
        channel = await self._replica_of(node)
        if channel is None:
            return ""
        request = replica_pb2.FindRivalRequest(
            node=node, incarnation=incarnation, patience=times.duration(timeout_s), notice=notice
        )
        while True:
            call = channel.stub.FindRival(request, metadata=self._metadata(), timeout=timeout_s + _DUPLICATE_SLACK_S)
            try:
                answer = await call
            except grpc.aio.AioRpcError as error:
                if not _is_of_the_release_before(channel, error):
                    return ""
                channel.turn_former()
            else:
                return str(answer.incarnation)

    def _shown(self) -> bytes:
        """Return the certificates that connections are made with now."""
        own = b"" if self._mutual is None else self._mutual.current.chain + self._mutual.shown.trusted
        return own if self._certificate is None else own + self._certificate.read_bytes()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._proofs()[0]}"),)

    async def _replica_of(self, node: str) -> _Channel | None:
        replica, address = await self._store.read(lambda tx: replica_rows.address_of_hub(tx, node))
        if replica == self._membership.me or not (address.plain or address.mutual):
            return None
        return self._channel(address)

    def _channel(self, address: PeerAddress) -> _Channel:
        if address not in self._channels:
            if not self._channels:
                self._chain = self._shown()
            if self._mutual is not None and address.mutual:
                connection = _mutual_channel(address.mutual, self._mutual)
            elif self._certificate is not None:
                connection = _secure_channel(address.plain, self._certificate)
            else:
                connection = grpc.aio.insecure_channel(address.plain, options=_OPTIONS)
            self._channels[address] = _Channel(connection, _stub(connection))
        return self._channels[address]


class ReplicaService:
    """Answers other replicas from the links of this one."""

    MAX_TIMEOUT_S = 30.0

    def __init__(self, links: LocalLinks, logs: LocalLogs) -> None:
        self._links, self._logs = links, logs

    async def read_log(
        self, request: replica_pb2.ReadLogRequest, call: Call
    ) -> AsyncGenerator[agent_pb2.LogPart, None]:
        """Read a launch's output from an agent that is linked here."""
        async with contextlib.aclosing(
            self._logs.read(request.node, request.launch_id, tail_lines=request.tail_lines, follow=request.follow)
        ) as parts:
            async for part in parts:
                yield part

    async def find_rival(self, request: replica_pb2.FindRivalRequest, call: Call) -> replica_pb2.FindRivalResponse:
        """Say whether the agent that is linked here under this name is alive and another one, and warn it."""
        timeout_s = min(times.seconds(request.patience), self.MAX_TIMEOUT_S)
        incarnation = await self._links.find_other(request.node, request.incarnation, timeout_s, request.notice)
        return replica_pb2.FindRivalResponse(incarnation=incarnation)


def _stub(channel: grpc.aio.Channel | FormerNames) -> replica_pb2_grpc.ReplicaServiceAsyncStub:
    return replica_pb2_grpc.ReplicaServiceStub(channel)  # type: ignore[arg-type]


def _is_of_the_release_before(channel: _Channel, error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.UNIMPLEMENTED and not channel.former


def _mutual_channel(address: str, mutual: ServerCertificate) -> grpc.aio.Channel:
    own = mutual.current
    credentials = grpc.ssl_channel_credentials(mutual.shown.trusted, own.key, own.chain)
    override = ("grpc.ssl_target_name_override", SERVER_NAME)
    return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, override))


def _secure_channel(address: str, certificate: Path) -> grpc.aio.Channel:
    # Replicas are dialled by address, which certificates rarely name. What is trusted is our own chain, so a server
    # that answers under its name is one of us.
    name = certificates.name(certificate)
    override = (("grpc.ssl_target_name_override", name),) if name else ()
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, *override))
