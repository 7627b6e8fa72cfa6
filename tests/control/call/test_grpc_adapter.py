"""Clients over gRPC that send or read too slowly, or what is no message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import psutil
import pytest
from footlights.agent.v1 import certificate_pb2
from footlights.replica.v1 import replica_pb2
from google.protobuf import descriptor_pool

from footlights.control.call import grpc_adapter
from footlights.control.call.grpc_adapter import grpc_handlers
from footlights.control.call.pipeline import MOST_UNKNOWN_OF_ONE
from footlights.control.call.registry import MAX_REQUEST_BYTES, Registry, Service
from tests.control.call.test_pipeline import Served, described, eventually
from tests.control.raw_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Raw, field, frame, head, raw

FIND = "/footlights.replica.v1.ReplicaService/FindRival"
READ = "/footlights.replica.v1.ReplicaService/ReadLog"
LIST = "/footlights.v1.StreamingService/ListSessions"
ENROLLING = certificate_pb2.DESCRIPTOR.services_by_name["CertificateService"].full_name
ENROLL = f"/{ENROLLING}/Enroll"
NO_WINDOW = b"\0\4" + bytes(4)


@contextlib.asynccontextmanager
async def serving(message_s: float = 0.3) -> AsyncIterator[tuple[Served, int]]:
    served = Served()
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 32 << 20),))
    enrolling = Service(descriptor_pool.Default().FindServiceByName(ENROLLING), served.handlers)
    for registry in (Registry([enrolling]), served.registry):
        # What one does not know is the other's.
        handlers = grpc_handlers(registry, served.pipeline, message_s=message_s)
        server.add_generic_rpc_handlers(handlers[:-1])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(20):
            yield served, port
    finally:
        await server.stop(0)


def begin(stream: int, path: str, token: str) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, head(path) + field(b"authorization", token.encode()))


async def status(client: Raw, stream: int) -> bytes:
    """The head that ends a call."""
    async for kind, flags, on, payload in client.frames():
        if (kind, on) == (HEADERS, stream) and flags & END_STREAM:
            return payload
    raise AssertionError("the connection ended")


@pytest.mark.parametrize(
    ("path", "token", "code"),
    [(FIND, "nobody", b"16"), (FIND, "ann", b"7"), (READ, "node", b"7"), (LIST, "nobody", b"16"), (LIST, "node", b"7")],
)
async def test_no_message_is_read_of_a_caller_that_may_not(path: str, token: str, code: bytes) -> None:
    """It is refused by its head: nothing that it sends is kept."""
    async with serving(60) as (_, port), raw(port, begin(1, path, token)) as client:
        ended = await status(client, 1)

    assert b"grpc-status" + bytes([len(code)]) + code in ended


@pytest.mark.parametrize("sent", [b"", frame(DATA, 0, 1, b"\0\0\0\0\x40" + bytes(9))], ids=["nothing", "half of one"])
@pytest.mark.parametrize("path", [FIND, READ])
async def test_a_message_has_its_time(path: str, sent: bytes) -> None:
    """30 s from its head on, over gRPC as over REST."""
    async with serving() as (served, port), raw(port, begin(1, path, "replica"), sent) as client:
        ended = await status(client, 1)

        assert served.pipeline.running == 0
    assert b"must arrive within 0.3 s" in ended
    assert grpc_adapter.MESSAGE_S == 30


async def test_one_that_reads_nothing_is_given_up() -> None:
    """After 30 s in which not one message could be sent its handler ends; the other calls of its connection go on."""
    request = replica_pb2.ReadLogRequest(node="n", launch_id="l").SerializeToString()
    message = b"\0" + len(request).to_bytes(4, "big") + request
    async with serving() as (served, port):
        calls = (begin(1, READ, "replica"), frame(DATA, END_STREAM, 1, message), begin(3, FIND, "nobody"))
        async with raw(port, *calls, settings=NO_WINDOW) as client:
            ended = await status(client, 3)
            await eventually(lambda: served.counted("ReadLog", "UNAVAILABLE") == 1)

            assert served.pipeline.running == 0
    assert b"grpc-status" in ended


async def test_unfinished_messages_take_no_memory_of_callers_that_may_not() -> None:
    """30 of up to 31 MiB on one connection: each was kept, as far as it had come."""
    process = psutil.Process()
    async with serving(60) as (_, port), raw(port) as client:
        before = process.memory_info().rss
        chunk = frame(DATA, 0, 1, bytes(16_000))
        for n in range(30):
            stream = 2 * n + 1
            client.send(begin(stream, FIND, "nobody"), frame(DATA, 0, stream, b"\0" + (31 << 20).to_bytes(4, "big")))
            client.send(*[frame(DATA, 0, stream, bytes(16_000))] * 4)
        for n in range(30):
            await client.until(HEADERS, 2 * n + 1)
        grown = process.memory_info().rss - before

    assert len(chunk) * 30 * 4 < 4 << 20
    assert grown < 16 << 20


async def test_messages_of_unknown_callers_are_few() -> None:
    """Of an RPC that needs no token so many of one address wait at once; as some end, others are served."""
    async with serving(1) as (served, port), raw(port) as client:
        registry = Registry([Service(descriptor_pool.Default().FindServiceByName(ENROLLING), served.handlers)])
        assert {rpc.max_bytes for rpc in registry.rpcs.values()} == {MAX_REQUEST_BYTES}
        client.send(*(begin(2 * n + 1, ENROLL, "") for n in range(MOST_UNKNOWN_OF_ONE + 1)))
        refused = await status(client, 2 * MOST_UNKNOWN_OF_ONE + 1)
        await eventually(lambda: served.pipeline.running == 0)
        client.send(begin(999, ENROLL, ""), frame(DATA, END_STREAM, 999, bytes(5)))
        answered = await status(client, 999)

    assert b"calls without a token wait" in refused
    assert b"calls without a token wait" not in answered


async def test_a_request_is_as_long_as_one_may_be() -> None:
    """That of a client at most 4 MiB; those of agents and replicas, which send sets, 16."""
    async with serving(60) as (served, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(LIST)
        with pytest.raises(grpc.aio.AioRpcError, match=r"at most 4194304 are taken") as caught:
            await call(bytes((4 << 20) + 1), metadata=(("authorization", "ann"),))
    agents = Registry([Service(described("AgentService"), served.handlers, strict=False)])

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {rpc.max_bytes for rpc in agents.rpcs.values()} == {16 << 20}


@pytest.mark.parametrize(("body", "expected"), [(b"\xff\xff", r"is not a footlights\.v1"), (None, "is missing")])
async def test_what_is_no_message_is_refused(body: bytes | None, expected: str) -> None:
    """As an invalid argument, not as a fault of the server, and its log stays as it is."""
    async with serving(60) as (_, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_unary(LIST)(metadata=(("authorization", "ann"),))
        if body is not None:
            await call.write(body)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match=expected) as caught:
            await call

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
