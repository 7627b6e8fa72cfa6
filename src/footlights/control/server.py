"""The server process: opens the store, listens, and stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import socket
import ssl
import sys
from typing import TYPE_CHECKING

import grpc
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from footlights import ids
from footlights.auth.secrets import ClusterKey
from footlights.control.assembly import Plane, assemble
from footlights.control.services.sessions.present import Origin
from footlights.control.settings import ServerSettings, split_address
from footlights.errors import Error, FailedPrecondition
from footlights.logging import set_up_logging
from footlights.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = structlog.get_logger(__name__)

_GRACE_S = 5.0

_OPTIONS = (
    # The library's default refuses a third of the agents that come back all at once after a restart.
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    # They would rather wait than be refused after 30 s, dial again, and stand at the end of the line.
    ("grpc.server_max_unrequested_time_in_server", 120),
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


def run(settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        errors.Error: it cannot start; the message says why and what to do.
    """
    import uvloop

    set_up_logging(settings.log_format, settings.log_level)
    # Each agent, viewer and watcher is an open file, and the usual soft limit is 1024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Whoever waits for the interpreter while another thread works gets it after so long: a fifth of the default.
    sys.setswitchinterval(0.001)
    # A full collection stands still for as long as it takes to look at a whole fleet; there is little to find.
    gc.set_threshold(50_000, 50, 1000)
    uvloop.run(_main(settings))


async def _main(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


async def serve(settings: ServerSettings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; for programs that have a loop of their own.

    Once it listens, ``endpoints.json`` in the data directory says where: ``{"grpc": "HOST:PORT", "http": URL}``.
    """
    store = await asyncio.to_thread(open_store, settings.data_dir, settings.database)
    try:
        await _serve(settings, store, stop)
    finally:
        await store.close()


async def _serve(settings: ServerSettings, store: Store, stop: asyncio.Event) -> None:
    key = ClusterKey.load_or_create(settings.data_dir / "cluster.key", os.environ)
    with contextlib.closing(_listen(settings.http_listen)) as http_socket:
        scheme = "https" if settings.tls_cert else "http"
        host, port = http_socket.getsockname()[:2]
        public_url = (settings.public_url or f"{scheme}://{_bracketed(host)}:{port}").rstrip("/")
        replica = await asyncio.to_thread(_replica, settings.data_dir / "replica")
        plane = await assemble(settings, store, key, _origin(public_url, settings), public_url, replica=replica)
        grpc_server, grpc_port = await _grpc(settings, plane)
        grpc_host, _ = split_address("grpc_listen", settings.grpc_listen)
        if not (peer_address := settings.reached_at(grpc_port)) and store.shared:
            log.warning(
                "peer_address_missing",
            )
        # Others may ask from now on, and agents may link: not before this replica is known, and its old links are void.
        await plane.replicas.join(peer_address)
        await grpc_server.start()
        http_server = _http(settings, plane)
        http_task = asyncio.create_task(http_server.serve(sockets=[http_socket]), name="http")
        loops = asyncio.create_task(plane.loops(), name="loops")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        endpoints = {"grpc": f"{_bracketed(grpc_host)}:{grpc_port}", "http": f"{scheme}://{_bracketed(host)}:{port}"}
        await asyncio.to_thread(_write_endpoints, settings.data_dir / "endpoints.json", endpoints)
        log.info("serving", **endpoints)
        try:
            done, _ = await asyncio.wait((http_task, loops, stopped), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            log.info("stopping")
            stopped.cancel()
            http_server.should_exit = True
            loops.cancel()
            # Streams would hold a server open for ever: agents and watchers come back by themselves.
            plane.stop()
            await grpc_server.stop(_GRACE_S if not stop.is_set() else 0.5)
            await asyncio.gather(http_task, loops, stopped, return_exceptions=True)
            with contextlib.suppress(Error):
                await plane.leave()


async def _grpc(settings: ServerSettings, plane: Plane) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(plane.grpc_handlers)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for service in ("", *plane.registry.services):
        await status.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (*plane.registry.services, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    try:
        if settings.tls_cert and settings.tls_key:
            chain, key = settings.tls_cert.read_bytes(), settings.tls_key.read_bytes()
            credentials = grpc.ssl_server_credentials([(key, chain)])
            port = server.add_secure_port(settings.grpc_listen, credentials)
        else:
            port = server.add_insecure_port(settings.grpc_listen)
    except RuntimeError as error:
        raise _cannot_listen("grpc-listen", settings.grpc_listen, str(error)) from error
    return server, port


class _HttpServer(uvicorn.Server):
    """Uvicorn without its own signal handlers: this process has one way to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http(settings: ServerSettings, plane: Plane) -> uvicorn.Server:
    config = uvicorn.Config(
        plane.app,
        lifespan="off",
        log_config=None,
        access_log=False,
        # Whoever stands in front says who called by the gateway's own rules, once.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        ws="websockets-sansio",
    )
    if settings.tls_cert and settings.tls_key:
        config.ssl_certfile, config.ssl_keyfile = str(settings.tls_cert), str(settings.tls_key)
        config.ssl_version = ssl.PROTOCOL_TLS_SERVER
    return _HttpServer(config)


def _listen(address: str) -> socket.socket:
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


def _cannot_listen(option: str, address: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"Cannot listen on {address}: {why}. Stop what listens there, or give another --{option}.",
        reason="CANNOT_LISTEN",
        metadata={"address": address},
    )


def _origin(public_url: str, settings: ServerSettings) -> Origin:
    scheme, _, rest = public_url.partition("://")
    authority = rest.partition("/")[0]
    host, colon, port = authority.rpartition(":")
    if colon and port.isdigit():
        return Origin(host.strip("[]"), int(port), settings.direct_routes)
    return Origin(authority.strip("[]"), 443 if scheme == "https" else 80, settings.direct_routes)


def _replica(path: Path) -> str:
    """Return which replica has this data directory: the same after a restart, so that what it held is its own again."""
    if path.exists() and ids.is_uuid(known := path.read_text(encoding="ascii", errors="replace").strip()):
        return known
    replica = ids.new_id()
    path.write_text(f"{replica}\n", encoding="ascii")
    return replica


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _write_endpoints(path: Path, endpoints: dict[str, str]) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(endpoints))
    draft.replace(path)
