"""One control plane, put together: who knows whom, room by room. Nothing listens here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool

from footlights import __version__, ids
from footlights.auth.grants import Grants
from footlights.auth.tokens import replica_proof
from footlights.console.app import console
from footlights.control import clock, targets
from footlights.control.call.authenticate import TokenAuthenticator
from footlights.control.call.grpc_adapter import grpc_handlers
from footlights.control.call.local import LocalCalls
from footlights.control.call.pacing import Pacing
from footlights.control.call.pipeline import Pipeline
from footlights.control.call.registry import Registry, Service
from footlights.control.clock import Machine, SharedWall, steady
from footlights.control.dispatch.identity import Duplicates
from footlights.control.dispatch.link import Hub
from footlights.control.dispatch.sender import Telling
from footlights.control.dispatch.service import Agents
from footlights.control.expiry.loop import Reaping
from footlights.control.http import Api, ASGIApp, Readiness, web
from footlights.control.liveness.heartbeats import MISSED_HEARTBEATS, Silences
from footlights.control.liveness.mass_loss import Brake
from footlights.control.observability import certificates, loop_lag
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Replicas, Work
from footlights.control.replication.notifications import Passing
from footlights.control.replication.peers import Peers, ReplicaService
from footlights.control.replication.signals import Bus
from footlights.control.scheduling.cache import Board
from footlights.control.scheduling.loop import Placing
from footlights.control.services.applications import ApplicationService
from footlights.control.services.bootstrap import ensure_first
from footlights.control.services.catalog import Catalog
from footlights.control.services.nodes import NodeService
from footlights.control.services.profiles import ProfileService
from footlights.control.services.sessions.connect import SessionConnector
from footlights.control.services.sessions.create import SessionCreator
from footlights.control.services.sessions.service import StreamingService
from footlights.control.services.sessions.terminate import SessionTerminator
from footlights.control.services.tokens import TokenService
from footlights.errors import DOMAIN
from footlights.frontdoor import FrontDoor
from footlights.gateway import Gateway, LocalUpstream, Options, docs
from footlights.gateway.openapi import Info, document
from footlights.store.cluster import database_time
from footlights.store.cluster.revisions import check_key, cluster_id
from footlights.store.nodes import node_rows
from footlights.supervision import Supervisor
from footlights.v1 import agent_pb2, application_pb2, node_pb2, profile_pb2, replica_pb2, session_pb2, token_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import grpc

    from footlights.auth.secrets import ClusterKey
    from footlights.control.services.sessions.present import Origin
    from footlights.control.settings import ServerSettings
    from footlights.store import Store

REST_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (token_pb2, "TokenService"),
        (node_pb2, "NodeService"),
        (profile_pb2, "ProfileService"),
        (application_pb2, "ApplicationService"),
        (session_pb2, "StreamingService"),
    )
)
"""The services that have a REST form: the role ``api``."""

AGENT_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
"""The role ``hub``."""

REPLICA_SERVICE = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"].full_name
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What the process needs of a control plane."""

    app: ASGIApp
    """All of HTTP."""
    registry: Registry
    pipeline: Pipeline
    local: LocalCalls
    """Calls without a socket: the gateway's, and those of tests."""
    readiness: Readiness
    supervisor: Supervisor
    placing: Placing
    reaping: Reaping
    telling: Telling
    replicas: Replicas
    peers: Peers
    passing: Passing | None
    """None where there can be no other replica."""
    bus: Bus
    brake: Brake
    metrics: Metrics

    @property
    def grpc_handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server serves."""
        return grpc_handlers(self.registry, self.pipeline)

    async def loops(self) -> None:
        """Run the background loops until cancelled; each finds out whether it leads among the replicas."""
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

    def stop(self) -> None:
        """Turn readiness, refuse new calls and end running streams; unary calls go on."""
        self.readiness.stop()
        self.pipeline.stop()

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
    *,
    replica: str = "",
    wall: Callable[[], datetime] = clock.utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    machine: Machine | None = None,
    decision_wait_s: float = 0.25,
) -> Plane:
    """Put a control plane together on an open store.

    Args:
        settings: The operator's.
        store: Open, with its tables up to date.
        key: The cluster's key.
        origin: Where viewers reach this control plane, for routes.
        public_url: The origin that browsers see, without a trailing slash, for the URLs of grants.
        replica: The id of this replica, the same after a restart; empty for a new one.
        wall: The wall clock, which may jump; moments that are stored come from a steady clock.
        monotonic: The clock that measures spans, in seconds.
        machine: What the steady clock is kept by; None for this machine's boot-time clock.
        decision_wait_s: How long the answer to a creation waits for the first scheduling decision.

    Raises:
        errors.FailedPrecondition: The database belongs to another cluster key.
    """
    shared_wall = SharedWall(wall)
    shared_wall.read(await store.read(database_time.of_the_server))
    now = steady(shared_wall, machine or Machine.here(), settings.data_dir, await store.read(database_time.newest))
    cluster = await store.write(lambda tx: cluster_id(tx, ids.new_id()))
    await store.write(lambda tx: check_key(tx, key.fingerprint))
    token_key, proof = key.derive("tokens"), replica_proof(key.derive("replicas"))
    await ensure_first(store, token_key, settings.data_dir / "admin.token", now=now())
    if not store.shared:
        await store.write(node_rows.disconnect_all)

    # What all rooms share.
    bus, hub, metrics, box = Bus(), Hub(monotonic), Metrics(), key.box()
    supervisor = Supervisor()
    if settings.tls_cert is not None:
        metrics.certified(certificates.expiry(settings.tls_cert))
    store.on_commit = metrics.committed
    bus.on_assigned, bus.on_missed = hub.wake, hub.wake_all

    # liveness/ and replication/
    brake = Brake(MISSED_HEARTBEATS * settings.heartbeat_interval_s, metrics, now, monotonic)
    replicas = Replicas(store, replica or ids.new_id(), settings.roles, metrics, brake, now, shared_wall.read)
    peers = Peers(store, hub, replicas.me, proof, settings.tls_cert)
    silences = Silences(store, bus, hub, replicas, brake, settings.heartbeat_interval_s, now, monotonic)

    # scheduling/ and expiry/
    loops = "loops" in settings.roles
    board = Board(store, bus, now, monotonic)
    placing = Placing(store, bus, Work("placing", store, replicas, may=loops), board, metrics, now, monotonic=monotonic)
    reaping = Reaping(
        store, bus, Work("reaping", store, replicas, may=loops), silences, metrics, settings, brake, now, monotonic
    )

    # dispatch/
    telling = Telling(store, hub, box, replicas.me, now)
    duplicates = Duplicates(
        store,
        hub,
        peers,
        heartbeat_s=settings.heartbeat_interval_s,
        abandon_after_s=settings.abandon_after_s,
        clock=now,
        monotonic=monotonic,
    )
    agents = Agents(store, bus, hub, telling, duplicates, metrics, settings, replicas.me, cluster, now)

    # call/ and services/
    authenticator = TokenAuthenticator(store, token_key, now, proof)
    grants = Grants(key.derive("grants"))
    services = [_service(REPLICA_SERVICE, ReplicaService(hub))]
    if "hub" in settings.roles:
        services.append(_service(AGENT_SERVICE, agents))
    if "api" in settings.roles:
        creator = SessionCreator(
            store,
            bus,
            catalog=Catalog(store, bus, monotonic),
            board=board,
            placing=placing,
            telling=telling,
            box=box,
            origin=origin,
            settings=settings,
            clock=now,
            decision_wait_s=decision_wait_s,
        )
        sessions = StreamingService(
            store,
            bus,
            creator=creator,
            terminator=SessionTerminator(store, bus, now),
            connector=SessionConnector(store, grants, settings, public_url, now),
            peers=peers,
            origin=origin,
            clock=now,
        )
        handlers: tuple[object, ...] = (
            TokenService(store, authenticator, token_key, now),
            NodeService(store, bus, brake, now),
            ProfileService(store, bus, now),
            ApplicationService(store, bus, now),
            sessions,
        )
        services += [_service(name, found) for name, found in zip(REST_SERVICES, handlers, strict=True)]
    registry, pipeline = Registry(services), Pipeline(authenticator, metrics)
    local = LocalCalls(registry, pipeline)

    # HTTP
    readiness = Readiness(store, supervisor)
    pacing = Pacing(lambda: len(hub), lambda: hub.messages)
    app = web(
        metrics,
        readiness,
        queued=lambda: store.queued,
        api=_api(settings, local, pacing, metrics) if "api" in settings.roles else None,
        front_door=_front_door(settings, store, grants, key, now) if "frontdoor" in settings.roles else None,
    )
    return Plane(
        app=app,
        registry=registry,
        pipeline=pipeline,
        local=local,
        readiness=readiness,
        supervisor=supervisor,
        placing=placing,
        reaping=reaping,
        telling=telling,
        replicas=replicas,
        peers=peers,
        passing=Passing(store, bus, replicas.me, metrics) if store.shared else None,
        bus=bus,
        brake=brake,
        metrics=metrics,
    )


def _service(name: str, handlers: object) -> Service:
    return Service(descriptor_pool.Default().FindServiceByName(name), handlers)


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


def _api(settings: ServerSettings, local: LocalCalls, pacing: Pacing, metrics: Metrics) -> Api:
    options = replace(
        GATEWAY_OPTIONS,
        pace=pacing,
        cors_origins=settings.cors_origins,
        max_concurrent_calls=settings.max_concurrent_calls,
    )
    gateway = Gateway(LocalUpstream(local), REST_SERVICES, options, on_overload=partial(metrics.shed, "CALLS"))
    return Api(gateway, console(), docs.routes(openapi_document()))


def _front_door(
    settings: ServerSettings, store: Store, grants: Grants, key: ClusterKey, now: Callable[[], datetime]
) -> FrontDoor:
    return FrontDoor(
        targets.resolver(store),
        grants,
        key=key.derive("frontdoor"),
        allow_origin="*" if "*" in settings.cors_origins else settings.cors_origins,
        now=now,
    )
