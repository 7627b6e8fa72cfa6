"""What a server listens on, and how each listener is closed without breaking a connection.

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

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from footlights.control import reflection
from footlights.control.settings import ServerSettings, split_address
from footlights.errors import DOMAIN, FailedPrecondition, LocalReason
from footlights.http.server import ConnectionLimits, Connections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from footlights.control.observability.metrics import Metrics
    from footlights.supervision import Supervisor

    ASGIApp = Callable[..., Awaitable[None]]

_GRPC_OPTIONS = (
    # The library's default refuses a third of the agents that come back all at once after a restart.
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    # They would rather wait than be refused after 30 s, dial again, and stand at the end of the line.
    ("grpc.server_max_unrequested_time_in_server", 120),
    ("grpc.so_reuseport", 0),
    # As much as an agent sends: an agent whose hello is refused could never link again.
    ("grpc.max_receive_message_length", 16 << 20),
    # The server finds out within 30 s that a client is gone; a client may ask every 5 s, also without a call.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_SO_ATTACH_FILTER = 26
_DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes accepted


class HttpListener:
    """The HTTP listener: uvicorn on a socket that is bound before anything is served."""

    LINGER_S = 1.0
    """How long clients have to close kept connections after an answer told them to."""
    GRACE_S = 2
    """How long answers may take after that, in seconds."""

    def __init__(self, settings: ServerSettings) -> None:
        """Bind the socket, so that its port is known.

        Raises FailedPrecondition where the address cannot be listened on.
        """
        self._settings = settings
        self._socket = _bind(settings.http_listen)
        self._closing = False
        self._server: uvicorn.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def serve(self, app: ASGIApp, supervisor: Supervisor, metrics: Metrics) -> None:
        """Serve until ``stop`` was called; connections over a limit are counted in ``metrics``."""
        limits = ConnectionLimits(
            connections=self._settings.max_connections, connections_per_ip=self._settings.max_connections_per_ip
        )
        connections = Connections(limits, error_domain=DOMAIN, on_refused=partial(metrics.shed, "CONNECTIONS"))
        config = self._config(self._closing_connections(app))
        connections.configure(config)
        self._server = server = _Uvicorn(config)
        sweeping = asyncio.create_task(
            supervisor.supervise("connections", connections.sweep, every_s=connections.PERIOD_S), name="sweep"
        )
        try:
            await server.serve(sockets=[self._socket])
        finally:
            sweeping.cancel()

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
        if self._settings.tls_cert and self._settings.tls_key:
            config.ssl_certfile, config.ssl_keyfile = str(self._settings.tls_cert), str(self._settings.tls_key)
            config.ssl_version = ssl.PROTOCOL_TLS_SERVER
        return config


class GrpcListener:
    """The gRPC listener, with health and reflection."""

    GRACE_S = 5.0
    """How long calls may take once it stops, in seconds."""
    HEALTH_PERIOD_S = 2.0
    """How soon health says what readiness says, in seconds."""

    def __init__(self, settings: ServerSettings, services: Sequence[str]) -> None:
        """Make the server; handlers are added to ``server`` before it is started.

        Raises FailedPrecondition where the address cannot be listened on.
        """
        self._services = tuple(services)
        # A connection that is that old gets a GOAWAY: its client opens another one, perhaps to another replica, for its
        # next call. What is under way goes on, a link or a watch as long as it lives: no grace period ends it.
        age_ms = round(settings.max_connection_age_s * 1000)
        self.server = grpc.aio.server(options=(*_GRPC_OPTIONS, ("grpc.max_connection_age_ms", age_ms)))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.add(self.server, (*self._services, health.SERVICE_NAME))
        self.host, _ = split_address("grpc_listen", settings.grpc_listen)
        try:
            if settings.tls_cert and settings.tls_key:
                chain, key = settings.tls_cert.read_bytes(), settings.tls_key.read_bytes()
                credentials = grpc.ssl_server_credentials([(key, chain)])
                self.port = self.server.add_secure_port(settings.grpc_listen, credentials)
            else:
                self.port = self.server.add_insecure_port(settings.grpc_listen)
        except RuntimeError as error:
            raise _cannot_listen("grpc-listen", settings.grpc_listen, str(error)) from error

    async def start(self) -> None:
        """Accept connections and say that every service is up."""
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        await self.server.start()

    async def follow(self, problem: Callable[[], Awaitable[str]], supervisor: Supervisor) -> None:
        """Say of every service what ``problem`` says of the process, until cancelled."""

        async def once() -> None:
            states = health_pb2.HealthCheckResponse
            await self._say(states.NOT_SERVING if await problem() else states.SERVING)

        await supervisor.supervise("health", once, every_s=self.HEALTH_PERIOD_S)

    async def turn_unhealthy(self) -> None:
        """Say NOT_SERVING of every service, for good."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Accept nothing new, and end calls after the grace period."""
        await self.server.stop(self.GRACE_S)

    async def _say(self, status: int) -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its own signal handlers: this process has one way to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(address: str) -> socket.socket:
    host, port = split_address("http_listen", address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise _cannot_listen("http-listen", address, error.strerror or str(error)) from error
    listening.setblocking(False)
    return listening


def _drop_new_connections(listening: socket.socket) -> None:
    """Drop every packet for a listening socket (socket(7), SO_ATTACH_FILTER): what it has accepted goes on."""
    import ctypes

    program = ctypes.create_string_buffer(_DROP_EVERYTHING)
    filter_program = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)


def _cannot_listen(option: str, address: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"Cannot listen on {address}: {why}. Stop what listens there, or choose another --{option}.",
        reason=LocalReason.CANNOT_LISTEN,
        metadata={"address": address},
    )
