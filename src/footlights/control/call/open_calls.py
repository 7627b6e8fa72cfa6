"""gRPC services that need no token, health and reflection, within bounds: anyone who reaches the port may call them.

So many may be open at once, and fewer wait for a message, because one that arrives in pieces is kept in memory; of one
address only some of these.
Health is our own for the same reason: that of grpcio-health-checking holds a lock while it writes, and one client that
reads nothing stops what all others are told, and the server when it says that it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_status import rpc_status

from footlights.control import reflection
from footlights.control.call.grpc_adapter import Context, GrpcStream, NotReading, deserializer
from footlights.control.call.shares import Shares
from footlights.errors import Error
from footlights.status import to_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from google.protobuf.message import Message

_States = health_pb2.HealthCheckResponse
_UNKNOWN: Final = _States.SERVICE_UNKNOWN


class OpenCalls:
    """Health, and reflection if wanted, of one listener."""

    MOST = 1000
    """Calls at once."""
    MOST_OF_ONE = 250
    """Calls at once of one address."""
    MOST_READING = 64
    """Of all calls, those that wait for a message."""
    MOST_READING_OF_ONE = 16
    """The same of one address."""
    MESSAGE_S = 10.0
    """How long a client may take to send a message, and to read one, in seconds."""
    MAX_BYTES: Final = 64 << 10
    """The greatest message."""

    def __init__(
        self, services: Sequence[str], *, reflected: bool, cut_off: Callable[[str, int], object] = lambda *_: None
    ) -> None:
        """Create them; ``services`` are those of the listener, and the process as a whole is named by no name.

        ``cut_off`` ends the connection of a client, by its address and port: gRPC cannot end a call whose client reads
        nothing.
        """
        self._cut_off = cut_off
        what = "of health and reflection here"
        self._calls = Shares(f"calls {what}", most=self.MOST, most_of_one=self.MOST_OF_ONE)
        self._waiting = Shares(f"waiting {what}", most=self.MOST_READING, most_of_one=self.MOST_READING_OF_ONE)
        self._statuses = dict.fromkeys(("", *services), _States.SERVING)
        self._changed, self._final = asyncio.Event(), False
        check, listing = health_pb2.HealthCheckRequest, health_pb2.HealthListRequest
        answers: tuple[type[Message], type[Message]] = (_States, health_pb2.HealthListResponse)
        methods = {
            "Check": self._method(self._check, check, answers[0]),
            "List": self._method(self._list, listing, answers[1]),
            "Watch": self._method(self._watch, check, answers[0]),
        }
        self.handlers = [grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)]
        """What a gRPC server takes."""
        if reflected:
            describe = reflection.describe((*services, health.SERVICE_NAME))

            async def serve(stream: _OpenStream, _: Context) -> None:
                async for answer in describe(stream.requests()):
                    await stream.write(answer)

            methods = {reflection.METHOD: self._method(serve, reflection.REQUEST, reflection.RESPONSE)}
            self.handlers += [grpc.method_handlers_generic_handler(name, methods) for name in reflection.NAMES]

    def say(self, status: int) -> None:
        """Say from now on that every service has a status, unless they were told to stay NOT_SERVING."""
        if not self._final:
            self._statuses = dict.fromkeys(self._statuses, status)
            # Each watcher looks by itself, when it can: none is waited for.
            self._changed.set()
            self._changed = asyncio.Event()

    def stop(self) -> None:
        """Say NOT_SERVING of every service, for good."""
        self.say(_States.NOT_SERVING)
        self._final = True

    async def _check(self, stream: _OpenStream, context: Context) -> None:
        request: Any = await stream.read_only()
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"This server has no service {request.service}.")
        await stream.write(_States(status=self._statuses[request.service]))

    async def _list(self, stream: _OpenStream, _: Context) -> None:
        await stream.read_only()
        statuses = {name: _States(status=status) for name, status in self._statuses.items()}
        await stream.write(health_pb2.HealthListResponse(statuses=statuses))

    async def _watch(self, stream: _OpenStream, _: Context) -> None:
        request: Any = await stream.read_only()
        said = None
        while True:
            changed, status = self._changed, self._statuses.get(request.service, _UNKNOWN)
            if status != said:
                await stream.write(_States(status=status))
                said = status
            await changed.wait()

    def _method(
        self,
        serve: Callable[[_OpenStream, Context], Awaitable[None]],
        request_type: type[Message],
        response_type: type[Message],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def bounded(_requests: object, context: Context) -> None:
            try:
                peer = context.peer()
                with self._calls.take(peer):
                    reading = partial(self._waiting.take, peer)
                    await serve(_OpenStream(context, self.MESSAGE_S, reading), context)
            except NotReading:
                self._cut_off(*_client(context.peer()))
                raise asyncio.CancelledError from None
            except Error as error:
                status = rpc_status.to_status(to_status(error))
                await context.abort(status.code, status.details, status.trailing_metadata)

        # It reads and writes through the context, so it stands for methods of all kinds.
        read = deserializer(request_type, self.MAX_BYTES)
        return grpc.stream_stream_rpc_method_handler(bounded, read, response_type.SerializeToString)


def _client(peer: str) -> tuple[str, int]:
    """Return a client's address and port, of ``ipv4:192.0.2.1:7`` or ``ipv6:%5B2001:db8::1%5D:7``."""
    address, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return address.strip("[]"), int(port)


class _OpenStream(GrpcStream):
    """Counts itself while it waits for a message."""

    __slots__ = ("_reading",)

    def __init__(
        self, context: Context, message_s: float, reading: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        super().__init__(context, message_s)
        self._reading = reading

    async def read(self) -> Message | None:
        with self._reading():
            return await super().read()

    async def requests(self) -> AsyncIterator[Message]:
        """Yield requests until the client has ended its side, or has sent none for ``message_s`` seconds."""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(self.message_s):
                    request = await self.read()
                if request is None:
                    return
                yield request
