"""The gateway: an ASGI application that serves RPCs as REST."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from google.rpc import error_details_pb2, status_pb2

from footlights.gateway.body import Upload, refusal
from footlights.gateway.decode.json_text import decode_utf8
from footlights.gateway.decode.names import json_name, own_name, proto_name
from footlights.gateway.decode.query import check_path, parse_query
from footlights.gateway.encode.writer import WriteError, Writer
from footlights.gateway.endpoint import Endpoint
from footlights.gateway.errors import (
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    GatewayError,
    quoted,
    with_info,
)  # fmt: skip
from footlights.gateway.exchange import FORM, Exchange, HeaderList, cors_of
from footlights.gateway.guard import CallGuard, Sweep
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import Binding, routes
from footlights.gateway.routing.router import Route, Router, VerbAlone
from footlights.gateway.streaming import StreamAnswer
from footlights.gateway.upstream import metadata
from footlights.gateway.upstream.protocol import OutgoingCall, Requests, UpstreamError
from footlights.http.bodies import BodyTooLarge, BodyTooSlow, read_body
from footlights.http.status import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message
    from starlette.types import Receive, Scope, Send

    from footlights.gateway.upstream.protocol import Upstream

_log = logging.getLogger(__name__)


class Gateway:
    """Serves the annotated RPCs of some services as REST.

    Args:
        upstream: Serves the calls.
        services: Descriptors, or full names in the default pool.
        options: The dialect and its bounds.
        on_overload: Called for each call that is refused because too many are in flight.

    Raises:
        BindingError: An annotation that cannot be served.
    """

    def __init__(
        self,
        upstream: Upstream,
        services: Sequence[ServiceDescriptor | str],
        options: Options | None = None,
        *,
        on_overload: Callable[[], None] | None = None,
    ) -> None:
        self.options = options or Options()
        self._on_overload = on_overload
        self.bindings: list[Binding] = routes(services, self.options)
        self._router = Router(self.bindings, verbs_bind=self.options.strict)
        pools = list({id(b.pool): b.pool for b in self.bindings}.values())
        spell = json_name
        if self.options.use_proto_names:
            # The reference prints proto names whatever json_name says; strict mode keeps to what was set by hand.
            spell = own_name if self.options.strict else proto_name
        writer = Writer(spell=spell, pools=pools)
        self._endpoints = {id(binding): Endpoint(binding, upstream, self.options, writer) for binding in self.bindings}
        self._incoming, self._outgoing = metadata.Incoming(self.options), metadata.Outgoing(self.options)
        self._cors, self._sweep = cors_of(self.options), Sweep()
        self._status_writer = Writer(spell=spell, keep_unknown_any=self.options.strict, pools=pools)
        self._default_timeout_s = metadata.timeout(None, self.options)
        self.in_flight = 0
        """Calls that wait or run, streams included."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection; a WebSocket is refused."""
        if scope["type"] != "http":
            await (_lifespan(receive, send) if scope["type"] == "lifespan" else _close(send))
            return
        options = self.options
        exchange = Exchange(scope, receive, send, self._cors, with_id=options.strict)
        try:
            self._check_bounds(exchange)
            method, form = exchange.method, None
            if method == "OPTIONS" and options.cors_origins and exchange.header(b"access-control-request-method"):
                methods = self._router.methods(exchange.path)
                if not methods and options.strict:
                    raise self._not_found(exchange.path)
                await exchange.answer_preflight(methods)
                return
            route = self._router.plain(method, exchange.path)
            if route is None or (method == "POST" and exchange.headers.get(b"content-type") == FORM):
                route, form = await self._route(exchange)
            if self.in_flight >= options.max_concurrent_calls:
                raise self._overloaded(f"the server is busy: {self.in_flight} calls are in flight; try again later.")
            # The slot is taken before anything is awaited: however many requests arrive together, the limit holds.
            self.in_flight += 1
            try:
                if options.pace is not None and not await options.pace():
                    raise self._overloaded("the server is busy: too many calls wait; try again later.")
                await self._call(exchange, route, form)
            finally:
                self.in_flight -= 1
        except GatewayError as error:
            await self._refuse(exchange, error)
        except (BodyTooLarge, BodyTooSlow) as error:
            await self._refuse(exchange, refusal(error, options))
        except ConnectionResetError:
            return
        except Exception:
            _log.exception("The gateway failed", extra={"action": "gateway_failed", "request_id": exchange.request_id})
            if exchange.started:
                raise
            await self._refuse(
                exchange,
                GatewayError(
                    INTERNAL, "the gateway failed; its log has the cause.", reason="INTERNAL",
                    metadata={"request_id": exchange.request_id},
                ),
            )  # fmt: skip

    def _overloaded(self, message: str) -> GatewayError:
        if self._on_overload is not None:
            self._on_overload()
        return GatewayError(UNAVAILABLE, message, reason="OVERLOADED", retry_after_s=self.options.retry_after_s)

    def _check_bounds(self, exchange: Exchange) -> None:
        options, scope = self.options, exchange.scope
        raw_path = scope.get("raw_path") or b""
        if len(scope["headers"]) > options.max_header_count:
            raise GatewayError(
                INVALID_ARGUMENT, f"the request must have at most {options.max_header_count} headers.",
                http_status=431, reason="TOO_MANY_HEADERS",
            )  # fmt: skip
        if len(raw_path) + len(scope["query_string"]) > options.max_url_bytes:
            raise GatewayError(
                INVALID_ARGUMENT, f"the URL must have at most {options.max_url_bytes} bytes.",
                http_status=414, reason="URL_TOO_LONG",
            )  # fmt: skip
        length = exchange.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > options.max_body_bytes:
            raise BodyTooLarge
        if b"%" in raw_path:
            check_path(raw_path)

    # Routing

    async def _route(self, exchange: Exchange) -> tuple[Route, dict[str, list[str]] | None]:
        """Return the route, and the form where it has been read for routing."""
        method, path = exchange.method, exchange.path
        if not path.startswith("/"):
            raise GatewayError(INVALID_ARGUMENT, "the path must begin with a slash.", reason="INVALID_URL")
        form: dict[str, list[str]] | None = None
        # Only a POST of exactly this type may stand for another method.
        stands_in = method == "POST" and exchange.headers.get(b"content-type") == FORM
        if stands_in and (override := exchange.header(b"x-http-method-override")):
            form = await self._form(exchange)
            method = override.upper()
        try:
            route = self._router.find(method, path)
            if route is None and stands_in and method == "POST":
                route = self._router.find("GET", path)
                if route is not None and form is None:
                    form = await self._form(exchange)
        except VerbAlone:
            route = None
            raise self._not_found(path) from None
        if route is not None:
            return route, form
        allowed = self._router.methods(path)
        if not allowed:
            raise self._not_found(path)
        message = f"{quoted(path)} does not support {method}; use {' or '.join(allowed)}."
        if self.options.strict:
            raise GatewayError(
                UNIMPLEMENTED, message, http_status=405, reason="METHOD_NOT_ALLOWED",
                headers=[("allow", ", ".join(allowed))],
            )  # fmt: skip
        raise GatewayError(UNIMPLEMENTED, message, reason="METHOD_NOT_ALLOWED")

    def _not_found(self, path: str) -> GatewayError:
        message = f"there is nothing at {quoted(path)}."
        return GatewayError(NOT_FOUND, message, reason="PATH_NOT_FOUND", metadata={"path": path})

    async def _form(self, exchange: Exchange) -> dict[str, list[str]]:
        return parse_query(await self._body(exchange))

    def _body(self, exchange: Exchange) -> Awaitable[bytes]:
        options = self.options
        return read_body(exchange.receive, max_bytes=options.max_body_bytes, pause_s=options.body_timeout_s)

    # Calls

    async def _call(self, exchange: Exchange, route: Route, form: dict[str, list[str]] | None) -> None:
        endpoint = self._endpoints[id(route.binding)]
        scope = exchange.scope
        peer = scope.get("client")
        entries = self._incoming(scope["headers"], exchange.headers, peer[0] if peer else "", exchange.request_id)
        # A stream has no end of its own, so only its client can give it a deadline.
        seconds = None if endpoint.server_streaming else self._default_timeout_s
        if (asked := exchange.header(b"grpc-timeout")) is not None:
            seconds = metadata.timeout(asked, self.options)
        guard = CallGuard(self._sweep)
        call = OutgoingCall(entries, seconds, guard)
        upload: Upload | None = None
        requests: Requests
        if endpoint.client_streaming:
            upload = Upload(endpoint, exchange.receive, self.options, guard)
            requests = upload.messages()
        else:
            text = ""
            if form is None and endpoint.takes_body:
                text = decode_utf8(await self._body(exchange))
            elif form is None and endpoint.takes_parameters and exchange.has_form:
                form = await self._form(exchange)
            requests = self._request(exchange, endpoint, route, text, form or {})
            guard.watch(exchange.receive)
        try:
            if endpoint.server_streaming:
                await self._stream(exchange, endpoint, requests, call)
            else:
                message = await endpoint.unary(requests, call)
                await exchange.answer(*self._reply(exchange, endpoint, message, call))
        except asyncio.CancelledError:
            if not guard.caused():
                raise
            if upload is not None and upload.refusal is not None:
                raise upload.refusal from None
        except UpstreamError as error:
            await self._reject(exchange, error.status, call, streamed=endpoint.server_streaming)
        finally:
            guard.stop()

    def _request(
        self, exchange: Exchange, endpoint: Endpoint, route: Route, text: str, form: dict[str, list[str]]
    ) -> Message:
        """Build the request from the parts that the rule names."""
        query, parameters = exchange.scope["query_string"], form
        if query and (endpoint.takes_parameters or self.options.strict):
            parameters = dict(form)
            for key, values in parse_query(query).items():
                parameters[key] = [*parameters.get(key, ()), *values]
        last_event_id = exchange.header(b"last-event-id") if endpoint.server_streaming else None
        return endpoint.request(text, route.variables, parameters, last_event_id or "")

    def _reply(
        self, exchange: Exchange, endpoint: Endpoint, message: Message, call: OutgoingCall
    ) -> tuple[int, HeaderList, bytes, str]:
        """Return the answer to a call that succeeded: status, headers, body and content type."""
        headers = self._outgoing(call.initial)
        replier, status = endpoint.replier, 200
        if not replier.is_plain:
            status, location = replier.status(message), replier.location(message)
            if location is not None:
                headers.append((b"location", (exchange.scope.get("root_path", "") + location).encode()))
            if replier.empty_body:
                return status, headers, b"", ""
        try:
            return status, headers, *endpoint.encode(message)
        except GatewayError as error:
            error.headers += [(name.decode("latin1"), value.decode("latin1")) for name, value in headers]
            raise

    async def _stream(self, exchange: Exchange, endpoint: Endpoint, requests: Requests, call: OutgoingCall) -> None:
        answer = StreamAnswer(
            exchange,
            endpoint,
            self.options,
            outgoing=self._outgoing,
            status_body=lambda status: self._status_body(status, exchange)[0],
        )
        responses = endpoint.stream(requests, call)
        try:
            await answer.send(responses, call)
        finally:
            responses.cancel()

    # Errors

    async def _refuse(self, exchange: Exchange, error: GatewayError) -> None:
        options = self.options
        if exchange.started:
            return
        status = error.status(strict=options.strict, domain=options.error_domain)
        headers = [(name.encode(), value.encode("latin1", "replace")) for name, value in error.headers]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if error.http_status in (408, 413):
            # The rest of the body is not going to be read, so the connection cannot be used again.
            headers.append((b"connection", b"close"))
        if error.text and not options.strict:
            await exchange.answer(error.http_status, headers, error.text.encode(), "text/plain; charset=utf-8")
            return
        await exchange.answer(error.http_status, headers, self._status_body(status, exchange)[0], "application/json")

    async def _reject(
        self, exchange: Exchange, status: status_pb2.Status, call: OutgoingCall, *, streamed: bool
    ) -> None:
        """Answer with the status that a call failed with."""
        strict = self.options.strict
        headers = self._outgoing(call.initial)
        body, written = self._status_body(status, exchange)
        code = HTTP_STATUS.get(status.code, 500) if written else 500
        if streamed and not strict:
            await exchange.answer(code, headers, b'{"error":' + body + b"}", "application/json")
            return
        if status.code == UNAUTHENTICATED:
            message = "Bearer" if strict else status.message.replace("\r", " ").replace("\n", " ")
            headers.append((b"www-authenticate", message.encode("latin1", "replace")))
        if strict and status.code in (RESOURCE_EXHAUSTED, UNAVAILABLE):
            headers += _retry_after(status)
        await exchange.answer(code, headers, body, "application/json")

    def _status_body(self, status: status_pb2.Status, exchange: Exchange) -> tuple[bytes, bool]:
        """Return a status as JSON, and whether that was possible."""
        strict, domain, name = self.options.strict, self.options.error_domain, exchange.request_id
        try:
            given = with_info(status, domain=domain, request_id=name) if strict else status
            return self._status_writer.write(given).encode("utf-8", "surrogatepass"), True
        except WriteError:
            error = GatewayError(INTERNAL, "the error has no JSON", reason="INTERNAL", metadata={"request_id": name})
            written = self._status_writer.write(error.status(strict=strict, domain=domain))
            return written.encode("utf-8", "surrogatepass"), False


def _retry_after(status: status_pb2.Status) -> HeaderList:
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            delay = retry.retry_delay
            return [(b"retry-after", b"%d" % max(1, math.ceil(delay.seconds + delay.nanos / 1e9)))]
    return []


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1000})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Answer the server: there is nothing to start or stop."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
