"""An upstream in this process: handlers are called without a socket.

A call with one response runs in its caller's task: it is a few function calls. A call with many responses runs in a
task of its own and writes into a bounded pipe, so that its handler may hold timeouts and task groups across responses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import Message
from google.rpc import status_pb2

from footlights.gateway.guard import CallGuard, Sweep
from footlights.gateway.upstream.pipe import Closed, Pipe
from footlights.gateway.upstream.protocol import (
    OutgoingCall,
    Requests,
    Responses,
    StreamMethod,
    UnaryMethod,
    UpstreamError,
    method_path,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

_log = logging.getLogger(__name__)
_UNKNOWN, _DEADLINE_EXCEEDED, _UNIMPLEMENTED, _CANCELLED = 2, 4, 12, 1


class LocalRequests(Protocol):
    """The requests of a client stream."""

    async def read(self) -> Message | None:
        """Return the next request, or None after the last one."""


Write = Callable[[Message], Awaitable[None]]
"""Sends one response; waits while the client does not keep up."""

LocalUnary = Callable[[Message | LocalRequests, OutgoingCall], Awaitable[Message]]
LocalStream = Callable[[Message | LocalRequests, OutgoingCall, Write], Awaitable[None]]


class LocalService(Protocol):
    """Serves calls in this process.

    A handler raises `UpstreamError` to fail. It sets ``initial`` and ``trailing`` of the call; one with many responses
    calls ``open`` once it has accepted the call. It is ended by cancellation.
    """

    def unary(self, method: str) -> LocalUnary | None:
        """Return the handler of ``/package.Service/Method`` with one response; None where there is none."""

    def stream(self, method: str) -> LocalStream | None:
        """Return the handler of a method with many responses; None where there is none."""


class LocalUpstream:
    """Calls the handlers of a service in this process. It belongs to one event loop."""

    def __init__(self, service: LocalService) -> None:
        self._service = service
        self._sweep = Sweep()

    def unary(self, rpc: MethodDescriptor) -> UnaryMethod:
        """See `Upstream`."""
        serve, sweep = self._service.unary(method_path(rpc)), self._sweep
        if serve is None:
            return _unimplemented

        async def call(requests: Requests, outgoing: OutgoingCall) -> Message:
            # Nothing is copied: the request was given away, and the response is read before the handler can run again.
            given = requests if isinstance(requests, Message) else _LocalReader(requests)
            if outgoing.timeout_s is None:
                return await serve(given, outgoing)
            guard = outgoing.guard or CallGuard(sweep)
            outgoing.deadline = guard.set_deadline(outgoing.timeout_s)
            try:
                return await serve(given, outgoing)
            except asyncio.CancelledError:
                if guard.has_expired():
                    raise _deadline_exceeded() from None
                raise
            finally:
                guard.lift_deadline()

        return call

    def stream(self, rpc: MethodDescriptor) -> StreamMethod:
        """See `Upstream`."""
        serve = self._service.stream(method_path(rpc)) or _unimplemented_stream

        def call(requests: Requests, outgoing: OutgoingCall) -> Responses:
            given = requests if isinstance(requests, Message) else _LocalReader(requests)
            return _LocalResponses(serve, given, outgoing)

        return call


class _LocalResponses:
    def __init__(self, serve: LocalStream, requests: Message | LocalRequests, outgoing: OutgoingCall) -> None:
        self._serve, self._requests, self._outgoing = serve, requests, outgoing
        self._pipe = Pipe()
        self._error: UpstreamError | None = None
        self._expired = False
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if outgoing.timeout_s is not None:
            outgoing.deadline = loop.time() + outgoing.timeout_s
            self._timer = loop.call_at(outgoing.deadline, self._expire)
        self._task = loop.create_task(self._run())

    async def read(self) -> Message | None:
        try:
            message: Message = await self._pipe.get()
        except Closed:
            if self._error is not None:
                raise self._error from None
            return None
        return message

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._serve(self._requests, self._outgoing, self._write)
        except UpstreamError as error:
            self._error = error
        except asyncio.CancelledError:
            self._error = _deadline_exceeded() if self._expired else _failed(_CANCELLED, "the call was cancelled")
            self._pipe.drop()
        except Exception as error:
            _log.exception("A local handler failed", extra={"action": "local_handler_failed"})
            self._error = _failed(_UNKNOWN, f"{type(error).__name__}: {error}")
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._outgoing.open(self._outgoing.initial)
            self._pipe.close()

    async def _write(self, message: Message) -> None:
        self._outgoing.open(self._outgoing.initial)
        # The handler may change and yield it again before it is read here.
        await self._pipe.put(message.__deepcopy__({}))

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


class _LocalReader:
    def __init__(self, requests: AsyncIterator[Message]) -> None:
        self._requests = requests

    async def read(self) -> Message | None:
        return await anext(self._requests, None)


async def _unimplemented(_requests: Requests, _call: OutgoingCall) -> Message:
    raise _failed(_UNIMPLEMENTED, "Method not found!")


async def _unimplemented_stream(_requests: object, _call: OutgoingCall, _write: Write) -> None:
    raise _failed(_UNIMPLEMENTED, "Method not found!")


def _deadline_exceeded() -> UpstreamError:
    return _failed(_DEADLINE_EXCEEDED, "Deadline Exceeded")


def _failed(code: int, message: str) -> UpstreamError:
    return UpstreamError(status_pb2.Status(code=code, message=message))
