"""Calls over gRPC: handlers for ``grpc.aio``, made from a registry."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from footlights.control.call.context import Call, Unread
from footlights.control.call.local import StreamRunner
from footlights.control.call.registry import role_not_served
from footlights.errors import Error, Exhausted, InvalidArgument, Reason, Unavailable, Unimplemented
from footlights.status import to_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from footlights.control.call.pipeline import Pipeline
    from footlights.control.call.registry import Registry, Rpc

MESSAGE_S: Final = 30.0
"""How long a client may take to send the only message of a call, and to read anything, in seconds."""
MAX_PUSHBACK_S: Final = 2.0
"""The longest retry delay that clients wait for by themselves; after a longer one they have the error at once."""
PUSHBACK: Final = "grpc-retry-pushback-ms"
"""The delay for the retry policies of gRPC's service configs (gRFC A6)."""

Context = grpc.aio.ServicerContext[Any, Any]


def grpc_handlers(
    registry: Registry,
    pipeline: Pipeline,
    on_deprecated: Callable[[str], None] = lambda _: None,
    *,
    refused: Mapping[str, Error] | None = None,
    message_s: float = MESSAGE_S,
) -> list[grpc.GenericRpcHandler]:
    """Return what ``grpc.aio.Server.add_generic_rpc_handlers`` takes to serve a registry.

    ``on_deprecated`` is called for each call of a deprecated RPC, with its path. ``refused`` has the errors of the
    services that are not to be served. ``message_s`` is how long a client may take to send the only message of a call,
    and to read anything.
    """
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    refused = {**{service: role_not_served(role) for service, role in registry.elsewhere.items()}, **(refused or {})}
    for rpc in registry.rpcs.values():
        if rpc.service not in refused:
            by_service.setdefault(rpc.service, {})[rpc.name] = _handler(rpc, pipeline, on_deprecated, message_s)
    found = [grpc.method_handlers_generic_handler(service, methods) for service, methods in by_service.items()]
    return [*found, _NotServed(refused)]


class _NotServed(grpc.GenericRpcHandler):
    """Refuses the RPCs that no other handler serves; gRPC's own answer would not say why, or which role does."""

    def __init__(self, refused: Mapping[str, Error]) -> None:
        self._refused = refused

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        name = handler_call_details.method.removeprefix("/")
        refused = self._refused.get(name.partition("/")[0])
        unknown = Unimplemented(f"This server does not know {name}. Upgrade it, or do without the call.")
        status = rpc_status.to_status(to_status(refused or unknown))

        async def refuse(_requests: object, context: Context) -> None:
            await context.abort(status.code, status.details, status.trailing_metadata)

        # It reads no request, so it stands for methods of all four kinds.
        return grpc.stream_stream_rpc_method_handler(refuse)


def deserializer(request_type: type[Message], max_bytes: int) -> Callable[[bytes], Message | Error]:
    """Return what reads a request; what cannot be taken becomes an error, for ``MessageStream`` to raise."""

    def deserialize(data: bytes) -> Message | Error:
        if len(data) > max_bytes:
            return Exhausted(
                f"The message is {len(data)} bytes long; at most {max_bytes} are taken. Send less at once.",
                reason=Reason.MESSAGE_TOO_LARGE,
                metadata={"size": str(len(data)), "limit": str(max_bytes)},
            )
        try:
            return request_type.FromString(data)
        except DecodeError:
            return InvalidArgument("body", f"is not a {request_type.DESCRIPTOR.full_name} as protobuf encodes it.")

    return deserialize


class NotReading(Unavailable):
    """The client has not read for too long. gRPC keeps the call, with one message, until its connection ends."""


class GrpcStream:
    """Both directions of a call; a client has ``message_s`` seconds to send its only request, and to read anything."""

    __slots__ = ("_context", "message_s")

    def __init__(self, context: Context, message_s: float) -> None:
        self._context, self.message_s = context, message_s

    async def read(self) -> Message | None:
        """Return the next request, or None after the last one. Raises Error where it cannot be taken."""
        message: Any = await self._context.read()
        if isinstance(message, Error):
            raise message
        return None if message is grpc.aio.EOF else message

    async def read_only(self) -> Message:
        """Return the only request. Raises Error where there is none, it cannot be taken, or it takes too long."""
        try:
            async with asyncio.timeout(self.message_s):
                message = await self.read()
        except TimeoutError:
            raise InvalidArgument(
                "body", f"must arrive within {self.message_s:g} s. Send it at once.", reason=Reason.BODY_TIMEOUT
            ) from None
        if message is None:
            raise InvalidArgument("body", "is missing. Send one message.", reason=Reason.BODY_CUT_OFF)
        return message

    async def write(self, message: Message) -> None:
        """Send a response; wait while the client does not keep up. Raises NotReading where it reads nothing."""
        try:
            async with asyncio.timeout(self.message_s):
                await self._context.write(message)
        except TimeoutError:
            raise NotReading(f"The client has read nothing for {self.message_s:g} s.") from None


def _handler(
    rpc: Rpc, pipeline: Pipeline, on_deprecated: Callable[[str], None], message_s: float
) -> grpc.RpcMethodHandler[Any, Any]:
    # Requests are read through the context: one that a caller may not make is never read, and a generator in each
    # direction would cost a link KiB.
    run, handler = pipeline.run, rpc.handler

    def begun(context: Context) -> tuple[GrpcStream, Any, Call]:
        if rpc.deprecated:
            on_deprecated(rpc.path)
        stream = GrpcStream(context, message_s)
        return stream, stream if rpc.client_streaming else Unread(stream.read_only), _call(rpc, context)

    async def one_response(_requests: object, context: Context) -> Message:
        _, request, call = begun(context)
        try:
            answer: Message = await run(rpc, request, call, handler)
        except Error as error:
            await _abort(call, context, error)
            raise
        await call.open()
        context.set_trailing_metadata(tuple(call.trailing_metadata))
        return answer

    async def many_responses(_requests: object, context: Context) -> None:
        stream, request, call = begun(context)
        try:
            await run(rpc, request, call, handler if rpc.client_streaming else StreamRunner(rpc, stream.write))
        except NotReading:
            # gRPC can send no status either, and takes this for an end.
            raise asyncio.CancelledError from None
        except Error as error:
            await _abort(call, context, error)
        context.set_trailing_metadata(tuple(call.trailing_metadata))

    make = grpc.stream_stream_rpc_method_handler if rpc.server_streaming else grpc.stream_unary_rpc_method_handler
    serve = many_responses if rpc.server_streaming else one_response
    return make(serve, deserializer(rpc.request_type, rpc.max_bytes), rpc.response_type.SerializeToString)


def _call(rpc: Rpc, context: Context) -> Call:
    remaining = context.time_remaining()
    return Call(
        rpc.path,
        tuple(context.invocation_metadata() or ()),
        peer=context.peer(),
        deadline=None if remaining is None else asyncio.get_running_loop().time() + remaining,
        send_metadata=context.send_initial_metadata,
        certificate=partial(_certificate, context),
    )


def _certificate(context: Context) -> bytes:
    [found] = context.auth_context().get("x509_pem_cert", [b""])
    return bytes(found)


async def _abort(call: Call, context: Context, error: Error) -> None:
    # With the status alone, unless the metadata were sent: a client retries no call whose answer has begun.
    begun = () if call.opened else call.initial_metadata
    status = rpc_status.to_status(to_status(error))
    metadata = (*begun, *call.trailing_metadata, *_pushback(call, error), *status.trailing_metadata)
    await context.abort(status.code, status.details, metadata)


def _pushback(call: Call, error: Error) -> tuple[tuple[str, str], ...]:
    """Return when gRPC's own retries try again; -1, which is never, where the caller should decide about it."""
    if error.retry_after_s is None:
        return ()
    remaining = call.time_remaining()
    soon = error.retry_after_s <= MAX_PUSHBACK_S and (remaining is None or error.retry_after_s < remaining)
    return ((PUSHBACK, str(round(error.retry_after_s * 1000) if soon else -1)),)
