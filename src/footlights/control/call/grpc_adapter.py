"""Calls over gRPC: handlers for ``grpc.aio``, made from a registry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from grpc_status import rpc_status

from footlights.control.call.context import Call
from footlights.control.call.local import StreamRunner
from footlights.control.call.registry import role_not_served
from footlights.errors import Error, Exhausted, Reason, Unimplemented
from footlights.protocol.bounds import MAX_MESSAGE_BYTES
from footlights.status import to_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from footlights.control.call.pipeline import Pipeline
    from footlights.control.call.registry import Registry, Rpc

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
) -> list[grpc.GenericRpcHandler]:
    """Return what ``grpc.aio.Server.add_generic_rpc_handlers`` takes to serve a registry.

    ``on_deprecated`` is called for each call of a deprecated RPC, with its path. ``refused`` has the errors of the
    services that are not to be served.
    """
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    refused = {**{service: role_not_served(role) for service, role in registry.elsewhere.items()}, **(refused or {})}
    for rpc in registry.rpcs.values():
        if rpc.service not in refused:
            by_service.setdefault(rpc.service, {})[rpc.name] = _handler(rpc, pipeline, on_deprecated)
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


def _handler(rpc: Rpc, pipeline: Pipeline, on_deprecated: Callable[[str], None]) -> grpc.RpcMethodHandler[Any, Any]:
    run, handler = pipeline.run, rpc.handler

    def called(context: Context) -> Call:
        if rpc.deprecated:
            on_deprecated(rpc.path)
        return _call(rpc, context)

    async def one_response(request: Message, context: Context) -> Message:
        call = called(context)
        try:
            answer: Message = await run(rpc, _taken(request), call, handler)
        except Error as error:
            await _abort(call, context, error)
            raise
        await call.open()
        context.set_trailing_metadata(tuple(call.trailing_metadata))
        return answer

    async def uploaded(_requests: object, context: Context) -> Message:
        return await one_response(_GrpcStream(context), context)  # type: ignore[arg-type]

    async def many_responses(request: Message, context: Context) -> None:
        call = called(context)
        try:
            await run(rpc, _taken(request), call, StreamRunner(rpc, context.write))
        except Error as error:
            await _abort(call, context, error)
        context.set_trailing_metadata(tuple(call.trailing_metadata))

    async def duplex(_requests: object, context: Context) -> None:
        # The streams are read and written through the context: a generator in each direction would cost a link KiB.
        call = called(context)
        try:
            await run(rpc, _GrpcStream(context), call, handler)
        except Error as error:
            await _abort(call, context, error)
        context.set_trailing_metadata(tuple(call.trailing_metadata))

    def deserialize(data: bytes) -> Message | _TooLarge:
        return _TooLarge(len(data)) if len(data) > MAX_MESSAGE_BYTES else rpc.request_type.FromString(data)

    serialize = rpc.response_type.SerializeToString
    if rpc.server_streaming:
        if rpc.client_streaming:
            return grpc.stream_stream_rpc_method_handler(duplex, deserialize, serialize)
        return grpc.unary_stream_rpc_method_handler(many_responses, deserialize, serialize)
    if rpc.client_streaming:
        return grpc.stream_unary_rpc_method_handler(uploaded, deserialize, serialize)
    return grpc.unary_unary_rpc_method_handler(one_response, deserialize, serialize)


@dataclass(frozen=True, slots=True)
class _TooLarge:
    """A message that was read and is not taken."""

    size: int


def _taken(message: Any) -> Any:
    """Return a message. Raises Exhausted where it is too large."""
    if not isinstance(message, _TooLarge):
        return message
    raise Exhausted(
        f"The message is {message.size} bytes long; at most {MAX_MESSAGE_BYTES} are taken. Send less at once.",
        reason=Reason.MESSAGE_TOO_LARGE,
        metadata={"size": str(message.size), "limit": str(MAX_MESSAGE_BYTES)},
    )


class _GrpcStream:
    __slots__ = ("_context", "write")

    def __init__(self, context: Context) -> None:
        self._context, self.write = context, context.write

    async def read(self) -> Message | None:
        message: Any = await self._context.read()
        return None if message is grpc.aio.EOF else _taken(message)


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
