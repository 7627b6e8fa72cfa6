"""The channel, and the registry it calls into."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from footlights.gateway.inprocess.call import StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from footlights.gateway.inprocess.copying import Deserializer, Serializer, pack
from footlights.gateway.inprocess.serving import HandlerCallDetails, chain, serve
from footlights.gateway.inprocess.state import CallState, End, entries
from footlights.gateway.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

    from footlights.gateway.upstream.metadata import Entry


class Handlers:
    """What generated ``add_XServicer_to_server`` functions fill: give it to them in place of a server."""

    def __init__(self) -> None:
        self._registered: dict[str, Any] = {}
        self._generic: list[Any] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """As ``grpc.aio.Server`` has it."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """As ``grpc.aio.Server`` has it."""
        for name, handler in method_handlers.items():
            self._registered[f"/{service_name}/{name}"] = handler

    def find(self, details: HandlerCallDetails) -> Any:
        """The handler of a method, or None."""
        found = self._registered.get(details.method)
        if found is None:
            for generic in self._generic:
                found = generic.service(details)
                if found is not None:
                    break
        return found


class Channel(grpc.aio.Channel):
    """A channel into this process. It belongs to one event loop.

    Args:
        handlers: where methods are found, when they are called.
        interceptors: ``grpc.aio.ServerInterceptor`` objects, the first one outermost.
    """

    def __init__(self, handlers: Handlers, interceptors: Sequence[Any] = ()) -> None:
        self._find = chain(handlers.find, interceptors)
        self._context = contextvars.copy_context()
        self._calls: set[CallState] = set()
        self._closed = False
        self.sweep = Sweep()

    async def __aenter__(self) -> Channel:
        """Itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close at once."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls, give those in flight ``grace`` seconds, then cancel them."""
        self._closed = True
        tasks = [state.task for state in self._calls if state.task is not None]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for state in list(self._calls):
            state.stop(End(grpc.StatusCode.CANCELLED, "Channel closed.", local=True))
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Ready until it is closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the state is another one, which happens by closing alone."""
        if self.get_state() == last_observed_state:
            await asyncio.get_running_loop().create_future()

    async def channel_ready(self) -> None:
        """It is."""

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                    _registered_method: bool | None = False) -> Any:  # fmt: skip
        """A callable for a method with one request and one response."""
        return _Callable(self, method, request_serializer, response_deserializer, UnaryUnaryCall)

    def unary_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                     _registered_method: bool | None = False) -> Any:  # fmt: skip
        """A callable for a method with one request and many responses."""
        return _Callable(self, method, request_serializer, response_deserializer, UnaryStreamCall)

    def stream_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                     _registered_method: bool | None = False) -> Any:  # fmt: skip
        """A callable for a method with many requests and one response."""
        return _Callable(self, method, request_serializer, response_deserializer, StreamUnaryCall)

    def stream_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                      _registered_method: bool | None = False) -> Any:  # fmt: skip
        """A callable for a method with many of both."""
        return _Callable(self, method, request_serializer, response_deserializer, StreamStreamCall)

    def begin(self, state: CallState, request: Any) -> None:
        """Run a call's handler in a task of its own."""
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        self._calls.add(state)
        state.task = state.loop.create_task(
            serve(state, self._find, request, self._calls), context=self._context.copy()
        )  # fmt: skip


class _Callable:
    """All four of grpc.aio's multicallables."""

    def __init__(
        self, channel: Channel, method: str, serialize: Serializer, deserialize: Deserializer, kind: type[Any]
    ) -> None:
        self._channel, self._method = channel, method
        self._serialize, self._deserialize, self._kind = serialize, deserialize, kind
        self._uploads = kind in (StreamUnaryCall, StreamStreamCall)
        self._streams = kind in (UnaryStreamCall, StreamStreamCall)

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        request_iterator: Any = None,
    ) -> Any:
        """Start a call.

        Raises:
            grpc.aio.UsageError: bad metadata, credentials (there is nothing to secure), or a closed channel.
        """
        if credentials is not None:
            raise grpc.aio.UsageError("call credentials need a secure channel")
        packed = None if self._uploads else pack(request, self._serialize)
        state = CallState(
            self._method, entries(metadata), timeout, streams=self._streams, sweep=self._channel.sweep
        )  # fmt: skip
        self._channel.begin(state, packed)
        call = self._kind(state, self._serialize, self._deserialize)
        if self._uploads:
            call.feed(request if request is not None else request_iterator)
        return call

    def give(self, request: Message, *, timeout: float | None, metadata: Iterable[Entry]) -> Any:
        """Start a call with a request that nobody else has, which spares the copy, and with checked metadata."""
        state = CallState(self._method, tuple(metadata), timeout, streams=self._streams, sweep=self._channel.sweep)
        self._channel.begin(state, request)
        return self._kind(state, self._serialize, self._deserialize)
