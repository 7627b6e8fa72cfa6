"""The server's end of a call: what a servicer gets as its context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from footlights.gateway.inprocess.copying import Deserializer, Serializer, pack, unpack
from footlights.gateway.inprocess.pipe import Closed
from footlights.gateway.inprocess.state import CallState, End, Entries, entries

_OK: Final = grpc.StatusCode.OK
Pairs = Iterable[tuple[str, str | bytes]]


class Context(grpc.aio.ServicerContext[Any, Any]):
    """A ``grpc.aio.ServicerContext`` over shared state.

    Args:
        state: the call.
        deserialize: the handler's, of requests.
        serialize: the handler's, of responses.
    """

    _code: grpc.StatusCode | int = _OK
    _details = ""
    _trailing: Entries = ()
    aborted = False

    def __init__(self, state: CallState, deserialize: Deserializer, serialize: Serializer) -> None:
        self._state, self._deserialize, self._serialize = state, deserialize, serialize

    # Messages

    async def read(self) -> Any:
        """The next request, or ``grpc.aio.EOF``."""
        try:
            return unpack(await self._state.requests.get(), self._deserialize)
        except Closed:
            return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        """Send a response of a stream."""
        if self.aborted:
            raise grpc.aio.UsageError("RPC is already aborted")
        if self._state.responses is None:
            raise grpc.aio.UsageError("the client of this call takes one response")
        copy = pack(message, self._serialize)
        self.open()
        try:
            await self._state.responses.put(copy)
        except Closed:
            raise grpc.aio.UsageError("RPC already finished") from None

    def open(self) -> None:
        """Send initial metadata, if they are not out."""
        if self._state.initial is None:
            self._state.open(())

    # Metadata

    async def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        """Send initial metadata, once."""
        if self._state.initial is not None and self._state.end is None:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self._state.open(entries(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        """Set what is sent with the status."""
        self._trailing = entries(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """What was set."""
        return self._trailing

    def invocation_metadata(self) -> Any:
        """What the client sent, as named tuples."""
        return self._state.metadata

    # Status

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()) -> NoReturn:
        """End the call with a status that is not OK; raises, and swallowing what it raises changes nothing."""
        if self.aborted:
            raise grpc.aio.UsageError("Abort already called!")
        if code in (_OK, 0):
            self._code, self._details = grpc.StatusCode.UNKNOWN, ""
        else:
            self._code = code
        self._details = details or self._details
        if trailing_metadata:
            self._trailing = entries(trailing_metadata)
        self.aborted = True
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """As abort, from a status object."""
        await self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code that the call ends with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the status message that the call ends with."""
        self._details = details

    def code(self) -> Any:
        """What was set."""
        return 0 if self._code is _OK else self._code

    @property
    def is_fine(self) -> bool:
        """Whether nothing has been said but OK."""
        return self._code is _OK and not self.aborted

    def details(self) -> str:
        """What was set."""
        return self._details

    def end(self) -> End:
        """The end that a handler which returned has brought about."""
        code = self._code if isinstance(self._code, grpc.StatusCode) else _code(self._code)
        return End(code, self._details, self._trailing)

    def failed(self, error: BaseException) -> End:
        """The end of a handler that raised."""
        code = self._code if isinstance(self._code, grpc.StatusCode) else _code(self._code)
        if code is _OK:
            code = grpc.StatusCode.UNKNOWN
        return End(code, f"Unexpected {type(error)}: {error}", self._trailing)

    # The call

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back when the call is over."""
        self._state.when_ended(lambda: callback(self))

    def cancelled(self) -> bool:
        """Whether the handler said so; a client's cancellation is a CancelledError, as over the wire."""
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call is over."""
        return self._state.end is not None

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None without a deadline, as grpc.aio has it
        """Seconds until the deadline."""
        return self._state.time_remaining

    # The transport, of which there is none

    def peer(self) -> str:
        """``inproc:``; the client's address is in the metadata."""
        return "inproc:"

    def peer_identities(self) -> None:
        """None."""

    def peer_identity_key(self) -> None:
        """None."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Empty."""
        return {}

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _code(number: int) -> grpc.StatusCode:
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)
