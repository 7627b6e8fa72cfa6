"""An upstream that is any gRPC server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from footlights.gateway.upstream.protocol import (
    OutgoingCall,
    Requests,
    Responses,
    StreamMethod,
    UnaryMethod,
    UpstreamError,
    method_path,
    pairs,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

_DETAILS: Final = "grpc-status-details-bin"


class GrpcUpstream:
    """Calls a server over a channel, which belongs to the caller."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary(self, rpc: MethodDescriptor) -> UnaryMethod:
        """See `Upstream`."""
        start = self._multicallable(rpc)

        async def call(requests: Requests, outgoing: OutgoingCall) -> Message:
            running = start(requests, metadata=outgoing.metadata, timeout=outgoing.timeout_s)
            try:
                answer: Message = await running
            except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
                raise await _failure(running, outgoing, error) from None
            outgoing.open(pairs(await running.initial_metadata()))
            outgoing.trailing = pairs(await running.trailing_metadata())
            return answer

        return call

    def stream(self, rpc: MethodDescriptor) -> StreamMethod:
        """See `Upstream`."""
        start = self._multicallable(rpc)

        def call(requests: Requests, outgoing: OutgoingCall) -> Responses:
            running = start(requests, metadata=outgoing.metadata, timeout=outgoing.timeout_s)
            return _GrpcResponses(running, outgoing)

        return call

    def _multicallable(self, rpc: MethodDescriptor) -> Any:
        kind = f"{'stream' if rpc.client_streaming else 'unary'}_{'stream' if rpc.server_streaming else 'unary'}"
        return getattr(self._channel, kind)(
            method_path(rpc),
            request_serializer=message_factory.GetMessageClass(rpc.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(rpc.output_type).FromString,
        )


class _GrpcResponses:
    def __init__(self, running: Any, outgoing: OutgoingCall) -> None:
        self._running, self._outgoing = running, outgoing
        self._head = asyncio.get_running_loop().create_task(self._wait_for_head())

    async def _wait_for_head(self) -> None:
        try:
            self._outgoing.open(pairs(await self._running.initial_metadata()))
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            self._outgoing.open(())

    async def read(self) -> Message | None:
        try:
            message = await self._running.read()
            if message is not grpc.aio.EOF:
                await self._head
                found: Message = message
                return found
            self._outgoing.trailing = pairs(await self._running.trailing_metadata())
            await self._head
            return None
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise await _failure(self._running, self._outgoing, error) from None

    def cancel(self) -> None:
        self._running.cancel()
        self._head.cancel()


async def _failure(running: Any, outgoing: OutgoingCall, error: BaseException) -> BaseException:
    """Return what to raise for a call that did not end well."""
    if isinstance(error, grpc.aio.AioRpcError):
        outgoing.open(pairs(error.initial_metadata()))
        outgoing.trailing = pairs(error.trailing_metadata())
        return UpstreamError(status_of(error))
    task = asyncio.current_task()
    if (task is not None and task.cancelling()) or not running.done():
        running.cancel()
        return error
    # grpc.aio cancels a call whose requests it could not send, for instance because the server cannot be reached.
    code = await running.code()
    return UpstreamError(status_pb2.Status(code=code.value[0], message=await running.details() or ""))


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status of a failed call with the details that the server attached."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            try:
                status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode("latin1"))
            except DecodeError:
                break
            if status.code == error.code().value[0]:
                return status
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")
