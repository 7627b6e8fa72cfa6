"""gRPC listeners: which services each one serves, and health.

One serves everything, unless agents or other replicas have a listener of their own: then each serves what is for its
callers, and says of the rest where it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2

from footlights.agent.v1 import agent_pb2, certificate_pb2
from footlights.control.call.open_calls import OpenCalls
from footlights.control.call.registry import MAX_REQUEST_BYTES, not_served_here
from footlights.control.listeners import cannot_listen
from footlights.control.settings import split_address
from footlights.http.client_addresses import client_of
from footlights.linux.sockets import AddressLimit, shut_down
from footlights.protocol import former
from footlights.protocol.bounds import MAX_MESSAGE_BYTES
from footlights.replica.v1 import replica_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from footlights.control.credentials.issuing import ServerCertificate
    from footlights.control.observability.metrics import Metrics
    from footlights.control.settings import ServerSettings
    from footlights.errors import Error
    from footlights.supervision import Supervisor

AGENT_SERVICE: Final = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
"""What agents call."""
CERTIFICATE_SERVICE: Final = certificate_pb2.DESCRIPTOR.services_by_name["CertificateService"].full_name
"""What agents call that have no certificate yet, wherever the API is served."""
REPLICA_SERVICE: Final = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"].full_name
"""What other replicas call."""

_OWN: Final = {"agents_listen": AGENT_SERVICE, "peers_listen": REPLICA_SERVICE}
_ROLES: Final = {"grpc_listen": "api", "agents_listen": "hub", "peers_listen": "peers"}

_GRPC_OPTIONS = (
    # The library's default refuses a third of the agents that come back all at once after a restart.
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    # They would rather wait than be refused after 30 s, dial again, and stand at the end of the line.
    ("grpc.server_max_unrequested_time_in_server", 120),
    ("grpc.so_reuseport", 0),
    # By default the bound is random between half of it and this one.
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 16 << 10),
    # The server finds out within 30 s that a client is gone; a client may ask every 5 s, also without a call.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


def services_by_setting(settings: ServerSettings, services: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Return which of a process's services each gRPC listener serves, by the setting that has its address."""
    own = {name: (service,) for name, service in _OWN.items() if getattr(settings, name) and service in services}
    apart = {service for each in own.values() for service in each}
    if settings.node_tokens:
        # Where agents of the release before link, which have tokens.
        apart.discard(AGENT_SERVICE)
    return {"grpc_listen": tuple(service for service in services if service not in apart), **own}


def refused_by_setting(listening: Mapping[str, Sequence[str]], setting: str) -> dict[str, Error]:
    """Return the errors of the services that other listeners than that of ``setting`` serve, former names included.

    Replicas of the release before still call under the former name where gRPC listens.
    """
    refused: dict[str, Error] = {}
    for other, services in listening.items():
        if other != setting:
            for service in set(services).difference(listening[setting]):
                error = not_served_here(service, _ROLES[other], other.replace("_", "-"))
                refused[service] = error
                # Replicas of the release before call where gRPC listens, and prove themselves by the cluster's key.
                if service != REPLICA_SERVICE or setting != "grpc_listen":
                    refused[former.NAMES.get(service, service)] = error
    return refused


class GrpcListener:
    """A gRPC listener, with health, and with reflection unless the admin listener has it."""

    GRACE_S = 5.0
    """How long calls may take once it stops, in seconds."""
    HANDSHAKE_S = 10.0
    """How long a TLS handshake and HTTP/2's settings may take together, and to acknowledge ours, in seconds."""
    IDLE_S = 60.0
    """How long a connection may have no call, in seconds. A head without an end makes none."""
    HEALTH_PERIOD_S = 2.0
    """How soon health says what readiness says, in seconds."""
    CONNECTIONS_PERIOD_S = 1.0
    """How soon too many connections of one address are closed, in seconds."""

    def __init__(
        self,
        settings: ServerSettings,
        services: Sequence[str],
        setting: str = "grpc_listen",
        certificate: ServerCertificate | None = None,
        *,
        is_inner: bool = False,
    ) -> None:
        """Make the server; handlers are added to ``server`` before it is started.

        ``services`` are those whose health it says; ``setting`` is the one that has its address; ``certificate`` is
        what the process has of the control plane's own authority. ``is_inner``: it is behind the HTTP listener of that
        setting, which ends TLS, on loopback, and has reflection.

        Raises FailedPrecondition where the address cannot be listened on.
        """
        address: str = "127.0.0.1:0" if is_inner else getattr(settings, setting)
        self._name = setting.removesuffix("_listen")
        # A connection that is that old gets a GOAWAY: its client opens another one, perhaps to another replica, for its
        # next call. What is under way goes on, a link or a watch as long as it lives: no grace period ends it.
        age_ms = round(settings.max_connection_age_s * 1000)
        has_sets = not {AGENT_SERVICE, REPLICA_SERVICE}.isdisjoint(services)
        options = (
            ("grpc.max_connection_age_ms", age_ms),
            ("grpc.server_handshake_timeout_ms", round(self.HANDSHAKE_S * 1000)),
            # Until a client has acknowledged our settings, its heads may have 16 MiB.
            ("grpc.http2.settings_timeout", round(self.HANDSHAKE_S * 1000)),
            ("grpc.max_connection_idle_ms", round(self.IDLE_S * 1000)),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_concurrent_streams", settings.max_connection_streams),
            # What is larger than we take is refused by us, who log it, and not by gRPC, which tells the server nothing.
            ("grpc.max_receive_message_length", 2 * (MAX_MESSAGE_BYTES if has_sets else MAX_REQUEST_BYTES)),
        )
        self.server = grpc.aio.server(options=(*_GRPC_OPTIONS, *options))
        self._most_per_address = settings.max_connections_per_ip
        self._open = OpenCalls(services, reflected=is_inner or not settings.admin_listen, cut_off=self._cut_off)
        self._cutting: set[asyncio.Future[bool]] = set()
        self.server.add_generic_rpc_handlers(self._open.handlers)
        self.host, _ = split_address(setting, address)
        try:
            credentials = None if is_inner else _credentials(settings, setting, certificate)
            if credentials is None:
                self.port = self.server.add_insecure_port(address)
            else:
                self.port = self.server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise cannot_listen(setting, address, str(error)) from error

    async def start(self) -> None:
        """Accept connections and say that every service is up."""
        await self.server.start()

    async def follow(self, problem: Callable[[], Awaitable[str]], supervisor: Supervisor) -> None:
        """Say of every service what ``problem`` says of the process, until cancelled."""

        async def once() -> None:
            states = health_pb2.HealthCheckResponse
            self._open.say(states.NOT_SERVING if await problem() else states.SERVING)

        await supervisor.supervise(f"{self._name}_health", once, every_s=self.HEALTH_PERIOD_S)

    async def limit_addresses(self, metrics: Metrics, supervisor: Supervisor) -> None:
        """Close what one address has beyond its share of the connections, until cancelled: gRPC does not count them."""
        limit = AddressLimit(self.port, self._most_per_address, client_of)

        async def once() -> None:
            for _ in range(await asyncio.to_thread(limit.enforce)):
                metrics.shed("CONNECTIONS")

        await supervisor.supervise(f"{self._name}_connections", once, every_s=self.CONNECTIONS_PERIOD_S)

    def _cut_off(self, address: str, port: int) -> None:
        cutting = asyncio.get_running_loop().run_in_executor(None, shut_down, self.port, (address, port))
        self._cutting.add(cutting)
        cutting.add_done_callback(self._cutting.discard)

    def turn_unhealthy(self) -> None:
        """Say NOT_SERVING of every service, for good."""
        self._open.stop()

    async def stop(self) -> None:
        """Accept nothing new, and end calls after the grace period."""
        await self.server.stop(self.GRACE_S)


def _credentials(
    settings: ServerSettings, setting: str, certificate: ServerCertificate | None
) -> grpc.ServerCredentials | None:
    """Return what a listener serves TLS with; None where it serves none."""
    mutual = settings.is_mutual(setting)
    if certificate is not None and (mutual or settings.needs_certificate):
        process = certificate
        known = process.shown

        def configuration() -> grpc.ServerCertificateConfiguration:
            # Of several that have the name that a client asks for, and for one that asks for none, it is the first.
            pairs = [(pair.key, pair.chain) for pair in known.pairs]
            return grpc.ssl_server_certificate_configuration(pairs, known.trusted if mutual else None)

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            # Asked at each handshake.
            nonlocal known
            if process.shown is known:
                return None
            known = process.shown
            return configuration()

        return grpc.dynamic_ssl_server_credentials(
            configuration(),
            renewed,  # type: ignore[arg-type]  # None: the same as before
            require_client_authentication=mutual,
        )
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return grpc.ssl_server_credentials([(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())])
