"""The answer to a server stream: its head as soon as there is something to say, then message by message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from footlights.gateway.encode.framing import Events, Lines
from footlights.gateway.errors import GatewayError, stopping
from footlights.gateway.exchange import Exchange, HeaderList, typed
from footlights.gateway.upstream.protocol import OutgoingCall, Responses, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message
    from google.rpc import status_pb2

    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.options import Options
    from footlights.gateway.upstream.metadata import Outgoing

HEAD_AFTER_S: Final = 0.1
"""An accepted stream without a message opens after so many seconds; a failure that comes sooner has its own status."""

_LAST_FRAME_S: Final = 1.0
"""How long a client that reads nothing may hold back the last frame of an answer that is cut off."""


class StreamAnswer:
    """Answers one request with the responses of a call.

    Strict mode opens the answer once the server has accepted the call, which its initial metadata say, and has been
    quiet for a moment: a client that watches an empty list must learn that it is connected. The default dialect waits
    for the first message, as the reference does.
    """

    def __init__(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        options: Options,
        *,
        outgoing: Outgoing,
        status_body: Callable[[status_pb2.Status], bytes],
    ) -> None:
        self._exchange, self._options = exchange, options
        self._outgoing, self._status_body = outgoing, status_body
        self._is_stored = not endpoint.added
        self._events = "text/event-stream" in (exchange.header(b"accept") or "").lower()
        framing = Events if self._events else Lines
        self._framing: Events | Lines = framing(endpoint, strict=options.strict)
        self._quiet_s = options.keepalive_s if self._framing.keepalive else None
        self._responses: Responses | None = None
        self._stops = False

    def stop(self) -> None:
        """End the answer with its own last frame, which says that the server stops."""
        self._stops = True
        if self._responses is not None:
            self._responses.cancel()

    async def send(self, responses: Responses, call: OutgoingCall) -> None:
        """Send what a call gives until its end.

        Raises:
            UpstreamError: The call failed before the head was sent.
            GatewayError: The first message has no JSON, and the head was not sent.
        """
        exchange, framing = self._exchange, self._framing
        self._responses = responses
        first = asyncio.get_running_loop().create_task(responses.read())
        try:
            opened = await self._opened(first, call)
            headers = self._outgoing(call.initial) if opened else []
            if not first.done():
                await exchange.start(200, self._head(headers, framing.content_type))
                if self._events:
                    await exchange.write(framing.keepalive)
                await self._rest(responses, first)
            elif (message := first.result()) is None:
                await exchange.start(200, self._head(headers, framing.content_type if self._events else ""))
            else:
                chunk, content_type = framing.message(message)
                await exchange.start(200, self._head(headers, content_type))
                await exchange.write(chunk)
                await self._rest(responses, None)
            await exchange.write(b"", more=False)
        except UpstreamError:
            if not self._stops:
                raise
            raise UpstreamError(self._stopped()) from None
        finally:
            first.cancel()

    async def cut_off(self) -> bool:
        """Write the last frame in a task that was cancelled; return whether the answer is whole by it."""
        if not self._exchange.started:
            return False
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_LAST_FRAME_S):
                await self._exchange.write(self._framing.error(self._status_body(self._stopped())))
                await self._exchange.write(b"", more=False)
                return True
        return False

    def _stopped(self) -> status_pb2.Status:
        return stopping(self._options.retry_after_s).status(
            strict=self._options.strict, domain=self._options.error_domain
        )

    async def _opened(self, first: asyncio.Task[Message | None], call: OutgoingCall) -> bool:
        """Wait for a message, the end, or an open stream that is quiet; return whether initial metadata are there."""
        quiet_s = self._quiet_s if self._events or self._options.strict else None
        if not self._options.strict or not self._framing.content_type:
            await asyncio.wait({first}, timeout=quiet_s)
            return first.done()
        accepted = asyncio.get_running_loop().create_task(call.opened())
        try:
            await asyncio.wait({first, accepted}, timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED)
            if first.done() or not accepted.done():
                return first.done()
            # An end that comes with the metadata, or right behind them, still gets a status of its own.
            await asyncio.wait({first}, timeout=HEAD_AFTER_S)
            return True
        finally:
            accepted.cancel()

    async def _rest(self, responses: Responses, reading: asyncio.Task[Message | None] | None) -> None:
        """Send the messages after the head; a failure is the last thing in the stream."""
        exchange, framing, quiet_s = self._exchange, self._framing, self._quiet_s
        try:
            while True:
                if reading is None and quiet_s is None:
                    message = await responses.read()
                else:
                    reading = reading or asyncio.get_running_loop().create_task(responses.read())
                    await asyncio.wait({reading}, timeout=quiet_s)
                    if not reading.done():
                        await exchange.write(framing.keepalive)
                        continue
                    message, reading = reading.result(), None
                if message is None:
                    return
                await exchange.write(framing.message(message)[0])
        except UpstreamError as error:
            status = self._stopped() if self._stops else error.status
        except GatewayError as refusal:
            status = refusal.status(strict=self._options.strict, domain=self._options.error_domain)
        finally:
            if reading is not None:
                reading.cancel()
        await exchange.write(framing.error(self._status_body(status)))

    def _head(self, headers: HeaderList, content_type: str) -> HeaderList:
        if content_type:
            headers.append(typed(content_type))
        if self._events and self._is_stored:
            headers.append((b"cache-control", b"no-cache"))
        if self._events or self._options.strict:
            # nginx would hold back what is not a buffer full.
            headers.append((b"x-accel-buffering", b"no"))
        return headers
