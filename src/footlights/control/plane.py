"""One control plane, put together: who knows whom. Nothing listens here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import resources
from typing import Any

from footlights import __version__, names
from footlights.auth.grants import Grants
from footlights.auth.secrets import ClusterKey
from footlights.console.app import console
from footlights.control import convert, tokens
from footlights.control.agents import Agents
from footlights.control.applications import Applications
from footlights.control.authentication import Authentication
from footlights.control.brake import Brake
from footlights.control.changes import Bus
from footlights.control.convert import Origin
from footlights.control.hub import Hub
from footlights.control.interceptors import CallInterceptor
from footlights.control.metrics import Metrics
from footlights.control.nodes import Nodes
from footlights.control.placing import Placing
from footlights.control.profiles import Profiles
from footlights.control.reaping import Reaping, patience_s
from footlights.control.sessions import Sessions
from footlights.control.settings import ServerSettings
from footlights.control.steady import Machine, steady
from footlights.control.tokens import Tokens
from footlights.control.web import ASGIApp, web
from footlights.errors import DOMAIN
from footlights.frontdoor import FrontDoor, Resolve, Target
from footlights.gateway import Gateway, Options, docs
from footlights.gateway.inprocess import Channel, Handlers
from footlights.gateway.openapi import Info, document
from footlights.store import Store, Transaction, applications, launches, moments, nodes, sessions
from footlights.store.revisions import cluster_id
from footlights.v1 import (
    agent_pb2_grpc,
    application_pb2,
    application_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    profile_pb2_grpc,
    session_pb2_grpc,
    token_pb2_grpc,
)

REST_SERVICES = (
    "footlights.v1.TokenService",
    "footlights.v1.NodeService",
    "footlights.v1.ProfileService",
    "footlights.v1.ApplicationService",
    "footlights.v1.StreamingService",
)
"""The services that have a REST form."""

SERVICES = (*REST_SERVICES, "footlights.v1.AgentService")

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
    """Adds every servicer to a gRPC server, or to what behaves like one."""
    app: ASGIApp
    placing: Placing
    reaping: Reaping
    channel: Channel
    bus: Bus
    brake: Brake

    async def loops(self) -> None:
        """Run placing and reaping until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.placing.run(), name="placing")
            group.create_task(self.reaping.run(), name="reaping")


async def assemble(
    settings: ServerSettings,
    store: Store,
    key: ClusterKey,
    origin: Origin,
    public_url: str,
    wall: Callable[[], datetime] = convert.utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    decision_wait_s: float = 0.25,
    machine: Machine | None = None,
) -> Plane:
    """Put a control plane together on an open store.

    Args:
        settings: As given by the operator.
        store: Open, with its tables up to date.
        key: The cluster's key.
        origin: Where viewers reach this control plane, for routes.
        public_url: The origin that browsers see, without a trailing slash, for the URLs of grants.
        wall: The wall clock, which may jump: what is stored and reckoned with comes from a steady one.
        monotonic: The clock that only measures spans, in seconds.
        decision_wait_s: How long the answer to a creation waits for placing's first decision.
        machine: What the steady clock is kept by; None is this machine's boot-time clock.
    """
    clock = steady(wall, machine or Machine.here(), settings.data_dir, await store.read(moments.newest))
    cluster = await store.write(lambda tx: cluster_id(tx, names.new_id()))
    token_key = key.derive("tokens")
    await tokens.ensure_first(store, token_key, settings.data_dir / "admin.token", now=clock())
    await store.write(nodes.disconnect_all)
    bus, hub, metrics, box = Bus(), Hub(monotonic), Metrics(), key.box()
    brake = Brake(patience_s(settings), metrics, clock, monotonic)
    grants = Grants(key.derive("grants"))
    authentication = Authentication(store, token_key, clock)
    interceptor = CallInterceptor(authentication, metrics)

    def register(server: Any) -> None:
        session_pb2_grpc.add_StreamingServiceServicer_to_server(
            Sessions(
                store,
                bus,
                hub,
                box,
                grants,
                settings,
                origin,
                public_url,
                clock,
                decision_wait_s=decision_wait_s,
            ),
            server,
        )
        application_pb2_grpc.add_ApplicationServiceServicer_to_server(Applications(store, clock), server)
        profile_pb2_grpc.add_ProfileServiceServicer_to_server(Profiles(store, clock), server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(Nodes(store, bus, brake, clock), server)
        token_pb2_grpc.add_TokenServiceServicer_to_server(Tokens(store, authentication, token_key, clock), server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(
            Agents(store, bus, hub, box, metrics, settings, cluster, clock), server
        )

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
    return Plane(
        interceptor=interceptor,
        register=register,
        app=web(
            store,
            metrics,
            gateway=Gateway(channel, REST_SERVICES, _options(settings)),
            front_door=front_door,
            console=console(),
            docs=docs.routes(openapi_document()),
        ),
        placing=Placing(store, bus, metrics, clock),
        reaping=Reaping(store, bus, hub, metrics, settings, brake, clock, monotonic),
        channel=channel,
        bus=bus,
        brake=brake,
    )


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


def _options(settings: ServerSettings) -> Options:
    return replace(
        GATEWAY_OPTIONS,
        cors_origins=settings.cors_origins,
        max_concurrent_calls=settings.max_concurrent_calls,
    )


def _resolver(store: Store) -> Resolve:
    async def resolve(session_id: str) -> Target | None:
        """Say where a session's signalling is."""

        def read(tx: Transaction) -> Target | None:
            row = sessions.get(tx, session_id) if names.is_uuid(session_id) else None
            if row is None:
                return None
            launch = launches.get(tx, row.launch_id) if row.launch_id else None
            node = nodes.get(tx, launch.node) if launch else None
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
