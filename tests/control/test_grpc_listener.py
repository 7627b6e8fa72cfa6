"""What gRPC clients see of the listener itself: connections that grow old, and health."""

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
from footlights.control.settings import ServerSettings
from footlights.supervision import Supervisor

SERVICE = "footlights.v1.NodeService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Listener(GrpcListener):
    """A listener whose health follows at once."""

    HEALTH_PERIOD_S = 0.01


async def _peer(_: bytes, context: Any) -> bytes:
    return str(context.peer()).encode()


async def _link(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield str(context.peer()).encode()


@contextlib.asynccontextmanager
async def listening(directory: Path, **settings: Any) -> AsyncIterator[tuple[Listener, grpc.aio.Channel]]:
    """A listener with a call and a link that say which connection they came over, and a channel to it."""
    listener = Listener(ServerSettings(directory, grpc_listen="127.0.0.1:0", **settings), [SERVICE])
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
            await listener.turn_unhealthy()
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
