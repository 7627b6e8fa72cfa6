"""One control plane, put together: who knows whom. Nothing listens here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from footlights import __version__, ids
from footlights.auth.grants import Grants
from footlights.auth.tokens import replica_proof
from footlights.console.app import console
from footlights.control import clock
from footlights.control.call.authenticate import Authentication
from footlights.control.call.pacing import Pacing
from footlights.control.call.pipeline import CallInterceptor
from footlights.control.clock import CautiousClock, DatabaseClock
from footlights.control.dispatch.identity import Duplicates
from footlights.control.dispatch.link import Hub
from footlights.control.dispatch.sender import Telling
from footlights.control.dispatch.service import Agents
from footlights.control.expiry.context import ExpiryContext
from footlights.control.expiry.loop import ExpiryLoop
from footlights.control.http import Api, ASGIApp, web
from footlights.control.liveness.heartbeats import MISSED_HEARTBEATS, Silences
from footlights.control.liveness.mass_loss import Brake
from footlights.control.observability import certificates, loop_lag
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Replicas, Work
from footlights.control.replication.notifications import Passing
from footlights.control.replication.peers import Peers, ReplicaService
from footlights.control.replication.signals import Bus
from footlights.control.scheduling.cache import FleetCache
from footlights.control.scheduling.loop import PlacementLoop
from footlights.control.services import tokens
from footlights.control.services.applications import Applications
from footlights.control.services.catalog import Catalogue
from footlights.control.services.nodes import Nodes
from footlights.control.services.profiles import Profiles
from footlights.control.services.sessions.create import Creating
from footlights.control.services.sessions.service import Sessions
from footlights.control.services.sessions.terminate import Ending
from footlights.control.services.tokens import Tokens
from footlights.errors import DOMAIN
from footlights.frontdoor import FrontDoor, Resolve, Target
from footlights.gateway import Gateway, Options, docs
from footlights.gateway.inprocess import Channel, Handlers
from footlights.gateway.openapi import Info, document
from footlights.store import Store, Transaction, applications
from footlights.store.cluster import database_time
from footlights.store.cluster.revisions import check_key, cluster_id
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions import session_rows
from footlights.supervision import Supervisor
from footlights.v1 import (
    agent_pb2_grpc,
    application_pb2,
    application_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    profile_pb2_grpc,
    replica_pb2_grpc,
    session_pb2_grpc,
    token_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.auth.secrets import ClusterKey
    from footlights.control.present import Origin
    from footlights.control.settings import ServerSettings

REST_SERVICES = (
    "footlights.v1.TokenService",
    "footlights.v1.NodeService",
    "footlights.v1.ProfileService",
    "footlights.v1.ApplicationService",
    "footlights.v1.StreamingService",
)
"""The services that have a REST form: the role ``api``."""

AGENT_SERVICE = "footlights.v1.AgentService"
"""The role ``hub``."""

REPLICA_SERVICE = "footlights.v1.ReplicaService"
"""Every role."""

SERVICES = (*REST_SERVICES, AGENT_SERVICE, REPLICA_SERVICE)

GATEWAY_OPTIONS = Options(
    strict=True,
    use_proto_names=True,
    allow_delete_body=True,
    forward_headers=("idempotency-key", "x-request-id"),
    expose_headers=("x-request-id",),
    error_domain=DOMAIN,
    default_timeout_s=30.0,
    max_timeout_s=300.0,
    max_body_bytes=1 << 20,
)


@dataclass(frozen=True, slots=True)
class Plane:
    """What the outside needs of a control plane."""

    interceptor: CallInterceptor
    register: Callable[[Any], None]
    """Adds every servicer of its roles to a gRPC server, or to what behaves like one."""
    services: tuple[str, ...]
    """Their names."""
    app: ASGIApp
    placing: PlacementLoop
    reaping: ExpiryLoop
    telling: Telling
    replicas: Replicas
    peers: Peers
    passing: Passing | None
    """None where there can be no other replica."""
    channel: Channel
    bus: Bus
    brake: Brake
    metrics: Metrics

    async def loops(self) -> None:
        """Run everything that goes on by itself until cancelled; whose work it is, each finds out."""
        async with asyncio.TaskGroup() as group:
            for name, loop in (
                ("placing", self.placing.run),
                ("reaping", self.reaping.run),
                ("telling", self.telling.run),
                ("replicas", self.replicas.run),
                ("lag", partial(loop_lag.watch, self.metrics.lagged)),
            ):
                group.create_task(loop(), name=name)
            if self.passing is not None:
                group.create_task(self.passing.run(), name="passing")

    async def leave(self) -> None:
        """Let other replicas take over at once; after the loops have ended."""
        await self.replicas.leave()
        await self.peers.close()


async def assemble(
    settings: ServerSettings,
    store: Store,
    key: ClusterKey,
    origin: Origin,
    public_url: str,
    wall: Callable[[], datetime] = clock.utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    decision_wait_s: float = 0.25,
    *,
    replica: str = "",
) -> Plane:
    """Put a control plane together on an open store.

    Args:
        settings: As given by the operator.
        store: Open, with its tables up to date.
        key: The cluster's key.
        origin: Where viewers reach this control plane, for routes.
        public_url: The origin that browsers see, without a trailing slash, for the URLs of grants.
        wall: The wall clock, for moments; not used where the database has a clock of its own.
        monotonic: The clock that only measures spans, in seconds.
        decision_wait_s: How long the answer to a creation waits for placing's first decision.
        replica: Which replica this is, the same after a restart; empty for a new one.

    Raises:
        errors.FailedPrecondition: the database is another cluster key's.
    """
    clock = DatabaseClock(wall, monotonic)
    clock.read(await store.read(database_time.of_the_server))
    newest = await store.read(database_time.newest)
    cautious = CautiousClock(clock, monotonic, newest=newest, file=settings.data_dir / "clock")
    supervisor = Supervisor()
    cluster = await store.write(lambda tx: cluster_id(tx, ids.new_id()))
    await store.write(lambda tx: check_key(tx, key.fingerprint))
    token_key, proof = key.derive("tokens"), replica_proof(key.derive("replicas"))
    await tokens.ensure_first(store, token_key, settings.data_dir / "admin.token", now=clock())
    bus, hub, metrics, box = Bus(), Hub(monotonic), Metrics(), key.box()
    if settings.tls_cert is not None:
        metrics.certified(certificates.expiry(settings.tls_cert))
    store.on_commit = metrics.committed
    bus.on_assigned, bus.on_missed = hub.wake, hub.wake_all
    brake = Brake(MISSED_HEARTBEATS * settings.heartbeat_interval_s, metrics, clock, monotonic)
    replicas = Replicas(store, replica or ids.new_id(), settings.roles, metrics, brake, clock, clock.read)
    if not store.shared:
        await store.write(node_rows.disconnect_all)
    peers = Peers(store, hub, replicas.me, proof, settings.tls_cert)
    grants = Grants(key.derive("grants"))
    authentication = Authentication(store, token_key, clock, proof)
    interceptor = CallInterceptor(authentication, metrics)
    telling = Telling(store, hub, box, replicas.me, clock)
    silences = Silences(store, bus, hub, replicas, brake, settings.heartbeat_interval_s, clock, monotonic)
    loops = "loops" in settings.roles
    board = FleetCache(store, bus, clock, supervisor=supervisor, monotonic=monotonic)
    work = Work("placing", store, replicas, may=loops)
    placing = PlacementLoop(
        store=store,
        bus=bus,
        work=work,
        cache=board,
        metrics=metrics,
        clock=clock,
        supervisor=supervisor,
        monotonic=monotonic,
    )

    duplicates = Duplicates(
        store,
        hub,
        peers,
        heartbeat_s=settings.heartbeat_interval_s,
        abandon_after_s=settings.abandon_after_s,
        clock=clock,
        monotonic=monotonic,
    )
    creating = Creating(
        store,
        bus,
        Catalogue(store, bus, monotonic),
        board,
        placing,
        telling,
        box,
        origin,
        settings,
        clock,
        decision_wait_s=decision_wait_s,
    )
    agents = Agents(store, bus, hub, telling, duplicates, metrics, settings, replicas.me, cluster, clock)
    ending = Ending(store, bus, clock)
    streaming = Sessions(store, bus, peers, creating, ending, grants, settings, origin, public_url, clock)

    def register(server: Any) -> None:
        replica_pb2_grpc.add_ReplicaServiceServicer_to_server(ReplicaService(hub), server)
        if "hub" in settings.roles:
            agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        if "api" not in settings.roles:
            return
        session_pb2_grpc.add_StreamingServiceServicer_to_server(streaming, server)
        application_pb2_grpc.add_ApplicationServiceServicer_to_server(Applications(store, bus, clock), server)
        profile_pb2_grpc.add_ProfileServiceServicer_to_server(Profiles(store, bus, clock), server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(Nodes(store, bus, brake, clock), server)
        token_pb2_grpc.add_TokenServiceServicer_to_server(Tokens(store, authentication, token_key, clock), server)

    handlers = Handlers()
    register(handlers)
    channel = Channel(handlers, [interceptor])
    front_door = FrontDoor(
        _resolver(store),
        grants,
        key=key.derive("frontdoor"),
        allow_origin="*" if "*" in settings.cors_origins else settings.cors_origins,
        now=clock,
    )
    options = _options(settings, Pacing(lambda: len(hub), lambda: hub.messages))
    gateway = Gateway(channel, REST_SERVICES, options, on_overload=partial(metrics.shed, "CALLS"))
    api = Api(gateway, console(), docs.routes(openapi_document()))
    return Plane(
        interceptor=interceptor,
        register=register,
        services=_services(settings),
        app=web(
            store,
            metrics,
            api=api if "api" in settings.roles else None,
            front_door=front_door if "frontdoor" in settings.roles else None,
        ),
        placing=placing,
        reaping=ExpiryLoop(
            ExpiryContext(
                store,
                bus,
                Work("reaping", store, replicas, may=loops),
                metrics,
                cautious,
                monotonic,
                supervisor,
            ),
            silences=silences,
            brake=brake,
            clock=clock,
            retention_days=settings.retention_days,
        ),
        telling=telling,
        replicas=replicas,
        peers=peers,
        passing=Passing(store, bus, replicas.me, metrics) if store.shared else None,
        channel=channel,
        bus=bus,
        brake=brake,
        metrics=metrics,
    )


def _services(settings: ServerSettings) -> tuple[str, ...]:
    found = REST_SERVICES if "api" in settings.roles else ()
    return (*found, *((AGENT_SERVICE,) if "hub" in settings.roles else ()), REPLICA_SERVICE)


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the REST API, with the comments of the protos."""
    info = Info(
        title="Footlights",
        version=__version__,
        description="The Application Streaming API 2.0.0, and what it lacks.",
        bearer=True,
    )
    descriptor_set = resources.files("footlights.v1").joinpath("footlights.binpb")
    return document(REST_SERVICES, GATEWAY_OPTIONS, info, descriptor_set=descriptor_set.read_bytes())


def _options(settings: ServerSettings, pace: Pacing) -> Options:
    return replace(
        GATEWAY_OPTIONS,
        pace=pace,
        cors_origins=settings.cors_origins,
        max_concurrent_calls=settings.max_concurrent_calls,
    )


def _resolver(store: Store) -> Resolve:
    async def resolve(session_id: str) -> Target | None:
        """Say where a session's signalling is."""

        def read(tx: Transaction) -> Target | None:
            row = session_rows.get(tx, session_id) if ids.is_uuid(session_id) else None
            if row is None:
                return None
            launch = launch_rows.get(tx, row.launch_id) if row.launch_id else None
            node = node_rows.get(tx, launch.node) if launch else None
            version = applications.version(tx, row.application, row.application_version)
            facts = node_pb2.NodeFacts.FromString(node.facts if node else b"")
            signaling = application_pb2.Version.FromString(version.recipe if version else b"").signaling
            return Target(
                address=facts.signal_address or facts.public_address,
                signal_port=launch.signal_port if launch else 0,
                whep_path=signaling.whep_path,
                websocket_path=signaling.websocket_path,
                state=row.state,
            )

        return await store.read(read)

    return resolve
