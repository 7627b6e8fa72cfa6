"""What gRPC clients see of the listener itself: connections that grow old, health, and what anyone may send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from footlights.control.grpc_listener import GrpcListener
from footlights.control.observability.metrics import Metrics
from footlights.control.settings import ServerSettings
from footlights.supervision import Supervisor
from tests.control.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    begin,
    field,
    frame,
    head,
    raw,
)

SERVICE = "footlights.v1.NodeService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Listener(GrpcListener):
    """A listener with little patience, whose health follows at once."""

    HANDSHAKE_S = 0.5
    HEALTH_PERIOD_S = 0.01
    CONNECTIONS_PERIOD_S = 0.05


class Hurried(Listener):
    """A listener whose clients always have something to do."""

    IDLE_S = 1.0


async def _peer(_: bytes, context: Any) -> bytes:
    return str(context.peer()).encode()


async def _link(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield str(context.peer()).encode()


@contextlib.asynccontextmanager
async def listening(
    directory: Path, kind: type[Listener] = Listener, **settings: Any
) -> AsyncIterator[tuple[Listener, grpc.aio.Channel]]:
    """A listener with a call and a link that say which connection they came over, and a channel to it."""
    listener = kind(ServerSettings(directory, grpc_listen="127.0.0.1:0", **settings), [SERVICE])
    handlers: dict[str, Any] = {
        "Peer": grpc.unary_unary_rpc_method_handler(_peer),
        "Link": grpc.stream_stream_rpc_method_handler(_link),
    }
    listener.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", handlers)])
    await listener.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
            yield listener, channel
    finally:
        await listener.server.stop(0)


async def test_an_old_connection_is_replaced_and_nothing_on_it_is_cut(tmp_path: Path) -> None:
    """Calls move to a new connection without one failing; a link goes on where it is, long after."""
    async with listening(tmp_path, max_connection_age_s=1) as (_, channel), asyncio.timeout(30):
        call: Any = channel.unary_unary("/test.Test/Peer")
        link: Any = channel.stream_stream("/test.Test/Link")()
        await link.write(b"")
        linked = await link.read()
        peers: set[bytes] = set()
        while len(peers) < 4:
            peers.add(await call(b""))
        await link.write(b"")

        assert await link.read() == linked
        assert linked in peers
        link.cancel()


async def _states(channel: grpc.aio.Channel, service: str) -> AsyncGenerator[int, None]:
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
    try:
        async for answer in call:
            yield answer.status
    finally:
        call.cancel()


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_turns_with_readiness_and_for_good_at_the_stop(tmp_path: Path, service: str) -> None:
    """Of the process and of each service by name; Check and Watch say the same."""
    problems = [""]

    async def problem() -> str:
        return problems[-1]

    async with listening(tmp_path) as (listener, channel), asyncio.timeout(30):
        check = health_pb2_grpc.HealthStub(channel).Check
        following = asyncio.create_task(listener.follow(problem, Supervisor()))
        async with contextlib.aclosing(_states(channel, service)) as states:
            seen = [await anext(states)]
            for text in ("The store cannot be read.", ""):
                problems.append(text)
                seen.append(await anext(states))
                assert (await check(health_pb2.HealthCheckRequest(service=service))).status == seen[-1]
            listener.turn_unhealthy()
            seen.append(await anext(states))
            assert (await check(health_pb2.HealthCheckRequest(service=service))).status == seen[-1]
        following.cancel()

        assert seen == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]


async def test_the_health_of_a_service_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    """As the protocol wants it: NOT_FOUND for Check, SERVICE_UNKNOWN for Watch, which goes on."""
    async with listening(tmp_path) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="x"))
        async with contextlib.aclosing(_states(channel, "x")) as states:
            assert await anext(states) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# What anyone may send


HALVES = {"nothing": b"", "half a preface": PREFACE[:10], "no settings": PREFACE, "half a setting": PREFACE + b"\0\0"}


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES)
async def test_a_connection_that_does_not_become_one_is_closed(tmp_path: Path, sent: bytes) -> None:
    """Its handshake has 10 s, not the two minutes of gRPC's default."""
    async with listening(tmp_path) as (listener, _), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(sent)
        answer = await reader.read()
        writer.close()

    assert GrpcListener.HANDSHAKE_S == 10
    assert b"handshake timeout" in answer or b"settings_timeout" in answer


async def test_a_client_that_does_not_acknowledge_is_cut_off(tmp_path: Path) -> None:
    """In the time of a handshake: until then gRPC does not hold it to the bound on heads."""
    async with listening(tmp_path) as (listener, _), asyncio.timeout(10), raw(listener.port) as client:
        client.answers = False
        client.send(begin(1, "/test.Test/Link"))
        await client.until_closed()

    assert client.goaway == b"settings_timeout"


@pytest.mark.parametrize("sent", [b"", frame(HEADERS, 0, 1, head("/test.Test/Peer"))], ids=["no call", "half a head"])
async def test_a_connection_without_a_call_is_closed(tmp_path: Path, sent: bytes) -> None:
    """After a minute: half a head is no call, and it keeps nothing open."""
    async with listening(tmp_path, Hurried) as (listener, _), asyncio.timeout(10), raw(listener.port) as client:
        await client.until(SETTINGS)
        client.answers = False
        client.send(sent)
        await client.until_closed()

    assert GrpcListener.IDLE_S == 60
    assert client.goaway == b"connection idle"


async def test_a_head_is_bounded(tmp_path: Path) -> None:
    """To 16 KiB, in one frame or in many without an end; the connection's other calls go on."""
    long = [frame(CONTINUATION, 0, 1, field(b"x-%d" % n, b"a" * 16_000)) for n in range(100)]
    long.append(frame(CONTINUATION, END_HEADERS, 1))
    async with listening(tmp_path) as (listener, _), asyncio.timeout(20), raw(listener.port) as client:
        await client.until(SETTINGS)
        client.send(frame(HEADERS, 0, 1, head("/test.Test/Peer")), *long)
        refused = await client.until(HEADERS, 1)
        client.send(begin(3, "/test.Test/Peer"), frame(DATA, END_STREAM, 3, bytes(5)))
        served = await client.until(DATA, 3)

    assert b"received metadata size exceeds hard limit" in refused
    assert b"127.0.0.1:" in served


async def test_streams_of_a_connection_are_bounded(tmp_path: Path) -> None:
    """The server says how many it takes, and refuses one more."""
    async with listening(tmp_path, max_connection_streams=3) as (listener, _), raw(listener.port) as client:
        settings = await client.until(SETTINGS)
        client.send(*(begin(2 * n + 1, "/test.Test/Link") for n in range(4)))
        refused = await client.until(RST_STREAM, 7)

    assert b"\0\3" + (3).to_bytes(4, "big") in [settings[at : at + 6] for at in range(0, len(settings), 6)]
    # REFUSED_STREAM or ENHANCE_YOUR_CALM: whether it knew the bound already.
    assert int.from_bytes(refused, "big") in (7, 11)


async def test_a_flood_of_pings_ends_its_connection(tmp_path: Path) -> None:
    """Those of gRPC's keepalive come every few seconds."""
    pings = [frame(PING, 0, 0, bytes(8))] * 50
    async with listening(tmp_path) as (listener, _), asyncio.timeout(10), raw(listener.port, *pings) as client:
        await client.until_closed()

    assert client.goaway == b"too_many_pings"


async def test_connections_are_bounded_in_all(tmp_path: Path) -> None:
    """One too many is closed at once; those that are there go on, and one that leaves makes room."""
    async with listening(tmp_path, max_connections=5) as (listener, channel), asyncio.timeout(20):
        call: Any = channel.unary_unary("/test.Test/Peer")
        before = await call(b"")
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw(listener.port)) for _ in range(4)]
            for client in clients:
                await client.until(SETTINGS)
            async with raw(listener.port) as refused:
                await refused.until_closed()
            assert await call(b"") == before
        admitted = False
        while not admitted:  # the server may not have noticed yet that one has left
            with contextlib.suppress(ConnectionError):
                async with raw(listener.port) as client:
                    await client.until(SETTINGS)
                    admitted = True


async def test_connections_are_bounded_per_address(tmp_path: Path) -> None:
    """What one address has beyond the bound is closed and counted; another address does not notice."""
    metrics = Metrics()
    async with (
        listening(tmp_path, max_connections_per_ip=20) as (listener, _),
        asyncio.timeout(20),
        contextlib.AsyncExitStack() as stack,
    ):
        many = [await stack.enter_async_context(raw(listener.port)) for _ in range(30)]
        other = await stack.enter_async_context(raw(listener.port, source="127.0.0.2"))
        for client in (*many, other):
            await client.until(SETTINGS)
        ends = [asyncio.create_task(client.until_closed()) for client in many]
        limiting = asyncio.create_task(listener.limit_addresses(metrics, Supervisor()))
        while sum(end.done() for end in ends) < 10:
            await asyncio.wait([end for end in ends if not end.done()], return_when=asyncio.FIRST_COMPLETED)
        other.send(begin(1, "/test.Test/Peer"), frame(DATA, END_STREAM, 1, bytes(5)))
        await other.until(DATA, 1)
        left = [end for end in ends if not end.done()]
        for task in (*left, limiting):
            task.cancel()

    shed = metrics.registry.get_sample_value("footlights_calls_shed_total", {"reason": "CONNECTIONS"})
    assert (len(left), shed) == (20, 10)


async def test_a_health_watcher_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    """With its connection: it needs no token, and gRPC cannot end its call."""
    watch = (begin(1, "/grpc.health.v1.Health/Watch"), frame(DATA, END_STREAM, 1, bytes(5)))
    async with listening(tmp_path) as (listener, channel), asyncio.timeout(20):
        async with raw(listener.port, *watch, settings=b"\0\4" + bytes(4)) as client:
            await client.until_closed()
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    assert answer.status == SERVING
