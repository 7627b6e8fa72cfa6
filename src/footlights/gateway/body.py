"""Request bodies: whole, or as a stream of messages, bounded in size and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from footlights.gateway.decode.jsontext import decode_utf8, first_value
from footlights.gateway.decode.splitter import Splitter
from footlights.gateway.errors import INVALID_ARGUMENT, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Generator

    from google.protobuf import message as protobuf
    from starlette.types import Message, Receive

    from footlights.gateway.disconnect import DisconnectWatch
    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.options import Options


async def read_body(receive: Receive, options: Options) -> bytes:
    """Return the whole body.

    Raises:
        Refusal: it is too large (413) or pauses too long (408).
        ConnectionResetError: the client has disconnected.
    """
    message: Message
    reading: Any = receive()
    try:
        # Most bodies are there already: then one step is all, and no deadline has to be set.
        waits_for = reading.send(None)
    except StopIteration as stop:
        message = stop.value
        if message["type"] == "http.disconnect":
            raise ConnectionResetError from None
    else:
        message = await _chunk(_Resumed(reading, waits_for), options)
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        chunks, size = [body], len(body)
        while size <= options.max_body_bytes and message.get("more_body", False):
            message = await _chunk(receive(), options)
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        body = b"".join(chunks)
    if len(body) > options.max_body_bytes:
        raise too_large(options)
    return body


async def body_chunks(receive: Receive, options: Options) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raises as ``read_body`` does, except for the size."""
    more = True
    while more:
        message = await _chunk(receive(), options)
        if chunk := message.get("body", b""):
            yield chunk
        more = message.get("more_body", False)


async def _chunk(reading: Awaitable[Message], options: Options) -> Message:
    try:
        async with asyncio.timeout(options.body_timeout_s):
            message = await reading
    except TimeoutError:
        plain = f"the body paused for more than {options.body_timeout_s:g} s"
        raise Refusal(
            INVALID_ARGUMENT, "body read timeout", http_status=408, reason="BODY_TIMEOUT", plain=plain
        ) from None
    if message["type"] == "http.disconnect":
        raise ConnectionResetError
    return message


class _Resumed:
    """A coroutine that has been run up to its first wait, to be awaited from there."""

    def __init__(self, coroutine: Any, waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        """Give what awaiting the whole coroutine gives."""
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration as stop:
            return stop.value


def too_large(options: Options) -> Refusal:
    """Return the refusal of a body that is too large: 413."""
    plain = f"the body is larger than {options.max_body_bytes} bytes"
    return Refusal(INVALID_ARGUMENT, plain, http_status=413, reason="BODY_TOO_LARGE")


class Upload:
    """A body as a stream of messages. A body that cannot be read ends the call and leaves the refusal here."""

    def __init__(self, endpoint: Endpoint, receive: Receive, options: Options, watch: DisconnectWatch) -> None:
        self.refusal: Refusal | None = None
        self._endpoint, self._receive, self._options, self._watch = endpoint, receive, options, watch

    async def messages(self) -> AsyncIterator[protobuf.Message]:
        """Yield one message for each JSON value."""
        splitter = Splitter(self._options.max_body_bytes)
        try:
            async for chunk in body_chunks(self._receive, self._options):
                for value in splitter.feed(chunk):
                    yield self._message(value)
            for value in splitter.finish():
                yield self._message(value)
        except Refusal as refusal:
            self.refusal = refusal
        except ConnectionResetError:
            pass
        else:
            # The body has been read, so what comes next can only be the end of the connection.
            self._watch.start()
            return
        self._watch.cancel()
        # To end here would look like the end of the upload: the server must see a cancelled call instead.
        await asyncio.get_running_loop().create_future()

    def _message(self, data: bytes) -> protobuf.Message:
        text = decode_utf8(data)
        place = first_value(text)
        assert place is not None, "the splitter gives no blanks"
        return self._endpoint.streamed(text[place[0] : place[1]])
