"""What a caller relies on holds for both upstreams: any gRPC server, and handlers in this process.

Covers `upstream.protocol`, `upstream.grpc`, `upstream.local` and `upstream.pipe`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from footlights.gateway.upstream import GrpcUpstream, LocalUpstream, OutgoingCall, Upstream, UpstreamError
from tests.conformance.echo import message, service
from tests.gateway.handlers import HandlerCall, LocalHandlers, fail, upstream_to

pytestmark = pytest.mark.parametrize("kind", ["grpc", "local"])
UNARY, STREAM, UPLOAD, CHAT = "Fail", "Watch", "Upload", "Chat"
"""An RPC of each kind."""
Everything = message("Everything")


def rpc(name: str) -> Any:
    return service().methods_by_name[name]


def request(name: str = "", num: int = 0) -> Any:
    return message(rpc(UNARY).input_type.name)(name=name, num32=num)


def upload(*names: str) -> AsyncIterator[Any]:
    async def each() -> AsyncIterator[Any]:
        for name in names:
            yield message(rpc(UPLOAD).input_type.name)(name=name)

    return each()


def echo(name: str) -> Any:
    return message("Echo")(method=name)


def tick(seq: int) -> Any:
    return message("Tick")(seq=seq)


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


async def drained(responses: Any) -> list[int]:
    found = []
    while (each := await responses.read()) is not None:
        found.append(each.seq)
    return found


async def failing(awaitable: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await awaitable
    return caught.value


async def test_four_kinds_of_calls(kind: str) -> None:
    """One request or many, one response or many."""

    async def one(given: Any, call: HandlerCall) -> Any:
        return echo(given.name)

    async def many(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        for seq in range(given.num32):
            yield tick(seq)

    async def collect(reader: Any, call: HandlerCall) -> Any:
        names = []
        while (each := await reader.read()) is not None:
            names.append(each.name)
        return echo(",".join(names))

    async def chat(reader: Any, call: HandlerCall) -> AsyncIterator[Any]:
        while (each := await reader.read()) is not None:
            yield tick(len(each.name))

    async with upstream_to(kind, service(), {UNARY: one, STREAM: many, UPLOAD: collect, CHAT: chat}) as upstream:
        unary: Any = await upstream.unary(rpc(UNARY))(request("x"), OutgoingCall())
        collected: Any = await upstream.unary(rpc(UPLOAD))(upload("a", "b"), OutgoingCall())

        assert unary.method == "x"
        assert collected.method == "a,b"
        assert await drained(upstream.stream(rpc(STREAM))(request(num=20), OutgoingCall())) == list(range(20))
        assert await drained(upstream.stream(rpc(CHAT))(upload("a", "bb"), OutgoingCall())) == [1, 2]


async def test_metadata_both_ways(kind: str) -> None:
    """Text and binary metadata reach the handler; initial and trailing metadata come back, repeated keys too."""
    got: list[Any] = []

    async def handler(given: Any, call: HandlerCall) -> Any:
        got.extend(pair for pair in call.metadata if pair[0].startswith("x-"))
        await call.open((("x-a", "1"), ("x-a", "2")))
        call.trailing = (("x-t-bin", b"\0"),)
        return echo("")

    async with upstream_to(kind, service(), {UNARY: handler}) as upstream:
        call = OutgoingCall((("x-k", "v"), ("x-b-bin", b"\1"), ("x-k", "w")))
        await upstream.unary(rpc(UNARY))(request(), call)

        assert sorted(tuple(pair) for pair in got) == [("x-b-bin", b"\1"), ("x-k", "v"), ("x-k", "w")]
        assert [pair for pair in call.initial if pair[0] == "x-a"] == [("x-a", "1"), ("x-a", "2")]
        assert ("x-t-bin", b"\0") in list(call.trailing)


async def test_a_failure_keeps_its_status_and_metadata(kind: str) -> None:
    """Code, message and details arrive, of a unary call and of a stream after its messages."""
    info = error_details_pb2.ErrorInfo(reason="R", domain="d.example")

    async def handler(given: Any, call: HandlerCall) -> Any:
        await call.open((("x-a", "1"),))
        raise fail(given.num32, "because", info)

    async def broken(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        yield tick(0)
        raise fail(given.num32, "because", info)

    async with upstream_to(kind, service(), {UNARY: handler, STREAM: broken}) as upstream:
        for code in (1, 5, 14, 16):
            call = OutgoingCall()
            expected = fail(code, "because", info).status

            assert (await failing(upstream.unary(rpc(UNARY))(request(num=code), call))).status == expected
            assert ("x-a", "1") in list(call.initial)
            responses = upstream.stream(rpc(STREAM))(request(num=code), OutgoingCall())
            first: Any = await responses.read()
            assert first.seq == 0
            assert (await failing(responses.read())).status == expected


async def test_an_rpc_without_a_handler_is_unimplemented(kind: str) -> None:
    """Of one response and of many."""
    async with upstream_to(kind, service(), {}) as upstream:
        unary = await failing(upstream.unary(rpc(UNARY))(request(), OutgoingCall()))
        stream = await failing(upstream.stream(rpc(STREAM))(request(), OutgoingCall()).read())

        assert unary.status.code == stream.status.code == 12


@pytest.mark.parametrize("name", [UNARY, STREAM])
@pytest.mark.parametrize("timeout_s", [0.05, 0.2])
async def test_a_deadline_ends_the_call_and_cancels_the_handler(kind: str, name: str, timeout_s: float) -> None:
    """DEADLINE_EXCEEDED; the handler has seen how much time it had."""
    cancelled = asyncio.Event()
    remaining: list[float] = []
    # Over a socket the call must reach its handler in time, also on a busy machine.
    timeout_s += 1.0 if kind == "grpc" else 0.0

    async def wait(call: HandlerCall) -> None:
        remaining.append(call.time_remaining() or 0.0)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def one(given: Any, call: HandlerCall) -> Any:
        await wait(call)

    async def many(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        await wait(call)
        yield tick(0)

    async with upstream_to(kind, service(), {UNARY: one, STREAM: many}) as upstream:
        call = OutgoingCall(timeout_s=timeout_s)
        if name == UNARY:
            error = await failing(upstream.unary(rpc(name))(request(), call))
        else:
            error = await failing(upstream.stream(rpc(name))(request(), call).read())

        assert error.status.code == 4
        # Over the wire the deadline is rounded up to what its header can say.
        assert 0 < remaining[0] < timeout_s + 0.1
        await until(cancelled)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_cancelling_the_caller_cancels_the_handler(kind: str) -> None:
    """Of a unary call by its task, of a stream by ``cancel``."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def one(given: Any, call: HandlerCall) -> Any:
        await wait()

    async def many(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        await wait()
        yield tick(0)

    async with upstream_to(kind, service(), {UNARY: one, STREAM: many}) as upstream:

        async def unary() -> None:
            await upstream.unary(rpc(UNARY))(request(), OutgoingCall(timeout_s=30))

        task = asyncio.create_task(unary())
        await until(started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(cancelled)

        started.clear()
        cancelled.clear()
        responses = upstream.stream(rpc(STREAM))(request(), OutgoingCall())
        await until(started)
        responses.cancel()
        await until(cancelled)


async def test_an_accepted_stream_is_open_before_its_first_message(kind: str) -> None:
    """Its initial metadata arrive; a stream that ends without a message is open, too."""
    go = asyncio.Event()

    async def many(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        await call.open((("x-a", "1"),))
        await go.wait()
        for _ in ():
            yield tick(0)

    async with upstream_to(kind, service(), {STREAM: many}) as upstream:
        call = OutgoingCall()
        responses = upstream.stream(rpc(STREAM))(request(), call)
        async with asyncio.timeout(5):
            await call.opened()
        assert ("x-a", "1") in list(call.initial)
        go.set()
        assert await responses.read() is None


async def test_neither_side_sees_what_the_other_does_to_a_message(kind: str) -> None:
    """A handler may reuse a response that it has yielded or returned; a request is the handler's own."""
    kept = echo("as it was returned")

    async def one(given: Any, call: HandlerCall) -> Any:
        asyncio.get_running_loop().call_soon(setattr, kept, "method", "changed after the return")
        return kept

    async def many(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        reused = tick(0)
        for seq in range(3):
            reused.seq = seq
            yield reused
        reused.seq = 99

    async with upstream_to(kind, service(), {UNARY: one, STREAM: many}) as upstream:
        answer: Any = await upstream.unary(rpc(UNARY))(request(), OutgoingCall())
        assert answer.method == "as it was returned"
        responses = upstream.stream(rpc(STREAM))(request(), OutgoingCall())
        read: list[Any] = [await responses.read() for _ in range(3)]
        assert await responses.read() is None

        assert kept.method == "changed after the return"
        assert [each.seq for each in read] == [0, 1, 2]


async def test_a_slow_reader_holds_the_handler_back(kind: str) -> None:
    """What is not read is not produced without bound, and nothing is lost."""
    produced = 0

    async def many(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        nonlocal produced
        for seq in range(2000):
            produced = seq
            yield message("Tick")(seq=seq, label="x" * 5000)

    async with upstream_to(kind, service(), {STREAM: many}) as upstream:
        responses = upstream.stream(rpc(STREAM))(request(), OutgoingCall())
        await responses.read()
        seen = -1
        async with asyncio.timeout(5):
            while seen != produced:
                seen = produced
                for _ in range(50):
                    await asyncio.sleep(0.001)
        assert produced < 1900
        assert await drained(responses) == list(range(1, 2000))


async def test_responses_come_while_requests_are_still_sent(kind: str) -> None:
    """A bidirectional stream is a conversation."""
    said: asyncio.Queue[str] = asyncio.Queue()

    async def speaking() -> AsyncIterator[Any]:
        while name := await said.get():
            yield message(rpc(CHAT).input_type.name)(name=name)

    async def chat(reader: Any, call: HandlerCall) -> AsyncIterator[Any]:
        while (each := await reader.read()) is not None:
            yield tick(len(each.name))

    async with upstream_to(kind, service(), {CHAT: chat}) as upstream:
        responses = upstream.stream(rpc(CHAT))(speaking(), OutgoingCall())
        for length in (1, 2, 3):
            said.put_nowait("x" * length)
            answer: Any = await responses.read()
            assert answer.seq == length
        said.put_nowait("")
        assert await responses.read() is None


async def test_an_answer_before_the_upload_is_over(kind: str) -> None:
    """A handler need not read all requests."""

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield message(rpc(UPLOAD).input_type.name)(name="x")

    async def first(reader: Any, call: HandlerCall) -> Any:
        return echo((await reader.read()).name)

    async with upstream_to(kind, service(), {UPLOAD: first}) as upstream, asyncio.timeout(5):
        answer: Any = await upstream.unary(rpc(UPLOAD))(endless(), OutgoingCall())

        assert answer.method == "x"


async def test_an_upstream_that_cannot_serve_is_an_error_and_no_cancellation(kind: str) -> None:
    """A server that is not there, and a handler that fails unexpectedly, end the call with a status."""

    async def broken(given: Any, call: HandlerCall) -> AsyncIterator[Any]:
        raise RuntimeError("boom")
        yield

    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        upstream: Upstream = GrpcUpstream(channel)
        if kind == "local":
            upstream = LocalUpstream(LocalHandlers(service(), {STREAM: broken, CHAT: broken}))
        stream = await failing(upstream.stream(rpc(STREAM))(request(), OutgoingCall()).read())
        chat = await failing(upstream.stream(rpc(CHAT))(upload("a"), OutgoingCall()).read())

        assert stream.status.code == chat.status.code == (14 if kind == "grpc" else 2)
