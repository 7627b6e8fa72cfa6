"""The client's end of a call: what a stub gives back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from footlights.gateway.inprocess.copying import Deserializer, Serializer, pack, unpack
from footlights.gateway.inprocess.pipe import Closed

if TYPE_CHECKING:
    from footlights.gateway.inprocess.state import CallState, End, Entries

_OK: Final = grpc.StatusCode.OK
_log = logging.getLogger(__name__)


class _Call(grpc.aio.RpcContext):
    """What all four kinds share. The state never refers to the call, so that a dropped one is noticed."""

    def __init__(self, state: CallState, serialize: Serializer, deserialize: Deserializer) -> None:
        self._state, self._serialize, self._deserialize = state, serialize, deserialize

    def cancel(self) -> bool:
        """End the call; False when it is over."""
        return self._state.cancel()

    def cancelled(self) -> bool:
        """Whether it ended by cancellation."""
        end = self._state.end
        return end is not None and end.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether it is over."""
        return self._state.end is not None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return self._state.time_remaining

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when it is over."""
        self._state.when_ended(lambda: callback(self))

    @property
    def initial_entries(self) -> Entries | None:
        """The initial metadata if they are there, as they came."""
        return self._state.initial

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """The server's, once they are there."""
        return _metadata(await self._state.opened())

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What came with the status, once the call is over."""
        return _metadata((await self._state.ended()).trailing)

    async def code(self) -> grpc.StatusCode:
        """The status code, once the call is over."""
        return (await self._state.ended()).code

    async def details(self) -> str:
        """The status message, once the call is over."""
        return (await self._state.ended()).details

    async def debug_error_string(self) -> str:
        """Nothing more than the status is known."""
        return repr(await self._state.ended())

    async def wait_for_connection(self) -> None:
        """There is nothing to connect."""

    def _raise(self, end: End) -> None:
        """Raise for an end that is not OK."""
        if end.local:
            raise asyncio.CancelledError
        if end.code is not _OK:
            raise grpc.aio.AioRpcError(
                end.code, _metadata(self._state.initial or ()), _metadata(end.trailing), details=end.details,
                debug_error_string=f"in process: {end.code.name}: {end.details}",
            )  # fmt: skip


class _OneResponse(_Call):
    """Can be awaited for the response."""

    def __await__(self) -> Generator[Any, None, Any]:
        """The response.

        Raises:
            grpc.aio.AioRpcError: the call failed.
            asyncio.CancelledError: it was cancelled here, or whoever awaits was, which cancels the call.
        """
        return self._response().__await__()

    async def _response(self) -> Any:
        state = self._state
        try:
            while state.end is None:
                await state.changed()
            end = state.end
        except asyncio.CancelledError:
            state.cancel()
            raise
        self._raise(end)
        answer, deserialize = state.answer, self._deserialize
        if answer is None:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.INTERNAL, _metadata(state.initial or ()), _metadata(end.trailing),
                details="the handler gave no response",
            )  # fmt: skip
        return unpack(answer, deserialize)


class _ManyResponses(_Call):
    """Can be iterated, or read from."""

    _iterating = False

    def __aiter__(self) -> AsyncIterator[Any]:
        """The responses; raises as ``read`` does."""
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF`` after the last.

        Raises:
            grpc.aio.AioRpcError: the call failed.
            asyncio.CancelledError: as for one response.
        """
        state = self._state
        assert state.responses is not None
        try:
            return unpack(await state.responses.get(), self._deserialize)
        except Closed:
            self._raise(await state.ended())
            return grpc.aio.EOF
        except asyncio.CancelledError:
            state.cancel()
            raise

    def __del__(self) -> None:
        """A stream that nobody can read any more is cancelled."""
        state = self._state
        if state.end is None and not state.loop.is_closed():
            state.loop.call_soon_threadsafe(state.cancel)


class _Requests(_Call):
    """Sends requests, from an iterator or by ``write``."""

    _writer: asyncio.Task[None] | None = None

    def feed(self, requests: AsyncIterable[Any] | Iterable[Any] | None) -> None:
        """Begin to send what an iterator gives."""
        if requests is not None:
            self._writer = self._state.loop.create_task(_feed(self._state, requests, self._serialize))
            self._state.when_ended(self._writer.cancel)

    async def write(self, request: Any) -> None:
        """Send one request."""
        self._check_style()
        packed = pack(request, self._serialize)
        if self._state.end is None:
            try:
                await self._state.requests.put(packed)
                return
            except Closed:
                if self._state.end is None:
                    raise asyncio.InvalidStateError("RPC is half closed after calling done_writing") from None
        self._raise(await self._state.ended())
        raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        """No more requests."""
        self._check_style()
        self._state.requests.close()

    def _check_style(self) -> None:
        if self._writer is not None:
            raise grpc.aio.UsageError("a call with a request iterator cannot be written to")


async def _feed(state: CallState, requests: AsyncIterable[Any] | Iterable[Any], serialize: Serializer) -> None:
    try:
        if isinstance(requests, AsyncIterable):
            async for request in requests:
                await state.requests.put(pack(request, serialize))
        else:
            for request in requests:
                await state.requests.put(pack(request, serialize))
        state.requests.close()
    except Closed:
        return
    except Exception:
        _log.exception("A request iterator failed", extra={"action": "request_iterator_failed", "method": state.method})
        state.cancel()


class UnaryUnaryCall(_OneResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response."""


class UnaryStreamCall(_ManyResponses, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, many responses."""


class StreamUnaryCall(_OneResponse, _Requests, grpc.aio.StreamUnaryCall[Any, Any]):
    """Many requests, one response."""


class StreamStreamCall(_ManyResponses, _Requests, grpc.aio.StreamStreamCall[Any, Any]):
    """Many of both."""


def _metadata(found: Entries) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*[(key, value) for key, value in found])
