"""One contract for the channel over a socket and the one in process: same stubs, same handlers, same behaviour.

What cannot be equal is pinned at the end, each with what the wire does.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.gateway.channels import channel_to, handlers, method

pytestmark = pytest.mark.parametrize("kind", ["wire", "inprocess"])
Text = StringValue
seen_by_interceptor: contextvars.ContextVar[str] = contextvars.ContextVar("seen_by_interceptor", default="nothing")


async def until(event: asyncio.Event) -> None:
    """Wait for an event with a deadline."""
    async with asyncio.timeout(5):
        await event.wait()


async def echo(request: Text, context: Any) -> Text:
    """Answer with the request."""
    return Text(value=request.value)


async def failing(call: Any) -> grpc.aio.AioRpcError:
    """The error a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def drain(call: Any, into: list[str] | None = None) -> None:
    """Read a stream to its end."""
    async for message in call:
        if into is not None:
            into.append(message.value)


async def test_unary(kind: str) -> None:
    """
    A unary call gives the response, status OK, and is done.
    """
    async with channel_to(kind, handlers(Echo=("unary_unary", echo))) as channel:
        call = method(channel, "unary_unary", "Echo")(Text(value="x"))

        assert (await call).value == "x"
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert call.done()
        assert not call.cancelled()


async def test_metadata(kind: str) -> None:
    """
    Metadata cross both ways, binary and repeated ones too; the handler sees named tuples.
    """
    got: list[Any] = []

    async def handler(request: Text, context: Any) -> Text:
        got.extend((entry.key, entry.value) for entry in context.invocation_metadata() if entry.key[:2] == "x-")
        await context.send_initial_metadata((("x-a", "1"), ("x-a", "2")))
        context.set_trailing_metadata((("x-t-bin", b"\0"),))
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        call = method(channel, "unary_unary", "M")(Text(), metadata=(("x-k", "v"), ("x-b-bin", b"\1"), ("x-k", "w")))
        await call

        assert sorted(got) == [("x-b-bin", b"\1"), ("x-k", "v"), ("x-k", "w")]
        assert [pair for pair in await call.initial_metadata() if pair[0] == "x-a"] == [("x-a", "1"), ("x-a", "2")]
        assert ("x-t-bin", b"\0") in list(await call.trailing_metadata())


async def test_bad_metadata(kind: str) -> None:
    """
    A key that gRPC cannot carry fails the call with one of grpc.aio's own errors.
    """
    async with channel_to(kind, handlers(Echo=("unary_unary", echo))) as channel:
        with pytest.raises(grpc.aio.BaseError):
            await method(channel, "unary_unary", "Echo")(Text(), metadata=(("UPPER", "v"),))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_abort(kind: str, code: grpc.StatusCode) -> None:
    """
    Every code crosses with its details and trailing metadata, after the initial metadata.
    """

    async def handler(request: Text, context: Any) -> Text:
        await context.send_initial_metadata((("x-a", "1"),))
        await context.abort(code, "because", (("x-t", "1"),))
        raise AssertionError

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text()))

        assert (error.code(), error.details()) == (code, "because")
        assert ("x-a", "1") in list(error.initial_metadata())
        assert ("x-t", "1") in list(error.trailing_metadata())


async def test_rich_status(kind: str) -> None:
    """
    Details of a google.rpc.Status arrive.
    """
    status = status_pb2.Status(code=5, message="gone")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="R"))

    async def handler(request: Text, context: Any) -> Text:
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text()))

        assert status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]) == status


async def test_swallowed_abort(kind: str) -> None:
    """
    A handler that catches what abort raises has aborted all the same.
    """

    async def handler(request: Text, context: Any) -> Text:
        with suppress(grpc.aio.AbortError):
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text()))

        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_set_code(kind: str) -> None:
    """
    A code and details that were set end the call, and its response is lost.
    """

    async def handler(request: Text, context: Any) -> Text:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text()))

        assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost")


@pytest.mark.parametrize("before", [None, grpc.StatusCode.DATA_LOSS])
async def test_exception(kind: str, before: grpc.StatusCode | None) -> None:
    """
    An exception is UNKNOWN, or the code that was set, and its text reaches the client.
    """

    async def handler(request: Text, context: Any) -> Text:
        if before is not None:
            context.set_code(before)
        raise ValueError("boom")

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text()))

        assert error.code() is (before or grpc.StatusCode.UNKNOWN)
        assert error.details() == "Unexpected <class 'ValueError'>: boom"


@pytest.mark.parametrize("answer", [None, status_pb2.Status(message="m")])
async def test_wrong_answer(kind: str, answer: Any) -> None:
    """
    A response that is None fails the call; a message of another type crosses as its bytes, which are wrong here.
    """

    async def handler(request: Text, context: Any) -> Any:
        return answer

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        call = method(channel, "unary_unary", "M")(Text())
        if answer is None:
            assert (await failing(call)).code() is grpc.StatusCode.UNKNOWN
        else:
            assert (await call).value == ""


async def test_unknown_method(kind: str) -> None:
    """
    A method that nobody serves is UNIMPLEMENTED.
    """
    async with channel_to(kind, {}) as channel:
        error = await failing(method(channel, "unary_unary", "Nope")(Text()))

        assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def test_sync_handler_is_not_async(kind: str) -> None:
    """
    A plain function that returns a coroutine is no async handler, and fails.
    """

    def handler(request: Text, context: Any) -> Any:
        return echo(request, context)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the coroutine that grpc does not await
        async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
            error = await failing(method(channel, "unary_unary", "M")(Text()))

            assert error.code() is grpc.StatusCode.UNKNOWN
        gc.collect()


async def test_deadline(kind: str) -> None:
    """
    A deadline ends the call with DEADLINE_EXCEEDED and cancels the handler, which has seen the time it had.
    """
    cancelled, remaining = asyncio.Event(), []

    async def handler(request: Text, context: Any) -> Text:
        remaining.append(context.time_remaining())
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text(), timeout=0.2))

        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Over the wire the deadline is rounded up to what its header can say.
        assert 0 < remaining[0] < 0.3
        await until(cancelled)


async def test_no_deadline(kind: str) -> None:
    """
    Without a deadline the handler sees None.
    """
    remaining = []

    async def handler(request: Text, context: Any) -> Text:
        remaining.append(context.time_remaining())
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        await method(channel, "unary_unary", "M")(Text())

        assert remaining == [None]


@pytest.mark.parametrize("how", ["call", "task"])
async def test_cancel(kind: str, how: str) -> None:
    """
    Cancelling the call, or the task that awaits it, raises CancelledError and cancels the handler.
    """
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Text, context: Any) -> Text:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        call = method(channel, "unary_unary", "M")(Text())

        async def wait() -> None:
            await call

        task = asyncio.create_task(wait())
        await until(started)
        assert (call if how == "call" else task).cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(cancelled)
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert call.cancel() is False


async def test_done_callbacks(kind: str) -> None:
    """
    Both ends are told when the call is over, in time or late.
    """
    server_told, client_told, late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: Text, context: Any) -> Text:
        context.add_done_callback(lambda _: server_told.set())
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        call = method(channel, "unary_unary", "M")(Text())
        call.add_done_callback(lambda _: client_told.set())
        await call
        await until(client_told)
        await until(server_told)
        call.add_done_callback(lambda _: late.set())
        await until(late)


async def test_nobody_awaits(kind: str) -> None:
    """
    A unary call that is dropped runs to its end.
    """
    ended = asyncio.Event()

    async def handler(request: Text, context: Any) -> Text:
        await asyncio.sleep(0.01)
        ended.set()
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        method(channel, "unary_unary", "M")(Text())
        gc.collect()
        await until(ended)


async def test_ownership(kind: str) -> None:
    """
    The receiver owns what it gets: what either side does to its own copy afterwards is not seen by the other.
    """
    cached = Text(value="cached")

    async def handler(request: Text, context: Any) -> Text:
        request.value = "changed by the server"
        asyncio.get_running_loop().call_soon(setattr, cached, "value", "changed after return")
        return cached

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        request = Text(value="mine")
        answer = await method(channel, "unary_unary", "M")(request)
        answer_value = answer.value
        answer.value = "changed by the client"

        assert answer_value == "cached"
        assert request.value == "mine"
        assert cached.value == "changed after return"


class Tagging(grpc.aio.ServerInterceptor):
    """Notes its name, sets a context variable, and passes the details on, made anew."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """As said."""
        self.order.append(self.name)
        seen_by_interceptor.set(self.name)
        details = type(handler_call_details)(handler_call_details.method, handler_call_details.invocation_metadata)
        return await continuation(details)


async def test_interceptors(kind: str) -> None:
    """
    Interceptors run in order, once a call, and what they set in context variables reaches the handler.
    """
    order: list[str] = []

    async def handler(request: Text, context: Any) -> Text:
        return Text(value=seen_by_interceptor.get())

    interceptors = [Tagging("outer", order), Tagging("inner", order)]
    async with channel_to(kind, handlers(M=("unary_unary", handler)), interceptors) as channel:
        answer = await method(channel, "unary_unary", "M")(Text())

        assert answer.value == "inner"
        assert order == ["outer", "inner"]
        assert seen_by_interceptor.get() == "nothing"


@pytest.mark.parametrize("call_kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_denying_interceptor(kind: str, call_kind: str) -> None:
    """
    An interceptor may answer a call of any kind with a unary handler that aborts.
    """

    class Deny(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            async def deny(request: Any, context: Any) -> Any:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")

            return grpc.unary_unary_rpc_method_handler(deny)

    async with channel_to(kind, handlers(M=(call_kind, echo)), [Deny()]) as channel:
        argument = iter([Text()]) if call_kind.startswith("stream") else Text()
        call = method(channel, call_kind, "M")(argument)
        error = await failing(drain(call) if call_kind.endswith("stream") else call)

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_foreign_details(kind: str) -> None:
    """
    An interceptor that passes on details of a class of its own fails the call.
    """

    class Foreign(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            class Own:
                method = handler_call_details.method
                invocation_metadata = ()

            return await continuation(Own())

    async with channel_to(kind, handlers(M=("unary_unary", echo)), [Foreign()]) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text(), timeout=5))

        assert error.code() is grpc.StatusCode.UNKNOWN


# Streams


async def count(request: Text, context: Any) -> AsyncIterator[Text]:
    """As many messages as the request says."""
    for index in range(int(request.value)):
        yield Text(value=str(index))


@pytest.mark.parametrize("size", [0, 1, 50])
async def test_server_stream(kind: str, size: int) -> None:
    """
    All messages arrive in order, then OK.
    """
    async with channel_to(kind, handlers(M=("unary_stream", count))) as channel:
        call = method(channel, "unary_stream", "M")(Text(value=str(size)))

        assert [message.value async for message in call] == [str(index) for index in range(size)]
        assert await call.code() is grpc.StatusCode.OK


async def test_stream_by_read_and_write(kind: str) -> None:
    """
    The style with read and write does the same at both ends, and ends with EOF.
    """

    async def handler(request: Text, context: Any) -> None:
        for index in range(3):
            await context.write(Text(value=str(index)))

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text())

        assert [(await call.read()).value for _ in range(3)] == ["0", "1", "2"]
        assert await call.read() is grpc.aio.EOF


async def test_stream_breaks(kind: str) -> None:
    """
    What was sent before an abort arrives before it.
    """

    async def handler(request: Text, context: Any) -> AsyncIterator[Text]:
        await context.send_initial_metadata((("x-a", "1"),))
        yield Text(value="0")
        yield Text(value="1")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "broke")

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text())
        got: list[str] = []
        error = await failing(drain(call, got))

        assert got == ["0", "1"]
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "broke")
        assert ("x-a", "1") in list(await call.initial_metadata())


async def test_initial_metadata_before_messages(kind: str) -> None:
    """
    Initial metadata arrive before the first message.
    """
    go = asyncio.Event()

    async def handler(request: Text, context: Any) -> AsyncIterator[Text]:
        await context.send_initial_metadata((("x-a", "1"),))
        await go.wait()
        yield Text()

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text())
        async with asyncio.timeout(5):
            assert ("x-a", "1") in list(await call.initial_metadata())
        go.set()
        assert len([message async for message in call]) == 1


async def test_cancel_stream(kind: str) -> None:
    """
    Cancelling a stream raises CancelledError in its reader and cancels the handler.
    """
    cancelled = asyncio.Event()

    async def handler(request: Text, context: Any) -> AsyncIterator[Text]:
        try:
            yield Text()
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text())
        await call.read()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        await until(cancelled)


async def test_stream_deadline(kind: str) -> None:
    """
    A deadline ends a stream, and cancels a handler that still sends.
    """
    cancelled = asyncio.Event()

    async def handler(request: Text, context: Any) -> AsyncIterator[Text]:
        try:
            yield Text()
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text(), timeout=0.3)
        error = await failing(drain(call))

        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(cancelled)


async def test_slow_reader(kind: str) -> None:
    """
    A reader that does not read makes the writer wait; how far ahead it gets is the transport's.
    """
    sent = 0

    async def handler(request: Text, context: Any) -> AsyncIterator[Text]:
        nonlocal sent
        for _ in range(2000):
            yield Text(value="x" * 10_000)
            sent += 1

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text())
        await call.read()
        before = -1
        async with asyncio.timeout(10):
            while before != sent:
                before = sent
                await asyncio.sleep(0.1)

        assert sent < 1000
        rest = 0
        while await call.read() is not grpc.aio.EOF:
            rest += 1
        assert rest == 1999


async def gather(requests: AsyncIterator[Text], context: Any) -> Text:
    """All requests, joined."""
    return Text(value=",".join([request.value async for request in requests]))


@pytest.mark.parametrize("style", ["async iterator", "iterator", "write"])
async def test_client_stream(kind: str, style: str) -> None:
    """
    All requests arrive in order, however they are sent.
    """

    async def requests() -> AsyncIterator[Text]:
        for index in range(10):
            yield Text(value=str(index))

    async with channel_to(kind, handlers(M=("stream_unary", gather))) as channel:
        stub = method(channel, "stream_unary", "M")
        if style == "async iterator":
            call = stub(requests())
        elif style == "iterator":
            call = stub(iter([Text(value=str(index)) for index in range(10)]))
        else:
            call = stub()
            for index in range(10):
                await call.write(Text(value=str(index)))
            await call.done_writing()

        assert (await call).value == "0,1,2,3,4,5,6,7,8,9"


async def test_early_answer(kind: str) -> None:
    """
    A server may answer before all requests are there.
    """

    async def handler(requests: AsyncIterator[Text], context: Any) -> Text:
        async for request in requests:
            return request
        raise AssertionError

    async def requests() -> AsyncIterator[Text]:
        yield Text(value="first")
        await asyncio.sleep(60)

    async with channel_to(kind, handlers(M=("stream_unary", handler))) as channel:
        async with asyncio.timeout(5):
            assert (await method(channel, "stream_unary", "M")(requests())).value == "first"


async def test_ping_pong(kind: str) -> None:
    """
    A bidirectional stream is full duplex.
    """

    async def handler(requests: AsyncIterator[Text], context: Any) -> AsyncIterator[Text]:
        async for request in requests:
            yield Text(value=request.value + "!")

    async with channel_to(kind, handlers(M=("stream_stream", handler))) as channel:
        call = method(channel, "stream_stream", "M")()
        for index in range(20):
            await call.write(Text(value=str(index)))
            async with asyncio.timeout(5):
                assert (await call.read()).value == f"{index}!"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_failing_iterator(kind: str) -> None:
    """
    A request iterator that raises cancels its call.
    """

    async def requests() -> AsyncIterator[Text]:
        yield Text()
        raise ValueError("mine")

    async with channel_to(kind, handlers(M=("stream_unary", gather))) as channel:
        with pytest.raises(asyncio.CancelledError):
            await method(channel, "stream_unary", "M")(requests())


async def test_closing_the_channel(kind: str) -> None:
    """
    Closing the channel ends its calls.
    """
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Text, context: Any) -> Text:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        call = method(channel, "unary_unary", "M")(Text())
        await until(started)
        await channel.close()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(cancelled)


# What is not equal


async def test_handler_that_cancels_itself(kind: str) -> None:
    """
    Pinned: over the wire a handler that raises CancelledError leaves its client to its deadline; in process it ends.
    """

    async def handler(request: Text, context: Any) -> Text:
        raise asyncio.CancelledError

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        error = await failing(method(channel, "unary_unary", "M")(Text(), timeout=0.3))

        wanted = {"wire": grpc.StatusCode.DEADLINE_EXCEEDED, "inprocess": grpc.StatusCode.CANCELLED}
        assert error.code() is wanted[kind]


async def test_truncated_upload(kind: str) -> None:
    """
    Pinned: a handler whose client cancels an upload sees the end of the stream first over the wire; in process it sees
    CancelledError at once, so that it cannot take a truncated upload for a whole one.
    """
    first, ended = asyncio.Event(), asyncio.Event()
    saw: list[str] = []

    async def handler(requests: AsyncIterator[Text], context: Any) -> Text:
        try:
            async for _ in requests:
                first.set()
            saw.append("end of stream")
        except asyncio.CancelledError:
            saw.append("cancelled")
            raise
        finally:
            ended.set()
        return Text()

    async with channel_to(kind, handlers(M=("stream_unary", handler))) as channel:
        call = method(channel, "stream_unary", "M")()
        await call.write(Text())
        await until(first)
        call.cancel()
        await until(ended)

        assert saw == {"wire": ["end of stream"], "inprocess": ["cancelled"]}[kind]


async def test_dropped_stream(kind: str) -> None:
    """
    Pinned: a stream that is dropped unread is cancelled in process, so that its handler does not wait for ever.
    """
    if kind == "wire":
        pytest.skip("grpc.aio keeps the call alive")
    cancelled = asyncio.Event()

    async def handler(request: Text, context: Any) -> AsyncIterator[Text]:
        try:
            while True:
                yield Text()
        finally:
            cancelled.set()

    async with channel_to(kind, handlers(M=("unary_stream", handler))) as channel:
        call = method(channel, "unary_stream", "M")(Text())
        await call.read()
        del call
        gc.collect()
        await until(cancelled)


async def test_peer(kind: str) -> None:
    """
    Pinned: there is no peer in process, and it says so.
    """
    peers = []

    async def handler(request: Text, context: Any) -> Text:
        peers.append(context.peer())
        return request

    async with channel_to(kind, handlers(M=("unary_unary", handler))) as channel:
        await method(channel, "unary_unary", "M")(Text())

        assert peers[0].startswith({"wire": "ipv4:127.0.0.1", "inprocess": "inproc:"}[kind])
