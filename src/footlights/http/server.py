"""Bounds on the connections of an HTTP listener, below any application: uvicorn's protocols, with limits.

Anyone who reaches the port may connect, send, and stop sending before there is a request that an application could
refuse. So the head of a request is bounded in bytes and in time, a client that stops reading is cut off, and
connections are counted, per address and in all. ``sweep`` finds what is overdue; a request itself pays for no timer of
ours.

A connection is read one request at a time: what a client sends ahead is kept as bytes, and little of it, until the
answer before it is out. So pipelining takes no more memory than waiting, and each error is of one known request.

With TLS a connection counts from its first packet, and its handshake has the time of a head.

An offer of ``Upgrade`` that is not for a WebSocket, such as ``h2c``, is ignored, and the request is read as if it had
not been made (RFC 9110, section 7.8).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from footlights.http.bodies import Resumed
from footlights.http.client_addresses import client_of
from footlights.http.passing_on import HTTP2_PREFACE, PassedOn

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    import uvicorn

_SLICE: Final = 16 << 10
"""How much of a head is parsed at once, in bytes: by so much it may pass its limit."""
_AHEAD_BYTES: Final = 64 << 10
"""Above how much of later requests a connection is read no further, in bytes: one read may pass it."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_LINGER_S: Final = 2.0
"""How long what a refused client still sends is read and dropped, so that it can read its answer, in seconds."""
_LINGER_BYTES: Final = 4 << 20
_CODE_NAMES: Final = {3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 14: "UNAVAILABLE"}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client, and all together, may take of a listener."""

    head_bytes: int = 64 << 10
    """The longest head: request line and headers."""
    head_s: float = 10.0
    """How long a head may take, from the first byte or from the connection on, and a TLS handshake, in seconds."""
    write_s: float = 30.0
    """How long a client may read nothing while something waits for it, in seconds."""
    connections: int = 10_000
    """The most connections at once."""
    connections_per_ip: int = 1_000
    """The most connections at once of one address, of IPv6 of one network of 64 bits; 0: as many as in all."""


class Connections:
    """The connections of one listener, kept within limits."""

    PERIOD_S: Final = 1.0
    """How often ``sweep`` is to be called, in seconds."""

    def __init__(
        self, limits: ConnectionLimits, *, error_domain: str = "", on_refused: Callable[[], object] = lambda: None
    ) -> None:
        """Keep connections within ``limits``.

        Args:
            limits: the bounds.
            error_domain: the ``ErrorInfo.domain`` of refusals.
            on_refused: is called for each connection over a limit of numbers.
        """
        self.limits, self._domain, self._on_refused = limits, error_domain, on_refused
        self.http2_at: tuple[str, int] | None = None
        """Where connections are passed on to that begin with HTTP/2, as gRPC's do; None: they are refused."""
        self._of_address: Counter[str] = Counter()
        self._open: set[_Connection] = set()

    @property
    def count(self) -> int:
        """How many are open, WebSockets and TLS handshakes included."""
        return len(self._open)

    def configure(self, config: uvicorn.Config, *, websockets: bool = True) -> None:
        """Have uvicorn speak with these bounds. Whatever else is to be configured must have been: this loads it."""
        config.http = partial(_Http, self)  # type: ignore[assignment]  # called like the class
        config.ws = partial(_WebSocket, self) if websockets else "none"  # type: ignore[assignment]
        config.load()
        if config.ssl:
            # asyncio would make the connection known to a protocol only after its handshake, and give that 60 s.
            config.http_protocol_class = partial(_Handshake, self, config.ssl)  # type: ignore[assignment]
            config.ssl = None

    async def sweep(self) -> None:
        """Cut off what is overdue. To be called every ``PERIOD_S``."""
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            connection.cut_off_if_overdue(now)

    def enter(self, connection: _Connection, address: str) -> str:
        """Count a connection; return why it cannot be served, empty where it can."""
        self._open.add(connection)
        self._of_address[address] += 1
        each, most = self.limits.connections_per_ip, self.limits.connections
        if len(self._open) > most:
            problem = f"The server has {most} connections, as many as it takes."
        elif each and address and self._of_address[address] > each:
            problem = f"There are {each} connections from {address}, as many as one address may have."
        else:
            return ""
        self._on_refused()
        return problem

    def leave(self, connection: _Connection, address: str) -> None:
        """Count a connection no more."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._of_address[address] -= 1
        if self._of_address[address] <= 0:
            del self._of_address[address]

    def refusal(self, status: int, code: int, reason: str, message: str) -> bytes:
        """Return an answer that ends its connection, with a ``google.rpc.Status``."""
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": self._domain,
            "metadata": {},
        }
        status_ = {"code": code, "status": _CODE_NAMES[code], "message": message, "details": [info]}
        body = json.dumps(status_).encode()
        headers = ["Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]
        headers += ["Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
        if status == 503:
            headers.append("Retry-After: 1")
        head = "\r\n".join((f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *headers, "", ""))
        return head.encode() + body


class _Handshake(asyncio.Protocol):
    """A connection until TLS is established on it; then ``_Http`` takes it over."""

    def __init__(self, connections_: Connections, context: ssl.SSLContext, **kwargs: Any) -> None:
        self._bounds, self._context = connections_, context
        self._http = partial(_Http, connections_, **kwargs)
        self._address = ""
        self._early = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        client = get_remote_addr(transport)
        self._address = client_of(client[0]) if client else ""
        if self._bounds.enter(self, self._address):
            # An answer would need the handshake, which is what costs.
            self._bounds.leave(self, self._address)
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        starting: Any = loop.start_tls(
            transport, self, self._context, server_side=True, ssl_handshake_timeout=self._bounds.limits.head_s
        )
        # Its first step is done here: later, something could have been read already.
        self._task = loop.create_task(self._establish(transport, Resumed(starting, starting.send(None))))

    async def _establish(self, transport: asyncio.Transport, starting: Resumed[asyncio.Transport | None]) -> None:
        try:
            secure = await starting
        except OSError:  # ssl.SSLError is one, and so are a client that left and the end of its time
            secure = None
        finally:
            self._bounds.leave(self, self._address)
        if secure is None or secure.is_closing():
            transport.abort()
            return
        http = self._http()
        secure.set_protocol(http)
        http.connection_made(secure)
        if self._early:
            http.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        # The first data may come with the end of the handshake, before its task goes on.
        self._early += data

    def cut_off_if_overdue(self, now: float) -> None:
        """Nothing: asyncio times the handshake."""


class _Flow(FlowControl):
    """Reads nothing while enough is kept for later."""

    holding = False

    def resume_reading(self) -> None:
        if not self.holding:
            super().resume_reading()


class _Counted(asyncio.Protocol):
    """What a connection has in either protocol: its place in the count, and a bound on a client that stops reading."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    client: tuple[str, int] | None
    _bounds: Connections
    _stalled_since: float | None = None

    @property
    def _address(self) -> str:
        return client_of(self.client[0]) if self.client else ""

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.leave(self, self._address)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def _stalls(self, now: float) -> bool:
        return self._stalled_since is not None and now - self._stalled_since > self._bounds.limits.write_s

    def cut_off_if_overdue(self, now: float) -> None:
        """End the connection if its client has stopped reading."""
        if self._stalls(now):
            self.transport.abort()


class _Http(_Counted, HttpToolsProtocol):
    flow: _Flow

    def __init__(self, connections_: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = connections_
        self._in_head, self._in_body = False, False
        self._head_bytes = 0
        self._body_left = 0
        self._tail = b""
        self._ahead = bytearray()
        self._head_since: float | None = None
        self._ignoring_upgrade = False
        self._refused_at: float | None = None
        self._dropped = 0
        self._is_new = True

    # What happens to the connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._head_since = self.loop.time()
        if problem := self._bounds.enter(self, self._address):
            self._refuse(503, 14, "TOO_MANY_CONNECTIONS", f"{problem} Close some, or try again later.")

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self._bounds.leave(self, self._address)

    def cut_off_if_overdue(self, now: float) -> None:
        """End the connection if its client has been too slow."""
        limits = self._bounds.limits
        if self._stalls(now) or (self._refused_at is not None and now - self._refused_at > _LINGER_S):
            self.transport.abort()
        elif self._refused_at is None and self._head_since is not None and now - self._head_since > limits.head_s:
            if not self._in_head:
                self.transport.close()
            else:
                self._refuse(408, 4, "HEAD_TOO_SLOW", f"The head of a request must arrive within {limits.head_s:g} s.")

    def _refuse(self, status: int, code: int, reason: str, message: str) -> None:
        if self.transport.is_closing() or self._refused_at is not None:
            return
        if self._waits():
            if self.cycle.response_started:
                # This answer would end up within that one.
                self.transport.abort()
                return
            # The body is at fault: who waits for it learns that it will not come.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refused_at = self.loop.time()
        self.transport.write(self._bounds.refusal(status, code, reason, message))
        # A socket that is closed with data unread is reset, and the client may never see the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # What is read.

    def data_received(self, data: bytes) -> None:
        if self._is_new:
            self._is_new = False
            if self._bounds.http2_at is not None and data.startswith(HTTP2_PREFACE):
                self._pass_on(self._bounds.http2_at, data)
                return
        if self._refused_at is not None:
            self._dropped += len(data)
            if self._dropped > _LINGER_BYTES:
                self.transport.abort()
            return
        if self._ahead or (self._waits() and not self._in_body):
            self._keep(data)
        else:
            self._read(data)

    def _pass_on(self, to: tuple[str, int], data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        address, bounds = self._address, self._bounds
        passed = PassedOn(to, lambda connection: bounds.leave(connection, address))
        bounds.leave(self, address)
        bounds.enter(passed, address)
        passed.take_over(self.transport, data)

    def _waits(self) -> bool:
        """Whether a request has not been answered whole."""
        return self.cycle is not None and not self.cycle.response_complete

    def _keep(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _AHEAD_BYTES:
            self.flow.holding = True
            self.flow.pause_reading()

    def _read(self, data: bytes) -> None:
        """Parse, up to the end of the first request that has to be answered before the next one is looked at."""
        at, size = 0, len(data)
        while at < size and self._refused_at is None and not self.transport.is_closing():
            if self._in_body and self._body_left:
                end = min(at + self._body_left, size)
                self._body_left -= end - at
            elif not self._in_body and not self._in_head and self._waits():
                self._keep(data[at:])
                return
            else:
                end = self._end_of_head(data, at)
            piece = data if end - at == size else data[at:end]
            at = end
            in_body = self._in_body
            protocol = self._feed(piece)
            if self._in_head and not in_body:
                self._head_bytes += len(piece)
                if self._head_bytes > self._bounds.limits.head_bytes:
                    most = self._bounds.limits.head_bytes
                    self._refuse(431, 3, "HEAD_TOO_LARGE", f"The head of a request must have at most {most} bytes.")
            if not protocol:
                return

    def _end_of_head(self, data: bytes, at: int) -> int:
        """Return up to where to parse: no head, and no body in chunks, ends before that."""
        if self._tail:
            # The end may lie across two reads.
            seam = (self._tail + data[at : at + 3]).find(_END_OF_HEAD)
            if seam >= 0:
                end = at + seam + 4 - len(self._tail)
                self._tail = b""
                return end
        found = data.find(_END_OF_HEAD, at, at + _SLICE)
        if found >= 0:
            self._tail = b""
            return found + 4
        end = min(at + _SLICE, len(data))
        self._tail = (self._tail + data[max(at, end - 3) : end])[-3:]
        return end

    def _feed(self, data: bytes) -> bool:
        """Parse; return whether what follows is this protocol's."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._ignoring_upgrade:
                self.handle_websocket_upgrade()
                return False
            return self._read_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, 3, "NOT_HTTP", "This is not HTTP/1.1.")
            return False
        return True

    def _read_without_upgrade(self, rest: bytes) -> bool:
        """Read a request again, with a new parser, as if it had not offered an upgrade."""
        self._ignoring_upgrade = False
        if self.scope["method"] == "CONNECT":
            self._refuse(400, 3, "NOT_HTTP", "This is no proxy: CONNECT is not served.")
            return False
        version = self.scope["http_version"].encode()
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in _without_upgrade(self.headers):
            head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return self._feed(b"".join([*head, b"\r\n"])) and (not rest or self._feed(rest))

    def on_message_begin(self) -> None:
        # Only a request ends the time of a kept connection: not the rest of a body, nor an empty line.
        self._unset_keepalive_if_required()
        self._in_head, self._head_bytes, self._head_since = True, 0, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._head_since = False, True, None
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._ignoring_upgrade = True
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.scope["http_version"] = self.parser.get_http_version()
            return
        self._body_left = 0
        for name, value in self.headers:
            if name == b"content-length":
                self._body_left = int(value)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self._ignoring_upgrade:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self.flow.holding = False
        super().on_response_complete()
        if self._ahead:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            self._read(ahead)


class _WebSocket(_Counted, WebSocketsSansIOProtocol):
    def __init__(self, connections_: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = connections_

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # It was counted and admitted when it was HTTP.
        self._bounds.enter(self, self._address)


_Connection: TypeAlias = _Handshake | _Counted | PassedOn


def _without_upgrade(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    for name, value in headers:
        if name in (b"upgrade", b"http2-settings"):
            continue
        if name == b"connection":
            kept = [part for part in value.split(b",") if part.strip().lower() not in (b"upgrade", b"http2-settings")]
            value = b",".join(kept)  # noqa: PLW2901
            if not value.strip():
                continue
        yield name, value
