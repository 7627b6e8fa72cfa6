"""The server process from its start to its end, in the test's own loop, and what its `listeners` serve.



Stopping under load is in tests/system/test_stopping.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx2
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from footlights import errors
from footlights.auth.authority import SERVER_NAME
from footlights.client.errors import from_rpc
from footlights.control.credentials.kubernetes import Kubernetes
from footlights.control.grpc_listener import GrpcListener
from footlights.control.listeners import HttpListener
from footlights.control.server import serve
from footlights.control.settings import ServerSettings
from footlights.errors import LocalReason


@contextlib.asynccontextmanager
async def serving(settings: ServerSettings, kubernetes: Kubernetes | None = None) -> AsyncIterator[dict[str, str]]:
    """A server that runs; where it listens."""
    stop = asyncio.Event()
    server = asyncio.create_task(serve(settings, stop, kubernetes))
    endpoints = settings.data_dir / "endpoints.json"
    async with asyncio.timeout(30):
        while not endpoints.exists() and not server.done():  # noqa: ASYNC110 - a file that appears wakes no one
            await asyncio.sleep(0.02)
    try:
        yield json.loads(endpoints.read_text())
    finally:
        stop.set()
        await server
        endpoints.unlink()


async def test_a_server_says_where_it_listens_and_stops_when_asked(tmp_path: Path) -> None:
    """Its endpoints are in a file once it listens; after the end its ports and its data directory are free."""
    settings = ServerSettings(data_dir=tmp_path, grpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0")
    for _ in range(2):
        async with serving(settings) as endpoints, httpx2.AsyncClient() as client:
            ready = await client.get(f"{endpoints['http']}/readyz")

            assert ready.json() == {"status": "SERVING"}
            assert endpoints.keys() == {"grpc", "http"}


PUBLIC, LINK, PEER = (
    "footlights.v1.NodeService",
    "footlights.agent.v1.AgentService",
    "footlights.replica.v1.ReplicaService",
)
CALLS = {
    PUBLIC: "ListNodes",
    LINK: "Link",
    PEER: "ReadLog",
    "grpc.reflection.v1.ServerReflection": "ServerReflectionInfo",
}


FORMER = {"footlights.v1.AgentService": "Link", "footlights.v1.ReplicaService": "ReadLog"}
"""What agents and replicas of the release before call."""


async def _outcome(address: str, service: str, proof: Path | None = None) -> str:
    """What a call without a token of a service ends with: a reason, a code, or OK; ``proof``: a server's directory."""
    channel = grpc.aio.insecure_channel(address)
    if proof is not None:
        own = [(proof / name).read_bytes() for name in ("ca.pem", "server.key", "server.crt")]
        options = (("grpc.ssl_target_name_override", SERVER_NAME),)
        channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*own), options=options)
    async with channel:
        call: Any = channel.stream_stream(f"/{service}/{(CALLS | FORMER)[service]}")()
        try:
            await call.write(b"")
            await call.done_writing()
            await call.read()
        except grpc.aio.AioRpcError as error:
            return from_rpc(error).reason or str(error.code())
        return "OK"


async def test_each_listener_serves_what_is_for_its_callers(tmp_path: Path) -> None:
    """Clients, agents, other replicas and operators each have a port of their own, and nothing else is on it."""
    each: dict[str, Any] = dict.fromkeys(
        ("grpc_listen", "http_listen", "agents_listen", "peers_listen", "admin_listen"), "127.0.0.1:0"
    )
    settings = ServerSettings(data_dir=tmp_path, node_tokens=False, **each)
    # The certificate is that of a server, which is known, and may not open a link.
    taken = ("TOKEN_MISSING", "ROLE_LACKS_PERMISSION", "NODE_UNREACHABLE")
    async with serving(settings) as at, httpx2.AsyncClient() as client:
        served = {
            name: {service for service in CALLS if await _outcome(at[name], service, proof) in taken}
            for name, proof in (("grpc", None), ("agents", tmp_path), ("peers", tmp_path))
        }
        refused = {await _outcome(at["grpc"], service) for service in (LINK, PEER)}
        former = [await _outcome(at["grpc"], service) for service in FORMER]
        unknown = await _outcome(at["grpc"], "grpc.reflection.v1.ServerReflection")
        status = {
            (name, path): (await client.get(at[name] + path)).status_code
            for name in ("http", "admin")
            for path in ("/metrics", "/livez", "/readyz", "/v1/nodes", "/console/", "/docs")
        }
        reflected = await _outcome(at["admin"].removeprefix("http://"), "grpc.reflection.v1.ServerReflection")
        described = FileDescriptorSet.FromString((await client.get(f"{at['admin']}/descriptors")).content)
        paths = [path for (name, path), code in status.items() if name == "admin" and code == 404]

    assert served == {"grpc": {PUBLIC}, "agents": {LINK}, "peers": {PEER}}
    # Replicas of the release before know no other listener, and show the cluster's key.
    assert former == ["ROLE_NOT_SERVED", "TOKEN_MISSING"]
    assert reflected == "OK"
    assert (refused, unknown) == ({"ROLE_NOT_SERVED"}, LocalReason.SERVER_TOO_OLD)
    assert (status["http", "/metrics"], status["admin", "/metrics"]) == (404, 200)
    assert {status[name, path] for name in at.keys() & {"http", "admin"} for path in ("/livez", "/readyz")} == {200}
    assert paths == ["/v1/nodes", "/console/", "/docs"]
    assert "footlights/v1/node.proto" in [file.name for file in described.file]
    assert (status["http", "/v1/nodes"], status["http", "/console/"]) == (401, 200)


async def test_one_port_serves_all_by_default(tmp_path: Path) -> None:
    """As on one machine: what clients, agents and replicas call, and reflection."""
    settings = ServerSettings(data_dir=tmp_path, grpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0")
    async with serving(settings) as at:
        outcomes = {service: await _outcome(at["grpc"], service) for service in CALLS}

    assert outcomes == {
        **dict.fromkeys((PUBLIC, LINK, PEER), "TOKEN_MISSING"),
        "grpc.reflection.v1.ServerReflection": "OK",
    }


def test_an_address_that_is_in_use_is_refused_by_name(tmp_path: Path) -> None:
    """The error names the address and the option that chooses another (`listeners`)."""
    settings = ServerSettings(data_dir=tmp_path, http_listen="127.0.0.1:0")
    first = HttpListener(settings)
    host, port = first.address
    taken = ServerSettings(data_dir=tmp_path, http_listen=f"{host}:{port}")
    try:
        with pytest.raises(errors.FailedPrecondition, match=f"{port}.*--http-listen"):
            HttpListener(taken)
    finally:
        first.close()


@pytest.mark.parametrize("name", ["agents_listen", "peers_listen", "admin_listen"])
async def test_an_address_of_any_listener_that_cannot_be_used_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """With the option that chooses another, and nothing stays bound (`grpc_listener`)."""
    first = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", name: "192.0.2.1:1"}
    settings = ServerSettings(data_dir=tmp_path, insecure=True, **first)  # type: ignore[arg-type]

    with pytest.raises(errors.FailedPrecondition, match=rf"192\.0\.2\.1:1.*--{name.replace('_', '-')}"):
        await serve(settings, asyncio.Event())


async def test_a_grpc_address_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    """As that of HTTP (`listeners`)."""
    settings = ServerSettings(data_dir=tmp_path, grpc_listen="192.0.2.1:1", insecure=True)

    with pytest.raises(errors.FailedPrecondition, match=r"192\.0\.2\.1:1.*--grpc-listen"):
        GrpcListener(settings, ())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"], ids=["plain", "TLS"])
async def test_reflection_and_health_are_at_the_admin_listener(tmp_path: Path, host: str) -> None:
    """
    Over gRPC at the port of ``/metrics``, with TLS where that has it: all services of the process are named, and none
    is served. Who asks for HTTP/1.1 as well gets that.
    """
    each: dict[str, Any] = dict.fromkeys(("grpc_listen", "http_listen", "admin_listen"), f"{host}:0")
    async with serving(ServerSettings(data_dir=tmp_path, **each)) as at:
        port = int(at["admin"].rpartition(":")[2])
        address = f"localhost:{port}"
        ca = (tmp_path / "ca.pem").read_bytes()
        channel = (
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca))
            if host == "0.0.0.0"
            else grpc.aio.insecure_channel(address)
        )
        async with channel:
            call: Any = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            await call.done_writing()
            named = {each.name for each in (await call.read()).list_services_response.service}
            state = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=PUBLIC))
            served = await _called(channel)
        context = ssl.create_default_context(cadata=ca.decode())
        context.set_alpn_protocols(["h2", "http/1.1"])
        secure: dict[str, Any] = {"ssl": context, "server_hostname": "localhost"} if host == "0.0.0.0" else {}
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **secure)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert {PUBLIC, LINK, PEER, "grpc.health.v1.Health"} <= named
    assert state.status == health_pb2.HealthCheckResponse.SERVING
    assert served == "UNIMPLEMENTED"
    assert answer.startswith(b"HTTP/1.1 200")


async def _called(channel: grpc.aio.Channel) -> str:
    try:
        call: Any = channel.unary_unary(f"/{PUBLIC}/ListNodes")
        await call(b"", timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"
