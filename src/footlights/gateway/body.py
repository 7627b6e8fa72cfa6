"""Request bodies as streams of messages, and the answers to bodies that exceed a bound."""

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

    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.guard import CallGuard
    from footlights.gateway.options import Options


def refusal(error: bodies.BodyTooLarge | bodies.BodyTooSlow, options: Options) -> GatewayError:
    """Return the answer to a body that cannot be read: 413 where it is too large, 408 where it pauses too long."""
    if isinstance(error, bodies.BodyTooLarge):
        message, status, reason = f"have at most {options.max_body_bytes} bytes", 413, "BODY_TOO_LARGE"
    else:
        message, status, reason = f"not pause for more than {options.body_timeout_s:g} s", 408, "BODY_TIMEOUT"
    return GatewayError(INVALID_ARGUMENT, f"the body must {message}.", http_status=status, reason=reason, field="body")


class Upload:
    """A body as a stream of messages. A body that cannot be read ends the call and leaves the refusal here."""

    def __init__(self, endpoint: Endpoint, receive: Receive, options: Options, guard: CallGuard) -> None:
        self.refusal: GatewayError | None = None
        self._endpoint, self._receive, self._options, self._guard = endpoint, receive, options, guard

    async def messages(self) -> AsyncIterator[protobuf.Message]:
        """Yield one message for each JSON value."""
        splitter = Splitter(self._options.max_body_bytes)
        try:
            async for chunk in bodies.body_pieces(self._receive, pause_s=self._options.body_timeout_s):
                for value in splitter.feed(chunk):
                    yield self._message(value)
            for value in splitter.finish():
                yield self._message(value)
        except bodies.BodyTooSlow as error:
            self.refusal = refusal(error, self._options)
        except GatewayError as error:
            self.refusal = error
        except ConnectionResetError:
            pass
        else:
            # The body has been read, so what comes next can only be the end of the connection.
            self._guard.watch(self._receive)
            return
        self._guard.cancel()
        # To end here would look like the end of the upload: the server must see a cancelled call instead.
        await asyncio.get_running_loop().create_future()

    def _message(self, data: bytes) -> protobuf.Message:
        return self._endpoint.streamed(decode_utf8(data))
