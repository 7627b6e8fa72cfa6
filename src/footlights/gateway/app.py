"""The gateway: an ASGI application that serves RPCs as REST."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from google.rpc import error_details_pb2, status_pb2

from footlights.gateway.body import RequestReader, Upload, refusal
from footlights.gateway.decode.headers import IF_MATCH, JSON_TYPES
from footlights.gateway.decode.names import json_name, own_name, proto_name
from footlights.gateway.decode.query import check_path
from footlights.gateway.encode.status_text import DetailWriter, ErrorWriter, StatusWriter
from footlights.gateway.encode.writer import Writer
from footlights.gateway.endpoint import Endpoint
from footlights.gateway.errors import (
    ABORTED,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    GatewayError,
    quoted,
    stopping,
)  # fmt: skip
from footlights.gateway.exchange import FORM, Exchange, HeaderList, cors_of
from footlights.gateway.guard import CallGuard, Sweep
from footlights.gateway.options import Options
from footlights.gateway.routing.binding import Binding, routes
from footlights.gateway.routing.router import Route, Router, VerbAlone
from footlights.gateway.streaming import StreamAnswer
from footlights.gateway.upstream import metadata
from footlights.gateway.upstream.protocol import OutgoingCall, Requests, UpstreamError
from footlights.http.bodies import BodyTooLarge, BodyTooSlow
from footlights.http.status import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
        on_deprecated: Called for each request to a deprecated path, with the HTTP method and the path's template.

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
        on_deprecated: Callable[[str, str], None] | None = None,
    ) -> None:
        self.options = options or Options()
        self._on_overload, self._on_deprecated = on_overload, on_deprecated
        self.bindings: list[Binding] = routes(services, self.options)
        self._router = Router(self.bindings, strict=self.options.strict)
        pools = list({id(b.pool): b.pool for b in self.bindings}.values())
        spell = json_name
        if self.options.use_proto_names:
            # The reference prints proto names whatever json_name says; strict mode keeps to what was set by hand.
            spell = own_name if self.options.strict else proto_name
        writer = Writer(spell=spell, pools=pools)
        self._endpoints = {id(binding): Endpoint(binding, upstream, self.options, writer) for binding in self.bindings}
        self._special = {b"grpc-timeout", b"last-event-id"}.union(*(e.headers.names for e in self._endpoints.values()))
        self._incoming = metadata.Incoming(self.options, self._are_special)
        self._outgoing = metadata.Outgoing(self.options)
        self._reader = RequestReader(self.options)
        self._cors, self._sweep = cors_of(self.options), Sweep()
        status_writer = Writer(spell=spell, keep_unknown_any=self.options.strict, pools=pools)
        google = StatusWriter(
            status_writer,
            with_name=self.options.name_status,
            domain=self.options.error_domain if self.options.strict else "",
        )
        errors: ErrorWriter = DetailWriter() if self.options.detail_errors else google
        self._status_body, self._http_status = errors.write, errors.http_status
        self._default_timeout_s = metadata.timeout(None, self.options)
        self._streams: set[StreamAnswer] = set()
        self._stops = False
        self.in_flight = 0
        """Calls that wait or run, streams included."""

    def stop(self) -> None:
        """End what streams by a last frame of its own, and refuse new calls; what else is in flight goes on.

        To be called when the server stops, before it waits for its connections.
        """
        self._stops = True
        for answer in self._streams:
            answer.stop()

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
            if method == "OPTIONS" and await self._answers_options(exchange):
                return
            route = self._router.plain(method, exchange.path)
            if route is None or (method == "POST" and exchange.headers.get(b"content-type") == FORM):
                route, form = await self._route(exchange)
            endpoint = self._endpoints[id(route.binding)]
            if endpoint.is_marked:
                self._mark(exchange, endpoint, route)
            if self._stops:
                raise stopping(options.retry_after_s)
            if self.in_flight >= options.max_concurrent_calls:
                raise self._overloaded(f"the server is busy: {self.in_flight} calls are in flight; try again later.")
            # The slot is taken before anything is awaited: however many requests arrive together, the limit holds.
            self.in_flight += 1
            try:
                if options.pace is not None and not await options.pace():
                    raise self._overloaded("the server is busy: too many calls wait; try again later.")
                await self._call(exchange, endpoint, route, form)
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

    def _mark(self, exchange: Exchange, endpoint: Endpoint, route: Route) -> None:
        """Give every answer of the exchange, refusals included, the headers of its endpoint; count deprecated paths."""
        exchange.added = endpoint.added
        binding = route.binding
        if binding.deprecation is not None:
            root_path = exchange.scope.get("root_path", "")
            exchange.added = (*endpoint.added, *binding.deprecation.headers(route.variables, root_path))
            if self._on_deprecated is not None:
                self._on_deprecated(binding.http_method, binding.template.text)

    def _are_special(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether headers may change how a request is read: decided once for all requests with the same ones."""
        return not self._special.isdisjoint(headers) or headers.get(b"content-type") not in JSON_TYPES

    # Routing

    async def _answers_options(self, exchange: Exchange) -> bool:
        """Answer a preflight, or in strict mode any OPTIONS for a path that has no such method of its own."""
        router, path = self._router, exchange.path
        if self.options.cors_origins and exchange.header(b"access-control-request-method"):
            methods = router.methods(path)
            if not methods and self.options.strict:
                raise self._not_found(path)
            await exchange.answer_preflight(methods)
            return True
        if not self.options.strict or not path.startswith("/") or "OPTIONS" in router.methods(path):
            return False
        if not (allowed := router.allowed(path)):
            return False
        await exchange.answer(204, [(b"allow", ", ".join(allowed).encode())], b"", "")
        return True

    async def _route(self, exchange: Exchange) -> tuple[Route, dict[str, list[str]] | None]:
        """Return the route, and the form where it has been read for routing."""
        method, path = exchange.method, exchange.path
        if not path.startswith("/"):
            raise GatewayError(INVALID_ARGUMENT, "the path must begin with a slash.", reason="INVALID_URL")
        form: dict[str, list[str]] | None = None
        # Only a POST of exactly this type may stand for another method.
        stands_in = method == "POST" and exchange.headers.get(b"content-type") == FORM
        if stands_in and (override := exchange.header(b"x-http-method-override")):
            form = await self._reader.form(exchange)
            method = override.upper()
        try:
            route = self._router.find(method, path)
            if route is None and stands_in and method == "POST":
                route = self._router.find("GET", path)
                if route is not None and form is None:
                    form = await self._reader.form(exchange)
            if route is None and method == "HEAD" and self.options.strict:
                route = self._router.find("GET", path)
                if route is not None and route.binding.rpc.server_streaming:
                    route = None
        except VerbAlone:
            route = None
            raise self._not_found(path) from None
        if route is not None:
            return route, form
        allowed = self._router.allowed(path) if self.options.strict else self._router.methods(path)
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
        shorter = path.rstrip("/")
        is_there = self.options.strict and shorter != path and self._router.methods(shorter)
        hint = f" Leave out the slash at the end: {quoted(shorter)}." if is_there else ""
        message = f"there is nothing at {quoted(path)}.{hint}"
        return GatewayError(NOT_FOUND, message, reason="PATH_NOT_FOUND", metadata={"path": path})

    # Calls

    async def _call(
        self, exchange: Exchange, endpoint: Endpoint, route: Route, form: dict[str, list[str]] | None
    ) -> None:
        scope = exchange.scope
        peer = scope.get("client")
        entries, special = self._incoming(
            scope["headers"], exchange.headers, peer[0] if peer else "", exchange.request_id
        )
        # A stream has no end of its own, so only its client can give it a deadline.
        seconds = None if endpoint.server_streaming else self._default_timeout_s
        if special and (asked := exchange.headers.get(b"grpc-timeout")) is not None:
            seconds = metadata.timeout(asked.decode("latin1"), self.options)
        guard = CallGuard(self._sweep)
        call = OutgoingCall(entries, seconds, guard)
        upload: Upload | None = None
        requests: Requests
        if endpoint.client_streaming:
            self._reader.check(exchange, endpoint)
            upload = Upload(endpoint, exchange.receive, self.options, guard)
            requests = upload.messages()
        else:
            body = b""
            if form is None and endpoint.takes_body:
                body = await self._reader.body(exchange.receive)
            elif form is None and exchange.method != "GET":
                form = await self._reader.rest(exchange, endpoint)
            if special:
                requests = self._reader.special(exchange, endpoint, route, body, form)
            else:
                requests = self._reader.message(exchange, endpoint, route, body, form)
            guard.watch(exchange.receive)
        try:
            if endpoint.server_streaming:
                await self._stream(exchange, endpoint, requests, call)
            else:
                message = await endpoint.unary(requests, call)
                await exchange.answer(*self._reply(exchange, endpoint, message, call))
        except asyncio.CancelledError:
            if not guard.caused():
                self._check_stopping(exchange)
                raise
            if upload is not None and upload.refusal is not None:
                raise upload.refusal from None
        except UpstreamError as error:
            await self._reject(exchange, error.status, call, endpoint)
        finally:
            guard.stop()

    def _check_stopping(self, exchange: Exchange) -> None:
        """Have a call answered whose time to end by itself is over, as the server stops."""
        if self._stops and not exchange.started:
            raise stopping(self.options.retry_after_s) from None

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
            headers += replier.headers(message)
            if replier.empty_body:
                return status, headers, b"", ""
        try:
            body, content_type = endpoint.encode(message)
        except GatewayError as error:
            error.headers += [(name.decode("latin1"), value.decode("latin1")) for name, value in headers]
            raise
        return status, headers, body, content_type

    async def _stream(self, exchange: Exchange, endpoint: Endpoint, requests: Requests, call: OutgoingCall) -> None:
        answer = StreamAnswer(
            exchange,
            endpoint,
            self.options,
            outgoing=self._outgoing,
            status_body=lambda status: self._status_body(status, exchange.request_id)[0],
        )
        responses = endpoint.stream(requests, call)
        self._streams.add(answer)
        try:
            await answer.send(responses, call)
        except asyncio.CancelledError:
            # By its client, by its deadline, or by a server that stops without having said so to us.
            guard = call.guard
            if guard is None or guard.is_due or not await answer.cut_off():
                raise
        finally:
            self._streams.discard(answer)
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
        code = self._http_status(error.http_status)
        if error.text and not options.strict:
            await exchange.answer(code, headers, error.text.encode(), "text/plain; charset=utf-8")
            return
        await exchange.answer(code, headers, self._status_body(status, exchange.request_id)[0], "application/json")

    async def _reject(
        self, exchange: Exchange, status: status_pb2.Status, call: OutgoingCall, endpoint: Endpoint
    ) -> None:
        """Answer with the status that a call failed with."""
        strict = self.options.strict
        headers = self._outgoing(call.initial)
        body, written = self._status_body(status, exchange.request_id)
        code = self._http_status(HTTP_STATUS.get(status.code, 500)) if written else 500
        if written and status.code == ABORTED and endpoint.headers.has_precondition and IF_MATCH in exchange.headers:
            code = 412
        if endpoint.server_streaming and not strict:
            await exchange.answer(code, headers, b'{"error":' + body + b"}", "application/json")
            return
        if status.code == UNAUTHENTICATED:
            message = "Bearer" if strict else status.message.replace("\r", " ").replace("\n", " ")
            headers.append((b"www-authenticate", message.encode("latin1", "replace")))
        if strict and status.code in (RESOURCE_EXHAUSTED, UNAVAILABLE):
            headers += _retry_after(status)
        await exchange.answer(code, headers, body, "application/json")


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
