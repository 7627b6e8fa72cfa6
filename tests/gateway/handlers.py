"""Handlers of scratch services, served both ways: in this process, and over gRPC.

A handler is ``async def f(request, call)`` for one response and an async generator for many; a client stream comes as a
reader. It is what a service behind the gateway looks like to both upstreams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from footlights.gateway.upstream import GrpcUpstream, LocalUpstream, OutgoingCall, Upstream, UpstreamError

Pairs = Sequence[tuple[str, str | bytes]]


class HandlerCall:
    """One call as its handler sees it."""

    def __init__(self, metadata: Pairs, deadline: float | None, outgoing: OutgoingCall | None = None) -> None:
        self.metadata, self.deadline = metadata, deadline
        self.trailing: Pairs = ()
        self._outgoing = outgoing

    async def open(self, initial: Pairs = ()) -> None:
        """Send initial metadata."""
        assert self._outgoing is not None
        self._outgoing.open(initial)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - asyncio.get_running_loop().time()


class _WireCall(HandlerCall):
    """One that came over gRPC."""

    def __init__(self, metadata: Pairs, deadline: float | None, context: Any) -> None:
        super().__init__(metadata, deadline)
        self._context = context

    async def open(self, initial: Pairs = ()) -> None:
        """Send initial metadata."""
        await self._context.send_initial_metadata(initial)


def fail(code: int, message: str, *details: Message) -> UpstreamError:
    """The error that a handler raises to fail."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return UpstreamError(status)


class LocalHandlers:
    """The handlers of one service for a `LocalUpstream`."""

    def __init__(self, service: ServiceDescriptor, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = {f"/{service.full_name}/{name}": function for name, function in functions.items()}

    def unary(self, method: str) -> Any:
        function = self._functions.get(method)
        if function is None:
            return None

        async def serve(request: Any, outgoing: OutgoingCall) -> Message:
            call = HandlerCall(outgoing.metadata, outgoing.deadline, outgoing)
            try:
                answer: Message = await function(request, call)
                return answer
            finally:
                outgoing.trailing = call.trailing

        return serve

    def stream(self, method: str) -> Any:
        function = self._functions.get(method)
        if function is None:
            return None

        async def serve(request: Any, outgoing: OutgoingCall, write: Any) -> None:
            call = HandlerCall(outgoing.metadata, outgoing.deadline, outgoing)
            try:
                async with aclosing(function(request, call)) as responses:
                    async for response in responses:
                        await write(response)
            finally:
                outgoing.trailing = call.trailing

        return serve


def grpc_handler(service: ServiceDescriptor, functions: Mapping[str, Callable[..., Any]]) -> grpc.GenericRpcHandler:
    """The same handlers for a gRPC server."""
    found = {}
    for rpc in service.methods:
        if rpc.name in functions:
            kind = f"{'stream' if rpc.client_streaming else 'unary'}_{'stream' if rpc.server_streaming else 'unary'}"
            found[rpc.name] = getattr(grpc, f"{kind}_rpc_method_handler")(
                _function(functions[rpc.name], uploads=rpc.client_streaming, streams=rpc.server_streaming),
                request_deserializer=message_factory.GetMessageClass(rpc.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(rpc.output_type).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(service.full_name, found)


def _function(function: Callable[..., Any], *, uploads: bool, streams: bool) -> Any:
    async def serve(request: Any, context: Any) -> Any:
        remaining = context.time_remaining()
        deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
        call = _WireCall(tuple(context.invocation_metadata()), deadline, context)
        given = _Reader(context) if uploads else request
        try:
            if not streams:
                return await function(given, call)
            async with aclosing(function(given, call)) as responses:
                async for response in responses:
                    await context.write(response)
        except UpstreamError as error:
            status = rpc_status.to_status(error.status)
            await context.abort(status.code, status.details, (*call.trailing, *status.trailing_metadata))
        finally:
            context.set_trailing_metadata(tuple(call.trailing))

    return serve


class _Reader:
    def __init__(self, context: Any) -> None:
        self._context = context

    async def read(self) -> Any:
        message = await self._context.read()
        return None if message is grpc.aio.EOF else message


@asynccontextmanager
async def upstream_to(
    kind: str, service: ServiceDescriptor, functions: Mapping[str, Callable[..., Any]]
) -> AsyncIterator[Upstream]:
    """An upstream to the handlers, of a kind: ``local`` or ``grpc``."""
    if kind == "local":
        yield LocalUpstream(LocalHandlers(service, functions))
        return
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc_handler(service, functions),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield GrpcUpstream(channel)
    finally:
        await server.stop(0)
