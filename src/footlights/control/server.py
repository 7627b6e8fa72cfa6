"""The server process: opens the store, listens, and stops in order.

Stopping, after SIGTERM or SIGINT:

1. Readiness and grpc.health turn. The server goes on for ``stop_delay_s``, so that load balancers see it.
2. New calls are refused with UNAVAILABLE and a retry hint, and HTTP connections are closed after their next answer.
   Streams, watches and agents' links end with UNAVAILABLE and a retry hint. Calls that are under way are finished.
3. The listeners close.
4. The loops end, other replicas may take over, and the store closes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

import structlog

from footlights import ids
from footlights.auth.secrets import ClusterKey
from footlights.control.assembly import Plane, assemble
from footlights.control.clock import utc_now
from footlights.control.credentials import issuing
from footlights.control.credentials.kubernetes import Kubernetes
from footlights.control.grpc_listener import GrpcListener
from footlights.control.listeners import HttpListener
from footlights.control.routes import Origin
from footlights.control.settings import split_address
from footlights.errors import Error
from footlights.linux.files import replace_file
from footlights.logging import set_up_logging
from footlights.store import Store, open_store
from footlights.store.cluster.replica_rows import PeerAddress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from footlights.control.credentials.issuing import ServerCertificate, Shown
    from footlights.control.settings import ServerSettings

log = structlog.get_logger(__name__)

CALLS_TIMEOUT_S = 10.0
"""How long calls that are under way may take once the server stops."""


def run(settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM. Raises Error where it cannot start; the message says why and what to do."""
    import uvloop

    set_up_logging(settings.log_format, settings.log_level)
    # Each agent, viewer and watch is an open file, and the usual soft limit is 1024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # How long a thread waits for the interpreter while another one works: a fifth of the default.
    sys.setswitchinterval(0.001)
    # A full collection takes as long as it takes to look at a whole fleet; there is little to find.
    gc.set_threshold(50_000, 50, 1000)
    uvloop.run(_main(settings))


async def _main(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


async def serve(settings: ServerSettings, stop: asyncio.Event, kubernetes: Kubernetes | None = None) -> None:
    """Serve until ``stop`` is set; for programs that have a loop of their own.

    ``kubernetes`` is the cluster that settings speak of; None: that of the pod that this process runs in.

    Once it listens, ``endpoints.json`` in the data directory says where: ``{"grpc": "HOST:PORT", "http": URL}``,
    and ``agents``, ``peers`` (``HOST:PORT``) and ``admin`` (URL) where these have listeners of their own.
    """
    store = await asyncio.to_thread(open_store, settings.data_dir, settings.database)
    try:
        if kubernetes is None and (settings.kubernetes_agents or settings.kubernetes_ca):
            kubernetes = Kubernetes.around(os.environ)
        await _serve(settings, store, stop, kubernetes)
    finally:
        await store.close()


async def _serve(settings: ServerSettings, store: Store, stop: asyncio.Event, kubernetes: Kubernetes | None) -> None:
    key = ClusterKey.load_or_create(settings.data_dir / "cluster.key", os.environ)
    certificate = await issuing.server_certificate(store, key, settings, utc_now)
    with contextlib.closing(_Listeners(settings, certificate)) as listeners:
        public_url = (settings.public_url or listeners.urls["http"]).rstrip("/")
        replica = await asyncio.to_thread(_replica_id, settings.data_dir / "replica")
        plane = await assemble(
            settings,
            store,
            key,
            Origin.of(public_url, settings),
            public_url,
            replica=replica,
            certificate=certificate,
            kubernetes=kubernetes,
        )
        listeners.add_grpc(plane)
        address = listeners.peer_address
        if not (address.mutual or address.plain) and store.shared:
            log.warning(
                "peer_address_missing", consequence="other replicas cannot reach this one", option="peer-address"
            )
        # Peers may ask and agents may link as soon as it listens: this replica must be known by then.
        await plane.replicas.join(address)
        tasks = {
            **await listeners.serve(plane),
            "loops": asyncio.create_task(plane.loops(), name="loops"),
            "stop": asyncio.create_task(stop.wait(), name="stop"),
        }
        await asyncio.to_thread(
            replace_file,
            settings.data_dir / "endpoints.json",
            json.dumps(listeners.endpoints).encode(),
            mode=0o644,
            durable=False,
        )
        log.info("serving", **listeners.endpoints)
        try:
            done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _stop(settings, plane, listeners, tasks)


class _Listeners:
    """All listeners of a process, by name: ``http`` and ``grpc``, and ``admin``, ``agents``, ``peers`` where given."""

    def __init__(self, settings: ServerSettings, certificate: ServerCertificate) -> None:
        """Bind those of HTTP. Raises FailedPrecondition where an address cannot be listened on."""
        self._certificate, self._is_own = certificate, settings.needs_certificate
        self._settings = settings
        self._used: Shown | None = None
        """What HTTP serves with, where that is the process's own."""
        self._http: dict[str, HttpListener] = {}
        self._grpc: dict[str, GrpcListener] = {}
        self._inner: GrpcListener | None = None
        """Health and reflection over gRPC at the admin listener, where there is one."""
        for name in ("http", "admin") if settings.admin_listen else ("http",):
            try:
                self._http[name] = HttpListener(settings, f"{name}_listen")
            except Error:
                self.close()
                raise
        if self._is_own:
            self._use_certificate()
        scheme = "https" if settings.tls_cert or self._is_own else "http"
        self.urls = {name: f"{scheme}://{_joined(*listener.address)}" for name, listener in self._http.items()}

    @property
    def endpoints(self) -> dict[str, str]:
        """Where each one listens."""
        return {name: _joined(each.host, each.port) for name, each in self._grpc.items()} | self.urls

    @property
    def peer_address(self) -> PeerAddress:
        """Where other replicas reach this one, once those of gRPC are bound."""
        settings, plain = self._settings, self._grpc["grpc"].port
        if not settings.is_mutual("peers_listen"):
            return PeerAddress(settings.reached_at(plain))
        mutual = settings.reached_at(self._grpc["peers"].port)
        # Replicas of the release before know one address, and no certificates.
        return PeerAddress(_joined(split_address("peer_address", mutual)[0], plain) if mutual else "", mutual)

    def add_grpc(self, plane: Plane) -> None:
        """Bind those of gRPC. Raises FailedPrecondition where an address cannot be listened on."""
        for setting, services in plane.listening.items():
            listener = GrpcListener(self._settings, services, setting, self._certificate)
            listener.server.add_generic_rpc_handlers(plane.grpc_handlers(setting))
            self._grpc[setting.removesuffix("_listen")] = listener
        if "admin" in self._http:
            services = tuple(plane.registry.services)
            self._inner = GrpcListener(self._settings, services, "admin_listen", is_inner=True)
        if self._settings.is_mutual("agents_listen") and "agents" in self._grpc:
            plane.identities.reached_at(self._settings.agents_address or f":{self._grpc['agents'].port}")

    async def serve(self, plane: Plane) -> dict[str, asyncio.Task[None]]:
        """Accept connections; return the tasks that end only with ``stop``, or by a fault."""
        for grpc in self._grpc.values():
            await grpc.start()
        apps = {"http": plane.app, "admin": plane.admin}
        inner = self._inner
        if inner is not None:
            await inner.start()
        grpc_at = {} if inner is None else {"admin": (inner.host, inner.port)}
        tasks = {
            name: http.serve(apps[name], plane.supervisor, plane.metrics, grpc_at.get(name))
            for name, http in self._http.items()
        }
        if inner is not None:
            tasks["admin_health"] = inner.follow(plane.readiness.problem, plane.supervisor)
        for name, grpc in self._grpc.items():
            tasks[f"{name}_health"] = grpc.follow(plane.readiness.problem, plane.supervisor)
            if self._settings.max_connections_per_ip:
                tasks[f"{name}_connections"] = grpc.limit_addresses(plane.metrics, plane.supervisor)
        tasks["server_certificate"] = plane.supervisor.supervise(
            "server_certificate", self._renew, every_s=issuing.PERIOD_S
        )
        return {name: asyncio.create_task(task, name=name) for name, task in tasks.items()}

    async def _renew(self) -> None:
        """Renew the certificate of this process where it is due. Listeners of gRPC ask for it at each handshake."""
        await asyncio.to_thread(self._certificate.renew)
        if self._is_own and self._certificate.shown is not self._used:
            self._use_certificate()

    def _use_certificate(self) -> None:
        self._used = self._certificate.shown
        for http in self._http.values():
            http.use_certificate(self._certificate.certificate, self._certificate.key)

    @property
    def _all_grpc(self) -> list[GrpcListener]:
        return [*self._grpc.values(), *([] if self._inner is None else [self._inner])]

    def turn_unhealthy(self) -> None:
        """Say NOT_SERVING of every service over gRPC, for good."""
        for grpc in self._all_grpc:
            grpc.turn_unhealthy()

    def refuse_to_keep_connections(self) -> None:
        """Close HTTP connections after their next answer."""
        for http in self._http.values():
            http.refuse_to_keep_connections()

    async def stop(self) -> None:
        """Stop accepting, and end what is left after a grace period."""
        await asyncio.gather(*(http.stop() for http in self._http.values()))
        await asyncio.gather(*(grpc.stop() for grpc in self._all_grpc))

    def close(self) -> None:
        """Close the sockets of HTTP, whether they were served or not."""
        for http in self._http.values():
            http.close()


async def _stop(
    settings: ServerSettings, plane: Plane, listeners: _Listeners, tasks: Mapping[str, asyncio.Task[Any]]
) -> None:
    """Stop in order; see the module's docstring."""
    log.info("stopping")
    plane.readiness.stop()
    listeners.turn_unhealthy()
    if not any(task.done() for name, task in tasks.items() if name != "stop"):
        await asyncio.sleep(settings.stop_delay_s)
    listeners.refuse_to_keep_connections()
    plane.stop()
    await plane.pipeline.finished(CALLS_TIMEOUT_S)
    await listeners.stop()
    for name in tasks.keys() - {"http", "admin"}:
        tasks[name].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    with contextlib.suppress(Error):
        await plane.leave()
    log.info("stopped")


def _replica_id(path: Path) -> str:
    """Return the replica's id: the same after a restart, so that its leases are its own again."""
    if path.exists() and ids.is_uuid(known := path.read_text(encoding="ascii", errors="replace").strip()):
        return known
    replica = ids.new_id()
    replace_file(path, f"{replica}\n".encode("ascii"), mode=0o644, durable=False)
    return replica


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
