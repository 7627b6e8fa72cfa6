"""Calls from this process: what the gateway's local upstream serves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from footlights.control.call.context import Call
from footlights.errors import Error
from footlights.gateway.upstream.protocol import UpstreamError
from footlights.status import to_status

if TYPE_CHECKING:
    from footlights.control.call.context import Metadata
    from footlights.control.call.pipeline import Pipeline
    from footlights.control.call.registry import Registry, Rpc
    from footlights.gateway.upstream.local import LocalRequests, LocalStream, LocalUnary, Write
    from footlights.gateway.upstream.protocol import OutgoingCall


class LocalCalls:
    """Serves the RPCs of a registry; a `gateway.upstream.LocalService`."""

    def __init__(self, registry: Registry, pipeline: Pipeline) -> None:
        self._rpcs, self._pipeline = registry.rpcs, pipeline

    def unary(self, method: str) -> LocalUnary | None:
        """Return the function that serves a method with one response."""
        rpc = self._rpcs.get(method)
        if rpc is None or rpc.server_streaming:
            return None
        run, handler = self._pipeline.run, rpc.handler

        async def serve(request: Message | LocalRequests, outgoing: OutgoingCall) -> Message:
            call = Call(method, outgoing.metadata, deadline=outgoing.deadline)
            try:
                answer: Message = await run(rpc, request, call, handler)
            except Error as error:
                raise UpstreamError(to_status(error)) from None
            finally:
                outgoing.initial, outgoing.trailing = call.initial_metadata, call.trailing_metadata
            return answer

        return serve

    def stream(self, method: str) -> LocalStream | None:
        """Return the function that serves a method with many responses."""
        rpc = self._rpcs.get(method)
        if rpc is None or not rpc.server_streaming:
            return None
        run = self._pipeline.run

        async def serve(request: Message | LocalRequests, outgoing: OutgoingCall, write: Write) -> None:
            async def send_metadata(initial: Metadata) -> None:
                outgoing.open(initial)

            call = Call(method, outgoing.metadata, deadline=outgoing.deadline, send_metadata=send_metadata)
            try:
                if isinstance(request, Message):
                    await run(rpc, request, call, StreamRunner(rpc, write))
                else:
                    await run(rpc, _LocalDuplex(request, write), call, rpc.handler)
            except Error as error:
                raise UpstreamError(to_status(error)) from None
            finally:
                await call.open()
                outgoing.trailing = call.trailing_metadata

        return serve


class _LocalDuplex:
    __slots__ = ("read", "write")

    def __init__(self, requests: LocalRequests, write: Write) -> None:
        self.read, self.write = requests.read, write


class StreamRunner:
    """Runs the handler of a server stream: writes what it yields."""

    __slots__ = ("_rpc", "_write")

    def __init__(self, rpc: Rpc, write: Write) -> None:
        self._rpc, self._write = rpc, write

    async def __call__(self, request: Message, call: Call) -> None:
        """Run it to its end."""
        async with contextlib.aclosing(self._rpc.handler(request, call)) as responses:
            async for response in responses:
                await self._write(response)
