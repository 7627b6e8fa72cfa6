"""A call's surroundings: its client may leave, its upload comes in pieces, its failure is a status."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import message as protobuf
from google.rpc import status_pb2

from footlights.gateway.decode.json_text import decode_utf8
from footlights.gateway.decode.splitter import Splitter
from footlights.gateway.errors import INVALID_ARGUMENT, Refusal
from footlights.http import bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc.aio
    from starlette.types import Receive

    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.options import Options
    from footlights.gateway.sweep import Sweep

_DETAILS: Final = "grpc-status-details-bin"


class Watch:
    """Notices that the client has left, by reading on after the body, and cancels the call then.

    Most calls end before it begins, which is when the sweep finds them: those need no watching.
    """

    __slots__ = ("_cancel", "_receive", "_sweep", "_task", "gone")

    def __init__(self, receive: Receive, cancel: Callable[[], object], sweep: Sweep) -> None:
        self.gone = False
        self._receive, self._cancel, self._sweep = receive, cancel, sweep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin soon; the body must have been read, or not be wanted."""
        self._sweep.add(self)

    def stop(self) -> None:
        """End; must be called when the call is over."""
        self._sweep.discard(self)
        if self._task is not None:
            self._task.cancel()

    def leave(self) -> None:
        """The client has left."""
        self.gone = True
        self._cancel()

    def linger(self) -> None:
        """The call takes a while."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.leave()
                return


async def read_body(receive: Receive, options: Options) -> bytes:
    """The whole body.

    Raises:
        Refusal: it is too large (413) or pauses too long (408).
        ConnectionResetError: the client left.
    """
    try:
        return await bodies.read_body(receive, max_bytes=options.max_body_bytes, pause_s=options.body_timeout_s)
    except bodies.BodyTooLarge:
        raise too_large(options) from None
    except bodies.BodyTooSlow:
        raise _too_slow(options) from None


async def body_chunks(receive: Receive, options: Options) -> AsyncIterator[bytes]:
    """The body as it comes; raises as ``read_body``, except for the size."""
    try:
        async for piece in bodies.body_pieces(receive, pause_s=options.body_timeout_s):
            yield piece
    except bodies.BodyTooSlow:
        raise _too_slow(options) from None


def _too_slow(options: Options) -> Refusal:
    message = f"the body must not pause for more than {options.body_timeout_s:g} s."
    return Refusal(INVALID_ARGUMENT, message, http_status=408, reason="BODY_TIMEOUT")


def too_large(options: Options) -> Refusal:
    """413."""
    message = f"the body must have at most {options.max_body_bytes} bytes."
    return Refusal(INVALID_ARGUMENT, message, http_status=413, reason="BODY_TOO_LARGE")


class Upload:
    """A body as a stream of messages. A body that cannot be read cancels the call and leaves the refusal here."""

    def __init__(self, endpoint: Endpoint, receive: Receive, options: Options) -> None:
        self.refusal: Refusal | None = None
        self.watch: Watch | None = None
        self._endpoint, self._receive, self._options = endpoint, receive, options

    async def messages(self) -> AsyncIterator[protobuf.Message]:
        """One message a JSON value."""
        splitter = Splitter(self._options.max_body_bytes)
        try:
            async for chunk in body_chunks(self._receive, self._options):
                for value in splitter.feed(chunk):
                    yield self._message(value)
            for value in splitter.finish():
                yield self._message(value)
        except Refusal as refusal:
            self.refusal = refusal
            self._cancel()
        except ConnectionResetError:
            if self.watch is not None:
                self.watch.leave()
        else:
            if self.watch is not None:
                self.watch.start()

    def _message(self, data: bytes) -> protobuf.Message:
        return self._endpoint.streamed(decode_utf8(data))

    def _cancel(self) -> None:
        if self.watch is not None:
            self.watch._cancel()  # noqa: SLF001  they belong together


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status of a failed call with the details the server attached."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            try:
                status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode("latin1"))
            except protobuf.DecodeError:
                break
            if status.code == error.code().value[0]:
                return status
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")


async def initial(call: Any) -> list[tuple[str, str | bytes]] | tuple[tuple[str, str | bytes], ...]:
    """A call's initial metadata as pairs; asks a call of the in-process channel without going through grpc's type."""
    known: tuple[tuple[str, str | bytes], ...] | None = getattr(call, "initial_entries", None)
    return pairs(await call.initial_metadata()) if known is None else known


def pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Metadata as pairs, whichever of grpc's types it has."""
    return [(key, value) for key, value in metadata] if metadata else []
