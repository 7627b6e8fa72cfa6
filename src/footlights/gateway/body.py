"""Requests to messages: one from all parts of a request, or many from its body.

Also the refusals of bodies that exceed a bound.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from footlights.gateway.decode.headers import check_media_type
from footlights.gateway.decode.json_text import decode_utf8
from footlights.gateway.decode.query import parse_query
from footlights.gateway.decode.splitter import Splitter
from footlights.gateway.errors import INVALID_ARGUMENT, GatewayError
from footlights.http import bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from google.protobuf import message as protobuf
    from starlette.types import Receive

    from footlights.gateway.endpoint import Endpoint
    from footlights.gateway.exchange import Exchange
    from footlights.gateway.guard import CallGuard
    from footlights.gateway.options import Options
    from footlights.gateway.routing.router import Route


def refusal(error: bodies.BodyTooLarge | bodies.BodyTooSlow, options: Options) -> GatewayError:
    """Return the answer to a body that cannot be read: 413 where it is too large, 408 where it pauses too long."""
    if isinstance(error, bodies.BodyTooLarge):
        message, status, reason = f"have at most {options.max_body_bytes} bytes", 413, "BODY_TOO_LARGE"
    else:
        message, status, reason = f"not pause for more than {options.body_timeout_s:g} s", 408, "BODY_TIMEOUT"
    return GatewayError(INVALID_ARGUMENT, f"the body must {message}.", http_status=status, reason=reason, field="body")


class RequestReader:
    """Reads requests that are one message."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._max_bytes, self._pause_s = options.max_body_bytes, options.body_timeout_s

    def body(self, receive: Receive) -> Awaitable[bytes]:
        """Return a whole body."""
        return bodies.read_body(receive, max_bytes=self._max_bytes, pause_s=self._pause_s)

    async def form(self, exchange: Exchange) -> dict[str, list[str]]:
        """Return the parameters in a body that is a form."""
        return parse_query(await self.body(exchange.receive))

    async def rest(self, exchange: Exchange, endpoint: Endpoint) -> dict[str, list[str]] | None:
        """Read a body that no field takes: return its parameters where it is a form, refuse it where it asks for more.

        Raises:
            GatewayError: It would be ignored.
        """
        if endpoint.takes_parameters and exchange.has_form:
            return await self.form(exchange)
        may_have_one = exchange.method != "DELETE" or not endpoint.checks_body or not exchange.has_body
        if may_have_one or (await self.body(exchange.receive)).strip() in (b"", b"{}"):
            return None
        message = "this call takes no body; give its parameters in the query."
        raise GatewayError(INVALID_ARGUMENT, message, reason="BODY_NOT_SUPPORTED")

    def message(
        self, exchange: Exchange, endpoint: Endpoint, route: Route, body: bytes, form: dict[str, list[str]] | None
    ) -> protobuf.Message:
        """Build the request from the parts that the rule names.

        Args:
            exchange: The HTTP request.
            endpoint: Where it goes.
            route: What its path matched.
            body: Its body, where the rule takes it.
            form: The parameters in its body, where it is a form.

        Raises:
            GatewayError: A part does not fit the message.
        """
        query, parameters = exchange.scope["query_string"], form or {}
        if query and (endpoint.takes_parameters or self._options.strict):
            parameters = dict(parameters)
            for key, values in parse_query(query).items():
                parameters[key] = [*parameters.get(key, ()), *values]
        return endpoint.request(decode_utf8(body) if body else "", route.variables, parameters)

    def special(
        self, exchange: Exchange, endpoint: Endpoint, route: Route, body: bytes, form: dict[str, list[str]] | None
    ) -> protobuf.Message:
        """As ``message``, where headers may have a part in it."""
        if body and endpoint.checks_body:
            check_media_type(exchange.headers)
        request = self.message(exchange, endpoint, route, body, form)
        if endpoint.server_streaming and (last_event_id := exchange.header(b"last-event-id")):
            endpoint.replier.resume(request, last_event_id)
        endpoint.headers.read(request, exchange.headers, exchange.scope["headers"])
        return request

    def check(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Check the headers of an upload, whose messages they cannot be a part of.

        Raises:
            GatewayError: One of them is refused.
        """
        if endpoint.checks_body:
            check_media_type(exchange.headers, streamed=True)
        endpoint.headers.read(None, exchange.headers, exchange.scope["headers"])


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
