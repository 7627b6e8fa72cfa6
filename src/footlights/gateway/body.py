"""Request bodies: whole, or as a stream of messages, bounded in size and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from footlights.gateway.decode.json_text import decode_utf8
from footlights.gateway.decode.splitter import Splitter
from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError
from footlights.http import bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf import message as protobuf
    from starlette.types import Receive

    from footlights.gateway.disconnect import DisconnectWatch
    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.options import Options


async def read_body(receive: Receive, options: Options) -> bytes:
    """Return the whole body.

    Raises:
        GatewayError: it is too large (413) or pauses too long (408).
        ConnectionResetError: the client has disconnected.
    """
    try:
        return await bodies.read_body(receive, max_bytes=options.max_body_bytes, pause_s=options.body_timeout_s)
    except bodies.BodyTooLarge:
        raise too_large(options) from None
    except bodies.BodyTooSlow:
        raise _too_slow(options) from None


async def body_chunks(receive: Receive, options: Options) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raises as ``read_body`` does, except for the size."""
    try:
        async for piece in bodies.body_pieces(receive, pause_s=options.body_timeout_s):
            yield piece
    except bodies.BodyTooSlow:
        raise _too_slow(options) from None


def _too_slow(options: Options) -> GatewayError:
    message = f"the body must not pause for more than {options.body_timeout_s:g} s."
    return GatewayError(INVALID_ARGUMENT, message, http_status=408, reason="BODY_TIMEOUT")


def too_large(options: Options) -> GatewayError:
    """Return the error of a body that is too large: 413."""
    message = f"the body must have at most {options.max_body_bytes} bytes."
    return GatewayError(INVALID_ARGUMENT, message, http_status=413, reason="BODY_TOO_LARGE")


class Upload:
    """A body as a stream of messages. A body that cannot be read ends the call and leaves the refusal here."""

    def __init__(self, endpoint: Endpoint, receive: Receive, options: Options, watch: DisconnectWatch) -> None:
        self.refusal: GatewayError | None = None
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
        except GatewayError as refusal:
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
        return self._endpoint.streamed(decode_utf8(data))
