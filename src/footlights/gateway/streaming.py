"""The answer to a server stream: its head as soon as there is something to say, then message by message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from footlights.gateway.encode.framing import KEEPALIVE, Events, Framing, Lines
from footlights.gateway.errors import Refusal
from footlights.gateway.exchange import Exchange, HeaderList, typed
from footlights.gateway.upstream.calls import initial, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.message import Message
    from google.rpc import status_pb2

    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.options import Options
    from footlights.gateway.upstream.metadata import Outgoing

HEAD_AFTER_S: Final = 0.1
"""An accepted stream that has nothing to say opens after so long; failures that come sooner have their own status."""


async def answer(
    exchange: Exchange,
    endpoint: Endpoint,
    call: Any,
    options: Options,
    outgoing: Outgoing,
    status_body: Callable[[status_pb2.Status], bytes],
) -> None:
    """Send what a call gives until its end.

    Strict mode opens the answer once the server has accepted the call, which is what its initial metadata say, and has
    been quiet for a moment: a client that watches an empty list must learn that it is connected. The default dialect
    waits for the first message, as the reference does.

    Raises:
        grpc.aio.AioRpcError: the call failed before the head was sent.
        Refusal: the first message has no JSON, and the head was not sent.
    """
    events = "text/event-stream" in (exchange.header(b"accept") or "").lower()
    framing: Framing = (Events if events else Lines)(endpoint, strict=options.strict)
    messages = aiter(call)
    begun = _task(messages)
    try:
        opened = await _opened(call, begun, framing, options)
        if not begun.done():
            headers = outgoing(await initial(call)) if opened else []
            await exchange.start(200, _head(headers, framing, framing.content_type))
            if events:
                await exchange.write(KEEPALIVE)
            await _rest(exchange, framing, messages, begun, options, status_body)
        elif (first := begun.result()) is None:
            headers = outgoing(await initial(call))
            await exchange.start(200, _head(headers, framing, framing.content_type if events else ""))
        else:
            headers = outgoing(await initial(call))
            chunk, content_type = framing.message(first)
            await exchange.start(200, _head(headers, framing, content_type))
            await exchange.write(chunk)
            await _rest(exchange, framing, messages, None, options, status_body)
        await exchange.write(b"", more=False)
    finally:
        begun.cancel()


async def _opened(call: Any, task: asyncio.Task[Message | None], framing: Framing, options: Options) -> bool:
    """Wait until there is something to answer with: a message, an end, or an open stream that is quiet.

    Returns:
        Whether the call's initial metadata are there.
    """
    quiet_s = options.keepalive_s if framing.is_events else None
    if not options.strict or not framing.content_type:
        await asyncio.wait({task}, timeout=quiet_s)
        return task.done()
    accepted: asyncio.Task[Any] = asyncio.get_running_loop().create_task(_accepted(call))
    try:
        await asyncio.wait({task, accepted}, timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done() or not accepted.done():
            return task.done()
        # An end that comes with the metadata, or right behind them, still gets a status of its own.
        await asyncio.wait({task}, timeout=HEAD_AFTER_S if accepted.result() else None)
        return True
    finally:
        accepted.cancel()


async def _accepted(call: Any) -> bool:
    try:
        await call.initial_metadata()
    except grpc.aio.AioRpcError:
        return False
    return True


async def _rest(
    exchange: Exchange,
    framing: Framing,
    messages: AsyncIterator[Message],
    task: asyncio.Task[Message | None] | None,
    options: Options,
    status_body: Callable[[status_pb2.Status], bytes],
) -> None:
    """Send the messages after the head; a failure is the last thing in the stream."""
    quiet_s = options.keepalive_s if framing.is_events else None
    try:
        while True:
            if task is None and quiet_s is None:
                message = await anext(messages, None)
            else:
                task = task or _task(messages)
                await asyncio.wait({task}, timeout=quiet_s)
                if not task.done():
                    await exchange.write(KEEPALIVE)
                    continue
                message, task = task.result(), None
            if message is None:
                return
            await exchange.write(framing.message(message)[0])
    except grpc.aio.AioRpcError as error:
        status = status_of(error)
    except Refusal as refusal:
        status = refusal.status(strict=options.strict, domain=options.error_domain)
    finally:
        if task is not None:
            task.cancel()
    await exchange.write(framing.error(status_body(status)))


def _task(messages: AsyncIterator[Message]) -> asyncio.Task[Message | None]:
    async def step() -> Message | None:
        # A task cannot end with StopAsyncIteration.
        return await anext(messages, None)

    return asyncio.get_running_loop().create_task(step())


def _head(headers: HeaderList, framing: Framing, content_type: str) -> HeaderList:
    if content_type:
        headers.append(typed(content_type))
    if framing.is_events:
        headers.append((b"cache-control", b"no-cache"))
    return headers
