"""An HTTP listener, and how it is closed without breaking a connection.

HTTP clients keep connections open and send the next request as soon as they have an answer. A connection that the
server closes at that moment is a reset for the client. So a listener that stops says ``Connection: close`` with every
answer first, waits until clients have followed, and only then closes what is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from footlights.control.settings import ServerSettings, split_address
from footlights.errors import DOMAIN, FailedPrecondition, LocalReason
from footlights.http.server import ConnectionLimits, Connections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from footlights.control.observability.metrics import Metrics
    from footlights.supervision import Supervisor

    ASGIApp = Callable[..., Awaitable[None]]

_SO_ATTACH_FILTER = 26
_DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes accepted


class HttpListener:
    """An HTTP listener: uvicorn on a socket that is bound before anything is served."""

    LINGER_S = 1.0
    """How long clients have to close kept connections after an answer told them to."""
    GRACE_S = 2
    """How long answers may take after that, in seconds."""

    def __init__(self, settings: ServerSettings, setting: str = "http_listen") -> None:
        """Bind the socket, so that its port is known; ``setting`` is the one that has its address.

        Raises FailedPrecondition where the address cannot be listened on.
        """
        self._settings, self._name = settings, setting.removesuffix("_listen")
        self._files = (settings.tls_cert, settings.tls_key)
        self._context: ssl.SSLContext | None = None
        self._socket = _bind(setting, getattr(settings, setting))
        self._closing = False
        self._server: uvicorn.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def serve(
        self, app: ASGIApp, supervisor: Supervisor, metrics: Metrics, grpc_at: tuple[str, int] | None = None
    ) -> None:
        """Serve until ``stop`` was called; connections over a limit are counted in ``metrics``.

        ``grpc_at`` is where connections of gRPC are passed on to; None: they are refused.
        """
        limits = ConnectionLimits(
            connections=self._settings.max_connections, connections_per_ip=self._settings.max_connections_per_ip
        )
        connections = Connections(limits, error_domain=DOMAIN, on_refused=partial(metrics.shed, "CONNECTIONS"))
        connections.http2_at = grpc_at
        config = self._config(self._closing_connections(app))
        if grpc_at is not None and self._context is not None:
            # Who can have either gets the first: only gRPC asks for the second alone.
            self._context.set_alpn_protocols(["http/1.1", "h2"])
        connections.configure(config)
        self._server = server = _Uvicorn(config)
        sweeping = asyncio.create_task(
            supervisor.supervise(f"{self._name}_connections", connections.sweep, every_s=connections.PERIOD_S),
            name="sweep",
        )
        try:
            await server.serve(sockets=[self._socket])
        finally:
            sweeping.cancel()

    def use_certificate(self, certificate: Path, key: Path) -> None:
        """Serve TLS with what these files hold; before ``serve``, and again whenever they hold another one."""
        self._files = (certificate, key)
        if self._context is not None:
            self._context.load_cert_chain(certificate, key)

    def refuse_to_keep_connections(self) -> None:
        """Say ``Connection: close`` with every answer that begins from now on."""
        self._closing = True

    async def stop(self) -> None:
        """Stop accepting, give clients time to leave, and let ``serve`` return."""
        if self._server is None:
            return
        connections = self._server.server_state.connections
        # Connections that wait to be accepted would be reset: new ones are held off, and these are served first.
        with contextlib.suppress(OSError):
            _drop_new_connections(self._socket)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.LINGER_S):
                await asyncio.sleep(0.05)
                while connections:  # noqa: ASYNC110 - uvicorn does not report a closed connection
                    await asyncio.sleep(0.02)
        self._server.should_exit = True

    def close(self) -> None:
        """Close the socket, whether it was served or not."""
        self._socket.close()

    def _closing_connections(self, app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
            async def send_closing(message: dict[str, Any]) -> None:
                if self._closing and message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
                await send(message)

            await app(scope, receive, send_closing if scope["type"] == "http" else send)

        return wrapped

    def _config(self, app: ASGIApp) -> uvicorn.Config:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            # A proxy in front says who called by the gateway's own rules, once.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=self.GRACE_S,
            timeout_keep_alive=30,
        )
        certificate, key = self._files
        if certificate and key:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate, key)
            config.ssl_context_factory = self._context_factory
        return config

    def _context_factory(self, _config: uvicorn.Config, _default: object) -> ssl.SSLContext:
        assert self._context is not None
        return self._context


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its own signal handlers: this process has one way to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def cannot_listen(setting: str, address: str, why: str) -> FailedPrecondition:
    """Return the error of a listener whose ``setting`` has an address that cannot be listened on."""
    option = setting.replace("_", "-")
    return FailedPrecondition(
        f"Cannot listen on {address}: {why}. Stop what listens there, or choose another --{option}.",
        reason=LocalReason.CANNOT_LISTEN,
        metadata={"address": address},
    )


def _bind(setting: str, address: str) -> socket.socket:
    host, port = split_address(setting, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise cannot_listen(setting, address, error.strerror or str(error)) from error
    listening.setblocking(False)
    return listening


def _drop_new_connections(listening: socket.socket) -> None:
    """Drop every packet for a listening socket (socket(7), SO_ATTACH_FILTER): what it has accepted goes on."""
    import ctypes

    program = ctypes.create_string_buffer(_DROP_EVERYTHING)
    filter_program = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
