"""Two ways to the same handlers: over a socket, and in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from footlights.gateway.inprocess import Channel, Handlers

SERVICE = "probe.v1.Probe"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def handlers(**functions: tuple[str, Any]) -> dict[str, Any]:
    """Handlers by method name from (kind, function); messages are StringValue."""
    return {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(
            function,
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name, (kind, function) in functions.items()
    }


@asynccontextmanager
async def channel_to(kind: str, found: dict[str, Any], interceptors: Sequence[Any] = ()) -> AsyncIterator[Any]:
    """A channel of a kind (``wire`` or ``inprocess``) to the handlers."""
    if kind == "inprocess":
        registry = Handlers()
        registry.add_registered_method_handlers(SERVICE, found)
        async with Channel(registry, interceptors) as channel:
            yield channel
        return
    server = grpc.aio.server(interceptors=interceptors)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, found),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as wire:
            yield wire
    finally:
        await server.stop(0)


def method(channel: Any, kind: str, name: str) -> Any:
    """The callable of a method."""
    return getattr(channel, kind)(
        f"/{SERVICE}/{name}",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
