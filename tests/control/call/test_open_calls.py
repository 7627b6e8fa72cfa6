"""Health and reflection, which anyone may call, take little of the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from footlights.control.call.open_calls import OpenCalls
from tests.control.raw_http2 import DATA, END_STREAM, HEADERS, begin, frame, raw

STATES = health_pb2.HealthCheckResponse
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NO_WINDOW = b"\0\4" + bytes(4)
"""SETTINGS_INITIAL_WINDOW_SIZE of 0: nothing may be sent to this client."""


class Few(OpenCalls):
    """Takes few calls."""

    MOST = 6
    MOST_READING = 3


class Shared(OpenCalls):
    """Has many places, and few of them for one address."""

    MOST_OF_ONE = 6
    MOST_READING_OF_ONE = 3


class Hasty(OpenCalls):
    """Has little time."""

    MESSAGE_S = 0.2


@contextlib.asynccontextmanager
async def serving(kind: type[OpenCalls] = Few) -> AsyncIterator[tuple[OpenCalls, int, grpc.aio.Channel]]:
    calls = kind(["a.Service"], reflected=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(calls.handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield calls, port, channel
    finally:
        await server.stop(0)


async def check(channel: grpc.aio.Channel) -> Any:
    return await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)


@pytest.mark.parametrize("kind", [Few, Shared])
@pytest.mark.parametrize("path", [CHECK, WATCH, REFLECT])
async def test_calls_that_send_nothing_are_few(path: str, kind: type[OpenCalls]) -> None:
    """One more is refused, with a hint when to try again; as one ends, another one is served."""
    async with serving(kind) as (_, port, channel), asyncio.timeout(10):
        async with raw(port, *(begin(2 * n + 1, path) for n in range(4))) as client:
            refused = await client.until(HEADERS, 7)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(channel)
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await check(channel)
                break

    assert b"3 waiting of health and reflection" in refused
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert answer.status == STATES.SERVING


@pytest.mark.parametrize("kind", [Few, Shared])
async def test_watches_are_bounded(kind: type[OpenCalls]) -> None:
    """Each is open for long: so many, in all and of one address."""
    async with serving(kind) as (_, port, channel), asyncio.timeout(10), raw(port) as client:
        for n in range(6):
            client.send(begin(2 * n + 1, WATCH), frame(DATA, END_STREAM, 2 * n + 1, bytes(5)))
            await client.until(DATA, 2 * n + 1)
        with pytest.raises(grpc.aio.AioRpcError, match=r"6 calls of health and reflection"):
            await check(channel)


@pytest.mark.parametrize("path", [CHECK, WATCH, REFLECT])
async def test_a_message_has_its_time(path: str) -> None:
    """10 s; then its call ends, with something of it there."""
    half = frame(DATA, 0, 1, b"\0\0\0\0\x40" + bytes(9))
    async with serving(Hasty) as (_, port, channel), asyncio.timeout(10), raw(port, begin(1, path), half) as client:
        await client.until(HEADERS, 1)
        await check(channel)

    assert OpenCalls.MESSAGE_S == 10


@pytest.mark.parametrize("message", [b"\xff\xff\xff", bytes(100_000)], ids=["no message", "too long"])
async def test_what_cannot_be_read_is_refused(message: bytes) -> None:
    """Without a trace in the log: anyone may send it as often as they like."""
    async with serving() as (_, _, channel):
        for path in (CHECK, REFLECT):
            call: Any = channel.stream_stream(path)()
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.write(message)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()

            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_one_that_reads_nothing_stops_no_other() -> None:
    """Neither what others are told, nor the server that says that it stops."""
    whole = (begin(1, WATCH), frame(DATA, END_STREAM, 1, bytes(5)))
    async with (
        serving() as (calls, port, channel),
        asyncio.timeout(5),
        raw(port, *whole, settings=NO_WINDOW) as client,
    ):
        await client.until(HEADERS, 1)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        seen = [(await watch.read()).status]
        calls.stop()
        calls.say(STATES.SERVING)
        seen.append((await watch.read()).status)
        watch.cancel()

    assert seen == [STATES.SERVING, STATES.NOT_SERVING]


async def test_all_services_are_listed() -> None:
    """With the status of each; the process as a whole has no name."""
    async with serving() as (calls, _, channel):
        calls.say(STATES.NOT_SERVING)
        answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())

    assert {name: each.status for name, each in answer.statuses.items()} == dict.fromkeys(
        ("", "a.Service"), STATES.NOT_SERVING
    )
