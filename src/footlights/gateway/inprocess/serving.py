"""Running a handler for a call, interceptors first."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio

from footlights.gateway.inprocess.context import Context
from footlights.gateway.inprocess.copying import pack, unpack
from footlights.gateway.inprocess.state import CallState, End, Entries

_log = logging.getLogger(__name__)
Find = Callable[[Any], Awaitable[Any]]


class HandlerCallDetails(NamedTuple):
    """What interceptors get; made anew by ``type(details)(method, metadata)``."""

    method: str
    invocation_metadata: Entries


def chain(find: Callable[[HandlerCallDetails], Any], interceptors: Sequence[Any]) -> Find:
    """One function from call details to handler that passes through the interceptors, the first one outermost."""

    async def last(details: HandlerCallDetails) -> Any:
        if not isinstance(details, HandlerCallDetails):
            # The wire refuses classes of one's own as well.
            raise TypeError(f"the continuation takes the details it was given, not {type(details).__name__}")
        return find(details)

    continuation: Find = last
    for interceptor in reversed(interceptors):
        continuation = partial(interceptor.intercept_service, continuation)
    return continuation


async def serve(state: CallState, find: Find, request: Any, running: set[CallState]) -> None:
    """Run a call's handler and set the call's end. Never raises.

    Args:
        state: the call.
        find: the interceptor chain.
        request: the packed request of a client that sends one; None where it streams them.
        running: the channel's calls, of which this is one until it is over.
    """
    context: Context | None = None
    try:
        handler = await find(HandlerCallDetails(state.method, state.metadata))
        if handler is None:
            state.finish(End(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
            running.discard(state)
            return
        context = Context(state, handler.request_deserializer, handler.response_serializer)
        function = handler.unary_unary
        if function is None or request is None or state.responses is not None or not _is_async(function):
            await _run(state, handler, context, request)
        else:
            # What nearly every call is, without the layer that tells the kinds apart.
            answer = await function(unpack(request, handler.request_deserializer), context)
            if context.is_fine:
                state.answer = pack(answer, handler.response_serializer)
        context.open()
        end = context.end()
    except asyncio.CancelledError:
        # Where nobody else has ended the call, the handler did it itself; over the wire its client would hang.
        end = End(grpc.StatusCode.CANCELLED, "the handler was cancelled")
        state.finish(end)
    except grpc.aio.AbortError as error:
        end = context.end() if context is not None and context.aborted else _unexpected(error, context)
    except Exception as error:
        _log.exception("A handler failed", extra={"action": "handler_failed", "method": state.method})
        end = _unexpected(error, context)
    if state.responses is not None and state.end is None:
        # Status comes after the messages.
        with suppress(asyncio.CancelledError):
            await state.responses.drained()
    state.finish(end)
    running.discard(state)


def _unexpected(error: Exception, context: Context | None) -> End:
    if context is not None:
        return context.failed(error)
    return End(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")


async def _run(state: CallState, handler: Any, context: Context, request: Any) -> None:
    """Call the function of the handler's kind, which need not be the client's kind: interceptors may deny a stream
    with a unary handler.
    """
    argument: Any
    if handler.request_streaming:
        argument = _requests(context) if request is None else _only(unpack(request, handler.request_deserializer))
    elif request is None:
        argument = await context.read()
        if argument is grpc.aio.EOF:
            raise grpc.aio.UsageError("a unary handler got no request")
    else:
        argument = unpack(request, handler.request_deserializer)
    if handler.response_streaming:
        function = handler.stream_stream if handler.request_streaming else handler.unary_stream
        if inspect.isasyncgenfunction(function):
            async with aclosing(function(argument, context)) as responses:
                async for response in responses:
                    await _answer(state, context, handler, response)
            return
        if inspect.iscoroutinefunction(function):
            await function(argument, context)
            return
    else:
        function = handler.stream_unary if handler.request_streaming else handler.unary_unary
        if _is_async(function):
            answer = await function(argument, context)
            if context.is_fine:
                await _answer(state, context, handler, answer)
            return
    raise TypeError(f"{state.method}: only `async def` handlers run in process")


def _is_async(function: Any) -> bool:
    """As inspect has it, which grpc asks too, without unwrapping what needs none."""
    code = getattr(function, "__code__", None)
    return bool(code.co_flags & inspect.CO_COROUTINE) if code is not None else inspect.iscoroutinefunction(function)


async def _answer(state: CallState, context: Context, handler: Any, response: Any) -> None:
    if state.responses is not None:
        await context.write(response)
    else:
        state.answer = pack(response, handler.response_serializer)


async def _requests(context: Context) -> AsyncIterator[Any]:
    while (message := await context.read()) is not grpc.aio.EOF:
        yield message


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request
