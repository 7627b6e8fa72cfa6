"""A real server and a real agent that prove themselves to each other by certificates.

Covers `control.credentials.issuing`, `agent.link.identity` and `agent.link.enrolling`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import httpx2
import pytest
from footlights.agent.v1 import agent_pb2, agent_pb2_grpc, certificate_pb2, certificate_pb2_grpc
from footlights.replica.v1 import replica_pb2, replica_pb2_grpc
from footlights.v1 import node_pb2, token_pb2
from structlog.testing import capture_logs

from footlights.agent.config import AgentConfig
from footlights.agent.link.identity import LinkIdentity
from footlights.agent.main import run
from footlights.auth import invitations, tokens
from footlights.auth.authority import SERVER_NAME, Authority, new_key
from footlights.client import Client, Tls
from footlights.control.dispatch.node_identities import PERIOD_S
from footlights.control.settings import ServerSettings
from footlights.errors import FailedPrecondition, InvalidArgument, Unavailable
from footlights.protocol import handshake
from tests.control.test_server import serving

ANYWHERE = "0.0.0.0"
GPUS = {"gpus": [{"uuid": "GPU-0"}]}


@dataclass
class Fleet:
    """A server with a listener for agents, and what connects to it."""

    directory: Path
    at: dict[str, str]
    client: Client
    agents: list[tuple[asyncio.Event, asyncio.Task[None]]] = field(default_factory=list)

    @property
    def server(self) -> str:
        """Where gRPC listens, as seen from another machine."""
        return f"{ANYWHERE}:{self.at['grpc'].rpartition(':')[2]}"

    @property
    def agents_at(self) -> str:
        """Where agents link with certificates."""
        return f"{ANYWHERE}:{self.at['agents'].rpartition(':')[2]}"

    def pair_of(self, node: str) -> grpc.ChannelCredentials:
        """What an enrolled agent shows."""
        enrolled = LinkIdentity(self.directory / "agent" / "identity.json", node).enrolled
        assert enrolled is not None
        pair = enrolled.pair
        return grpc.ssl_channel_credentials(enrolled.authorities.encode(), pair.key, pair.chain)

    def config(self, **given: Any) -> AgentConfig:
        """The configuration of an agent."""
        gpus = self.directory / "gpus.json"
        gpus.write_text(json.dumps(GPUS))
        known: dict[str, Any] = {
            "data_dir": self.directory / "agent",
            "server": self.server,
            "node": "gpu-1",
            "devices": f"fake:{gpus}",
            "launchers": ("fake",),
        }
        return AgentConfig(**(known | given))

    def start(self, config: AgentConfig) -> asyncio.Task[None]:
        """Start an agent."""
        stop = asyncio.Event()
        task = asyncio.create_task(run(config, stop))
        self.agents.append((stop, task))
        return task

    async def stop_agents(self) -> None:
        """Stop all agents."""
        for stop, _ in self.agents:
            stop.set()
        await asyncio.gather(*(task for _, task in self.agents), return_exceptions=True)
        self.agents.clear()

    async def until(self, is_so: Callable[[node_pb2.Node], bool], node: str = "gpu-1") -> node_pb2.Node:
        """Wait until a node is as it should be."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Exception):
                    found = await self.client.nodes.get(node)
                    if is_so(found):
                        return found
                await asyncio.sleep(0.2)


def is_connected(node: node_pb2.Node) -> bool:
    return node.condition == node.CONNECTED


def settings(directory: Path, **given: Any) -> ServerSettings:
    """A server that is reached from other machines, with TLS that nobody has set up."""
    known = {"grpc_listen": f"{ANYWHERE}:0", "http_listen": f"{ANYWHERE}:0", "agents_listen": f"{ANYWHERE}:0"}
    return ServerSettings(directory / "server", **(known | {"heartbeat_interval_s": 0.2} | given))


@contextlib.asynccontextmanager
async def fleet_of(directory: Path, **given: Any) -> AsyncIterator[Fleet]:
    """Run a server; its agents are stopped at the end."""
    async with serving(settings(directory, **given)) as at:
        ca = (directory / "server" / "ca.pem").read_bytes()
        token = (directory / "server" / "admin.token").read_text().strip()
        address = f"localhost:{at['grpc'].rpartition(':')[2]}"
        async with Client.connect(address, token, tls=Tls(ca=ca)) as client:
            fleet = Fleet(directory, at, client)
            try:
                yield fleet
            finally:
                await fleet.stop_agents()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A server with a listener for agents."""
    async with fleet_of(tmp_path) as found:
        yield found


async def test_an_invited_agent_links_with_its_certificate_and_nothing_else(fleet: Fleet) -> None:
    """One code is all that it is given: no token, no certificate of the server. It needs the code only once."""
    invited = await fleet.client.enrollment.invite("gpu-1")
    fleet.start(fleet.config(enroll=invited.code))
    node = await fleet.until(is_connected)

    assert node.identity.HasField("enrolled_time")
    path = fleet.directory / "agent" / "identity.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert invited.code not in path.read_text()
    await fleet.stop_agents()
    await fleet.until(lambda node: not is_connected(node))

    for given in ({}, {"enroll": invited.code}):
        fleet.start(fleet.config(**given))
        await fleet.until(is_connected)
        await fleet.stop_agents()
        await fleet.until(lambda node: not is_connected(node))


async def test_revoking_ends_the_link_at_once_and_inviting_again_lets_it_in(tmp_path: Path) -> None:
    """The agent keeps its certificate, which is worth nothing any more; the next code is."""
    # Heartbeats are rare, so that silence ends no link.
    async with fleet_of(tmp_path, heartbeat_interval_s=30.0) as fleet:
        fleet.start(fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code))
        await fleet.until(is_connected)
        await fleet.stop_agents()
        own = fleet.pair_of("gpu-1")
        linked = asyncio.create_task(_link(fleet.agents_at, own, until_end=True))
        await fleet.until(is_connected)
        loop = asyncio.get_running_loop()

        began = loop.time()
        await fleet.client.enrollment.revoke("gpu-1")

        assert await linked == "PERMISSION_DENIED"
        # Sooner than links are compared with the store.
        assert loop.time() - began < PERIOD_S - 1
        assert await _link(fleet.agents_at, own) == "PERMISSION_DENIED"
        fleet.start(fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code))
        await fleet.until(is_connected)


async def test_a_certificate_is_renewed_over_the_link(tmp_path: Path) -> None:
    """At two thirds of its life, for another key, and without a break of the link."""
    async with fleet_of(tmp_path, certificate_ttl_s=60) as fleet:
        config = fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code)
        fleet.start(config)
        first = await fleet.until(is_connected)
        path = fleet.directory / "agent" / "identity.json"
        before = json.loads(path.read_text())
        # The certificate begins five minutes before it was made, for clocks that are behind: so 60 s are due at once.
        async with asyncio.timeout(30):
            while json.loads(path.read_text())["chain"] == before["chain"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        after = json.loads(path.read_text())
        renewed = await fleet.client.nodes.get("gpu-1")

    assert after["key"] != before["key"]
    assert renewed.epoch == first.epoch
    assert renewed.identity.expire_time.ToNanoseconds() > first.identity.expire_time.ToNanoseconds()


async def test_a_second_machine_with_the_same_name_takes_the_place_of_the_first(fleet: Fleet) -> None:
    """An enrollment voids the one before: the link of the first ends, and its certificate opens no other."""
    first = fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code)
    fleet.start(first)
    before = await fleet.until(is_connected)
    second = fleet.config(
        enroll=(await fleet.client.enrollment.invite("gpu-1")).code, data_dir=fleet.directory / "other"
    )

    fleet.start(second)

    await fleet.until(lambda node: node.epoch > before.epoch and is_connected(node))


async def _link(
    address: str,
    credentials: grpc.ChannelCredentials | None,
    token: str = "",
    node: str = "gpu-1",
    *,
    until_end: bool = False,
) -> str:
    """Open a link; return what it ends with, or that it was welcomed."""
    options = (("grpc.ssl_target_name_override", SERVER_NAME),)
    channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, options=options)
    )
    async with channel:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        call: Any = agent_pb2_grpc.AgentServiceStub(channel).Link(metadata=metadata, timeout=20)
        try:
            hello = agent_pb2.Hello(node=node, incarnation="one", protocol=handshake.ours())
            await call.write(agent_pb2.LinkRequest(hello=hello))
            answer = await call.read()
            while until_end and answer is not grpc.aio.EOF:
                answer = await call.read()
            return str(answer.WhichOneof("message") if answer is not grpc.aio.EOF else (await call.code()).name)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except asyncio.InvalidStateError:
            return str((await call.code()).name)


async def test_a_link_needs_a_certificate_with_the_name_of_its_node(fleet: Fleet) -> None:
    """None, one that anybody made, one of another node, and one of a server: all are refused, a token helps none."""
    agents = fleet.agents_at
    ca = (fleet.directory / "server" / "ca.pem").read_bytes()
    token = await fleet.client.tokens.create(token_pb2.CreateTokenRequest(role=token_pb2.Token.NODE, subject="gpu-1"))
    fleet.start(fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-2")).code, node="gpu-2"))
    await fleet.until(is_connected, "gpu-2")
    await fleet.stop_agents()
    own = fleet.pair_of("gpu-2")
    stranger = Authority.create("c", datetime.now(UTC))
    key, request = new_key()
    forged = stranger.node_certificate(
        request, cluster="c", node="gpu-1", enrollment="e", now=datetime.now(UTC), ttl_s=60
    )
    server = (fleet.directory / "server" / "server.key", fleet.directory / "server" / "server.crt")

    outcomes = {
        "plain": await _link(agents, None, token.secret),
        "no certificate": await _link(agents, grpc.ssl_channel_credentials(ca), token.secret),
        "forged": await _link(agents, grpc.ssl_channel_credentials(ca, key, forged), token.secret),
        "server": await _link(
            agents, grpc.ssl_channel_credentials(ca, server[0].read_bytes(), server[1].read_bytes()), token.secret
        ),
        "another": await _link(agents, own, token.secret),
        "own": await _link(agents, own, node="gpu-2"),
    }

    assert outcomes == {
        "plain": "UNAVAILABLE",
        "no certificate": "UNAVAILABLE",
        "forged": "UNAVAILABLE",
        "server": "PERMISSION_DENIED",
        "another": "PERMISSION_DENIED",
        "own": "welcome",
    }


@pytest.mark.parametrize("code", ["", "nonsense", "unknown"])
async def test_an_agent_without_a_good_code_says_so_and_ends(fleet: Fleet, code: str) -> None:
    """Nothing is kept, so that a good one can be given."""
    given = invitations.code(tokens.mint()) if code == "unknown" else code
    kind = FailedPrecondition if code == "unknown" else InvalidArgument

    with pytest.raises(kind) as caught:
        await run(fleet.config(enroll=given), asyncio.Event())

    assert "footlights nodes invite" in str(caught.value)
    assert not (fleet.directory / "agent" / "identity.json").exists()


async def test_a_code_that_is_refused_takes_no_certificate_away(fleet: Fleet) -> None:
    """An agent that has one links with it, whatever code it is given: nobody used that one in time."""
    fleet.start(fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code))
    before = await fleet.until(is_connected)
    await fleet.stop_agents()

    fleet.start(fleet.config(enroll=invitations.code(tokens.mint())))

    await fleet.until(lambda node: node.epoch > before.epoch and is_connected(node))


async def test_the_authority_is_replaced_without_downtime(tmp_path: Path) -> None:
    """
    A linked node is told of the new one and renews, on its link. One that was off comes back with what it knows, and
    renews then. Clients with the old ``ca.pem`` are served until the old authority is retired, which waits for nodes.
    """
    async with fleet_of(tmp_path) as fleet:
        for node in ("gpu-1", "gpu-2"):
            given = {"node": node, "data_dir": tmp_path / node}
            fleet.start(fleet.config(enroll=(await fleet.client.enrollment.invite(node)).code, **given))
            await fleet.until(is_connected, node)
        await fleet.stop_agents()
        fleet.start(fleet.config(data_dir=tmp_path / "gpu-1"))
        before = await fleet.until(lambda node: node.epoch == 2)
        ca = tmp_path / "server" / "ca.pem"
        old_ca = ca.read_bytes()

        made = await fleet.client.enrollment.rotate_authority()

        assert [each.node_count for each in made.items] == [0, 2]
        await _signed_by(fleet, made.items[0].authority_id, 1)
        linked = await fleet.client.nodes.get("gpu-1")
        assert (linked.epoch, is_connected(linked)) == (before.epoch, True)
        assert ca.read_bytes().count(b"BEGIN CERTIFICATE") == 2
        with pytest.raises(FailedPrecondition, match="gpu-2 still have certificates of an authority before") as caught:
            await fleet.client.enrollment.retire_authorities()
        assert (caught.value.reason, caught.value.metadata) == ("AUTHORITY_IN_USE", {"nodes": "gpu-2"})
        # With the new certificate, by the new name, and one with the old certificate, by the old name.
        await fleet.stop_agents()
        for node in ("gpu-1", "gpu-2"):
            fleet.start(fleet.config(node=node, data_dir=tmp_path / node))
            await fleet.until(lambda found: found.epoch >= (3 if found.node == "gpu-1" else 2), node)
        await _signed_by(fleet, made.items[0].authority_id, 2)
        grpc_at = f"localhost:{fleet.at['grpc'].rpartition(':')[2]}"
        token = (tmp_path / "server" / "admin.token").read_text().strip()
        async with Client.connect(grpc_at, token, tls=Tls(ca=old_ca)) as client:
            assert (await client.tokens.caller()).subject == "admin"

        left = await fleet.client.enrollment.retire_authorities()

        assert [each.authority_id for each in left.items] == [made.items[0].authority_id]
        async with asyncio.timeout(30):
            while ca.read_bytes() == old_ca or ca.read_bytes().count(b"BEGIN CERTIFICATE") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while not await _is_served(grpc_at, ca.read_bytes(), token):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert not await _is_served(grpc_at, old_ca, token)
        await fleet.stop_agents()
        fleet.start(fleet.config(data_dir=tmp_path / "gpu-1"))
        after = await fleet.client.nodes.get("gpu-1")
        await fleet.until(lambda node: node.epoch > after.epoch and is_connected(node))
        kept = tmp_path / "gpu-1" / "identity.json"
        async with asyncio.timeout(30):
            while json.loads(kept.read_text())["authorities"] != ca.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _signed_by(fleet: Fleet, authority: str, nodes: int) -> None:
    """Wait until so many nodes have certificates of an authority."""
    async with asyncio.timeout(60):
        while True:
            known = await fleet.client.enrollment.authorities()
            if {each.authority_id: each.node_count for each in known.items}.get(authority) == nodes:
                return
            await asyncio.sleep(0.1)


async def _is_served(address: str, ca: bytes, token: str) -> bool:
    async with Client.connect(address, token, tls=Tls(ca=ca)) as client:
        try:
            await client.tokens.caller(timeout_s=10)
        except Unavailable:
            return False
        return True


class Impostor(certificate_pb2_grpc.CertificateServiceServicer):
    """Between an agent and the control plane: signs with an authority of its own, and does not know the code."""

    async def Enroll(self, request: certificate_pb2.EnrollRequest, context: object) -> certificate_pb2.EnrollResponse:
        authority = Authority.create("c", datetime.now(UTC))
        chain = authority.node_certificate(
            request.signing_request, cluster="c", node="gpu-1", enrollment="e", now=datetime.now(UTC), ttl_s=60
        )
        certificate = certificate_pb2.Certificate(chain=chain, authorities=authority.certificates, address=":1")
        text = certificate.SerializeToString()
        proof = invitations.answer_proof(bytes(32), text, request.proof)
        return certificate_pb2.EnrollResponse(certificate=text, proof=proof)

    async def EnrollPod(
        self, request: certificate_pb2.EnrollPodRequest, context: object
    ) -> certificate_pb2.Certificate:
        raise NotImplementedError


async def test_nobody_poses_as_the_control_plane(tmp_path: Path) -> None:
    """What an impostor gives an agent is not taken, and from what the agent has sent it learns nothing of the code."""
    server = grpc.aio.server()
    certificate_pb2_grpc.add_CertificateServiceServicer_to_server(Impostor(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        config = AgentConfig(
            data_dir=tmp_path,
            server=f"127.0.0.1:{port}",
            node="gpu-1",
            enroll=invitations.code(tokens.mint()),
            launchers=("fake",),
        )
        with pytest.raises(FailedPrecondition, match="does not know the code"):
            await run(config, asyncio.Event())
    finally:
        await server.stop(None)
    assert not (tmp_path / "identity.json").exists()


@pytest.mark.parametrize("wrong", ["clear text", "not trusted", "no TLS", "the agents' listener"])
async def test_an_agent_says_what_tls_has_to_do_with_it(tmp_path: Path, wrong: str) -> None:
    """With a token: by the name of the option that mends it, and not as a socket that was closed."""
    where = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"} if wrong == "no TLS" else {}
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "clear text": ({"insecure": True}, "has TLS, and this side does not use it. Give --ca-file"),
        "not trusted": ({"tls": True}, "is not trusted, or not for that name. Give --ca-file"),
        "no TLS": ({"tls": True}, "has no TLS, and this side uses it."),
        "the agents' listener": ({"tls": True}, "takes only callers with a certificate of a node or a replica"),
    }
    given, said = cases[wrong]
    async with serving(settings(tmp_path, **where)) as at:
        given["server"] = f"localhost:{at['grpc'].rpartition(':')[2]}"
        if wrong == "the agents' listener":
            given |= {
                "ca_file": tmp_path / "server" / "ca.pem",
                "server": f"localhost:{at['agents'].rpartition(':')[2]}",
            }
        if wrong == "clear text":
            given["server"] = f"{ANYWHERE}:{at['grpc'].rpartition(':')[2]}"
        assert said in await _logged(tmp_path, at, "not_linked", "problem", token="fl_x", **given)


async def test_an_invited_agent_says_what_tls_has_to_do_with_it(tmp_path: Path) -> None:
    """Both ways, while it tries again."""
    for where, given, said in (
        ({}, {"insecure": True}, "has TLS, and this side does not use it"),
        ({"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}, {"tls": True}, "has no TLS"),
    ):
        directory = tmp_path / said
        directory.mkdir()
        async with serving(settings(directory, **where)) as at:
            code = invitations.code(tokens.mint())
            assert said in await _logged(directory, at, "enrollment_delayed", "fix", enroll=code, **given)


async def _logged(directory: Path, at: dict[str, str], event: str, name: str, **given: Any) -> str:
    """Run an agent until it logs an event; return one of the event's fields."""
    async with Client.connect("127.0.0.1:1", "") as client:
        fleet = Fleet(directory, at, client)
        with capture_logs() as logs:
            fleet.start(fleet.config(**given))
            async with asyncio.timeout(30):
                while not any(each["event"] == event for each in logs):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await fleet.stop_agents()
    return str(next(each[name] for each in logs if each["event"] == event))


async def test_an_identity_is_of_one_node(fleet: Fleet) -> None:
    """An agent with another name does not start with it, and says what to do."""
    config = fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code)
    fleet.start(config)
    await fleet.until(is_connected)
    await fleet.stop_agents()

    with pytest.raises(FailedPrecondition, match="'gpu-1', and this agent is 'gpu-2'"):
        await run(replace(config, node="gpu-2", enroll=""), asyncio.Event())


async def test_a_token_still_links_for_one_release(tmp_path: Path) -> None:
    """At the port of gRPC, whose certificate is that of the authority."""
    async with fleet_of(tmp_path) as fleet:
        made = await fleet.client.tokens.create(
            token_pb2.CreateTokenRequest(role=token_pb2.Token.NODE, subject="gpu-1")
        )
        ca = tmp_path / "server" / "ca.pem"
        given = {"token": made.secret, "ca_file": ca, "server": f"localhost:{fleet.at['grpc'].rpartition(':')[2]}"}
        fleet.start(fleet.config(**given))
        await fleet.until(is_connected)


async def test_replicas_prove_themselves_to_each_other(tmp_path: Path) -> None:
    """Where they have a listener of their own, it takes the certificate of a process, and neither a node's nor none."""
    async with fleet_of(tmp_path, peers_listen=f"{ANYWHERE}:0") as fleet:
        ca = (tmp_path / "server" / "ca.pem").read_bytes()
        fleet.start(fleet.config(enroll=(await fleet.client.enrollment.invite("gpu-1")).code))
        await fleet.until(is_connected)
        node = LinkIdentity(fleet.directory / "agent" / "identity.json", "gpu-1").enrolled
        assert node is not None
        own = [(tmp_path / "server" / name).read_bytes() for name in ("server.key", "server.crt")]
        address = f"{ANYWHERE}:{fleet.at['peers'].rpartition(':')[2]}"

        async def outcome(*pair: bytes) -> str:
            credentials = grpc.ssl_channel_credentials(ca, *pair)
            options = (("grpc.ssl_target_name_override", SERVER_NAME),)
            async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
                stub: Any = replica_pb2_grpc.ReplicaServiceStub(channel)
                try:
                    await stub.FindRival(replica_pb2.FindRivalRequest(node="gpu-1"), timeout=20)
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                return "OK"

        assert await outcome(*own) == "OK"
        assert await outcome(node.key.encode(), node.chain.encode()) == "PERMISSION_DENIED"
        assert await outcome() == "UNAVAILABLE"


async def test_tls_is_on_wherever_a_listener_leaves_the_machine(fleet: Fleet) -> None:
    """HTTP and gRPC, with the certificate that the first start makes; clients trust ``ca.pem``."""
    port = fleet.at["http"].rpartition(":")[2]
    context = ssl.create_default_context(cafile=str(fleet.directory / "server" / "ca.pem"))
    async with httpx2.AsyncClient(verify=context) as client:
        ready = await client.get(f"https://localhost:{port}/readyz")
    assert ready.json() == {"status": "SERVING"}
    assert fleet.at["http"].startswith("https://")
    with pytest.raises(httpx2.TransportError):
        async with httpx2.AsyncClient() as client:
            await client.get(f"http://localhost:{port}/readyz")
    assert (await fleet.client.tokens.caller()).subject == "admin"
    key = fleet.directory / "server" / "server.key"
    assert key.stat().st_mode & 0o777 == 0o600


async def test_a_server_of_this_machine_alone_needs_no_certificate(tmp_path: Path) -> None:
    """As before: plain on loopback."""
    async with (
        serving(ServerSettings(tmp_path, grpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0")) as at,
        httpx2.AsyncClient() as client,
    ):
        assert at["http"].startswith("http://")
        assert (await client.get(f"{at['http']}/readyz")).is_success
