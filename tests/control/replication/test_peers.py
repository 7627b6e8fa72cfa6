"""Connections to other replicas: over TLS by address, dropped when they are of no more use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from footlights.agent.v1 import agent_pb2
from footlights.replica.v1 import replica_pb2

from footlights.auth.authority import Authority
from footlights.control.credentials.authorities import Authorities
from footlights.control.credentials.issuing import ServerCertificate
from footlights.control.dispatch.log_streams import LogStreams
from footlights.control.dispatch.registry import LinkRegistry
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Membership
from footlights.control.replication.peers import Peers
from footlights.protocol import former
from footlights.store import Store, open_store
from footlights.store.cluster.replica_rows import PeerAddress
from footlights.store.nodes import links
from footlights.store.nodes.links import LinkOpening
from footlights.supervision import Supervisor
from tests.client.test_tls import identity

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def membership(store: Store, name: str) -> Membership:
    return Membership(store, name, ("hub",), metrics=Metrics(), clock=lambda: NOW, supervisor=Supervisor())


def peers(
    store: Store,
    replica: Membership,
    certificate: Path | None = None,
    mutual: ServerCertificate | None = None,
) -> Peers:
    local = LinkRegistry()
    return Peers(
        store,
        replica,
        links=local,
        logs=LogStreams(local),
        proofs=lambda: ["proof"],
        supervisor=Supervisor(),
        certificate=certificate,
        mutual=mutual,
    )


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(tmp_path)
    yield store
    await store.close()


@pytest.mark.parametrize("names", [["localhost"], ["*.example.com"]], ids=["plain", "wildcard"])
async def test_replicas_find_each_other_by_address(tmp_path: Path, alone: Store, names: list[str]) -> None:
    """Over TLS a replica reaches another at an address that no certificate names, for both serve with the same one."""
    mine, other = identity(*names), identity(*names)
    (tmp_path / "tls.crt").write_bytes(mine.certificate)
    asking = peers(alone, membership(alone, "me"), tmp_path / "tls.crt")
    try:
        for served, reached in ((mine, True), (other, False)):
            server = grpc.aio.server()
            port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([(served.key, served.certificate)])
            )
            await server.start()
            connection = asking._channel(PeerAddress(f"127.0.0.1:{port}")).connection
            ready = asyncio.wait_for(connection.channel_ready(), 10 if reached else 1)
            if reached:
                await ready
            else:
                with pytest.raises(TimeoutError):
                    await ready
            await server.stop(0)
    finally:
        await asking.close()


async def test_replicas_prove_themselves_by_certificates(tmp_path: Path, alone: Store) -> None:
    """At a listener for replicas alone, whose address says so; each has a key of its own, and one authority."""
    one, credentials = _mutual(tmp_path)
    asking = peers(alone, membership(alone, "me"), mutual=one)
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        connection = asking._channel(PeerAddress("127.0.0.1:1", f"127.0.0.1:{port}")).connection
        await asyncio.wait_for(connection.channel_ready(), 10)
        plain = asking._channel(PeerAddress(f"127.0.0.1:{port}")).connection
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(plain.channel_ready(), 1)
    finally:
        await asking.close()
        await server.stop(0)


def _mutual(tmp_path: Path) -> tuple[ServerCertificate, grpc.ServerCredentials]:
    """Return the certificate of one replica, and what another of the same authority serves with."""
    authority = Authority.create("c", datetime.now(UTC))
    one, two = (
        ServerCertificate(
            Authorities([authority]), "c", [], directory=_directory(tmp_path / name), clock=lambda: datetime.now(UTC)
        )
        for name in ("one", "two")
    )
    pair = [(two.current.key, two.current.chain)]
    return one, grpc.ssl_server_credentials(pair, authority.certificates, require_client_auth=True)


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


async def test_the_connection_to_a_replica_that_is_gone_is_dropped(shared: Store) -> None:
    """That of a living one is kept."""
    me, other = membership(shared, "me"), membership(shared, "other")
    await me.join(PeerAddress("127.0.0.1:1"))
    await other.join(PeerAddress("127.0.0.1:2"))
    await me.heartbeat_once()
    asking = peers(shared, me)
    try:
        known = asking._channel(PeerAddress("127.0.0.1:2"))
        await asking.prune()
        kept = asking._channel(PeerAddress("127.0.0.1:2"))
        await other.leave()
        await me.heartbeat_once()
        await asking.prune()

        assert kept is known
        assert asking._channels == {}
        assert known.connection.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    finally:
        await asking.close()


async def test_a_renewed_certificate_is_trusted_without_a_restart(tmp_path: Path, shared: Store) -> None:
    """All replicas renew it together; connections that were made with the old one are dropped."""
    old, new = identity(), identity()
    certificate = tmp_path / "tls.crt"
    certificate.write_bytes(old.certificate)
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(new.key, new.certificate)]))
    address = f"127.0.0.1:{port}"
    await server.start()
    me, other = membership(shared, "me"), membership(shared, "other")
    await me.join(PeerAddress("127.0.0.1:1"))
    await other.join(PeerAddress(address))
    await me.heartbeat_once()
    asking = peers(shared, me, certificate)
    try:
        before = asking._channel(PeerAddress(address))
        await asking.prune()
        unchanged = asking._channel(PeerAddress(address)) is before
        certificate.write_bytes(new.certificate)
        await asking.prune()

        assert unchanged
        await asyncio.wait_for(asking._channel(PeerAddress(address)).connection.channel_ready(), 10)
    finally:
        await asking.close()
        await server.stop(0)


class _Answers:
    """What a replica answers."""

    def __init__(self) -> None:
        self.noticed: list[str] = []

    async def find_rival(self, request: replica_pb2.FindRivalRequest, _context: Any) -> replica_pb2.FindRivalResponse:
        self.noticed.append(request.notice.reason)
        return replica_pb2.FindRivalResponse(incarnation="another")

    async def read_log(self, request: replica_pb2.ReadLogRequest, _context: Any) -> AsyncIterator[agent_pb2.LogPart]:
        yield agent_pb2.LogPart(lines=[request.launch_id], last=True)

    def under(self, service: str) -> grpc.GenericRpcHandler:
        """Handlers that know the service by one name only."""
        return grpc.method_handlers_generic_handler(
            service,
            {
                "FindRival": grpc.unary_unary_rpc_method_handler(
                    self.find_rival,
                    replica_pb2.FindRivalRequest.FromString,
                    replica_pb2.FindRivalResponse.SerializeToString,
                ),
                "ReadLog": grpc.unary_stream_rpc_method_handler(
                    self.read_log, replica_pb2.ReadLogRequest.FromString, agent_pb2.LogPart.SerializeToString
                ),
            },
        )


@pytest.mark.parametrize("service", list(former.NAMES.items())[1], ids=["this", "before"])
@pytest.mark.parametrize("first", ["log", "rival"])
async def test_a_replica_of_the_release_before_is_asked_by_the_former_name(
    shared: Store, service: str, first: str
) -> None:
    """Whichever call finds out, and both from then on."""
    answers = _Answers()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([answers.under(service)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    me, other = membership(shared, "me"), membership(shared, "other")
    await me.join(PeerAddress("127.0.0.1:1"))
    await other.join(PeerAddress(address))
    opening = LinkOpening("node-a", "one", b"", (), NOW, hub="other")
    await shared.write_batched(links.OPENINGS, opening)
    asking = peers(shared, me)

    async def read() -> list[str]:
        parts = asking.log("node-a", "launch-1", tail_lines=1, follow=False)
        return [line async for part in parts for line in part.lines]

    async def find() -> str:
        return await asking.find_other("node-a", "two", 5, agent_pb2.Notice(reason="R"))

    try:
        found = (await read(), await find()) if first == "log" else (await find(), await read())[::-1]
    finally:
        await asking.close()
        await server.stop(0)

    assert found == (["launch-1"], "another")
    assert answers.noticed == ["R"]


async def test_the_hubs_are_the_other_living_replicas_that_take_links(shared: Store) -> None:
    """Where agents may be sent when this one stops."""
    me, other = membership(shared, "me"), membership(shared, "other")
    api = Membership(shared, "api", ("api",), metrics=Metrics(), clock=lambda: NOW, supervisor=Supervisor())
    for replica, address in ((me, "127.0.0.1:1"), (other, "127.0.0.1:2"), (api, "127.0.0.1:3")):
        await replica.join(PeerAddress(address))
    await me.heartbeat_once()

    assert me.hubs == ("127.0.0.1:2",)


@pytest.mark.parametrize("mutual", [True, False], ids=["this release", "the release before"])
async def test_a_listener_for_replicas_may_come_while_others_have_none(
    tmp_path: Path, shared: Store, mutual: bool
) -> None:
    """
    A replica that is restarted with ``peers_listen`` is reached by those that know its listener, with certificates, and
    by those that do not, where it was before.
    """
    one, credentials = _mutual(tmp_path)
    plain, own = grpc.aio.server(), grpc.aio.server()
    plain_answers, own_answers = _Answers(), _Answers()
    plain.add_generic_rpc_handlers([plain_answers.under(former.NAMES["footlights.replica.v1.ReplicaService"])])
    own.add_generic_rpc_handlers([own_answers.under("footlights.replica.v1.ReplicaService")])
    address = PeerAddress(
        f"127.0.0.1:{plain.add_insecure_port('127.0.0.1:0')}",
        f"127.0.0.1:{own.add_secure_port('127.0.0.1:0', credentials)}",
    )
    await plain.start()
    await own.start()
    me, other = membership(shared, "me"), membership(shared, "other")
    await me.join(PeerAddress("127.0.0.1:1"))
    await other.join(address)
    opening = LinkOpening("node-a", "one", b"", (), NOW, hub="other")
    await shared.write_batched(links.OPENINGS, opening)
    asking = peers(shared, me, mutual=one if mutual else None)
    try:
        found = await asking.find_other("node-a", "two", 5, agent_pb2.Notice(reason="R"))
    finally:
        await asking.close()
        await plain.stop(0)
        await own.stop(0)

    assert found == "another"
    assert (own_answers.noticed, plain_answers.noticed) == ((["R"], []) if mutual else ([], ["R"]))
    await me.heartbeat_once()
    assert me.hubs == (address.plain,)
