"""One control plane, put together: who knows whom, room by room. Nothing listens here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from google.protobuf import descriptor_pool

from footlights import __version__, ids
from footlights.auth import launch_secrets, relays
from footlights.auth.grants import Grants
from footlights.auth.roles import Caller, Role
from footlights.auth.tokens import replica_proofs
from footlights.console import kit_library
from footlights.console.app import console
from footlights.control import targets
from footlights.control.call.authenticate import CertificateAuthenticator, TokenAuthenticator
from footlights.control.call.context import Call
from footlights.control.call.grpc_adapter import grpc_handlers
from footlights.control.call.local import LocalCalls
from footlights.control.call.pacing import Pacing
from footlights.control.call.pipeline import Pipeline
from footlights.control.call.registry import Registry, Service
from footlights.control.call.sealed import Sealer
from footlights.control.clock import CautiousClock, DatabaseClock, utc_now
from footlights.control.credentials.authorities import authorities
from footlights.control.credentials.cluster_keys import KeyRotation, token_key
from footlights.control.credentials.kubernetes import CaConfigMap
from footlights.control.dispatch.identity import DuplicateIdentities
from footlights.control.dispatch.log_streams import LogStreams
from footlights.control.dispatch.node_addresses import NodeAddresses
from footlights.control.dispatch.node_identities import CertificateService, Issuer, NodeIdentities
from footlights.control.dispatch.registry import LinkRegistry
from footlights.control.dispatch.relays import RelayAnswers
from footlights.control.dispatch.reports import ReportRecorder
from footlights.control.dispatch.sender import AssignmentSender
from footlights.control.dispatch.service import AgentPolicy, AgentService, Welcome
from footlights.control.expiry.context import ExpiryContext
from footlights.control.expiry.loop import ExpiryLoop
from footlights.control.grpc_listener import (
    AGENT_SERVICE,
    CERTIFICATE_SERVICE,
    REPLICA_SERVICE,
    refused_by_setting,
    services_by_setting,
)
from footlights.control.http import OPENAPI, Api, ASGIApp, Probes, Readiness, admin, web
from footlights.control.inspection import Inspectors
from footlights.control.liveness.heartbeats import MISSED_HEARTBEATS, LivenessJudge
from footlights.control.liveness.mass_loss import MassLossGuard
from footlights.control.observability import certificates, loop_lag
from footlights.control.observability.metrics import GRPC, Metrics
from footlights.control.pools.keeper import PoolKeeper
from footlights.control.replication.membership import Membership
from footlights.control.replication.notifications import NotificationRelay
from footlights.control.replication.peers import Peers, ReplicaService
from footlights.control.replication.work_lease import LeaderLease
from footlights.control.scheduling.cache import FleetCache
from footlights.control.scheduling.guard import unwell_nodes
from footlights.control.scheduling.loop import PlacementLoop
from footlights.control.services.applications import ApplicationService
from footlights.control.services.bootstrap import ensure_first
from footlights.control.services.catalog import Catalog
from footlights.control.services.enrollment import EnrollmentService
from footlights.control.services.kas.apps import AppConfigService, AppEditService
from footlights.control.services.kas.paths import KasPaths, for_pages_of
from footlights.control.services.kas.streams import StreamSessionService
from footlights.control.services.nodes import NodeService
from footlights.control.services.nvcf.functions import FunctionService
from footlights.control.services.nvcf.sign_in import Patience, SignIn
from footlights.control.services.pools.service import PoolService
from footlights.control.services.profiles import ProfileService
from footlights.control.services.sessions.connect import SessionConnector
from footlights.control.services.sessions.create import SessionCreator
from footlights.control.services.sessions.cursors import Cursors
from footlights.control.services.sessions.follow import SessionFollower
from footlights.control.services.sessions.service import StreamingService
from footlights.control.services.sessions.terminate import SessionTerminator
from footlights.control.services.streams import ApplicationStreamingService
from footlights.control.services.tokens import TokenService
from footlights.control.services.viewers import ViewerService
from footlights.control.services.writes import Writes
from footlights.control.signals import Signals
from footlights.errors import DOMAIN
from footlights.frontdoor import FrontDoor, OpenSessions
from footlights.frontdoor import openapi as front_door_openapi
from footlights.gateway import Gateway, LocalUpstream, Options, docs
from footlights.gateway.openapi import Info, document
from footlights.http.answer_headers import with_safe_headers
from footlights.ids import is_loopback
from footlights.kas.v1 import kit_app_streaming_pb2
from footlights.nvcf.v1 import functions_pb2
from footlights.ovc.v2 import application_streaming_pb2
from footlights.protocol import former
from footlights.store.cluster import database_time
from footlights.store.cluster.revisions import cluster_id
from footlights.store.nodes import node_rows
from footlights.supervision import Supervisor
from footlights.v1 import (
    application_pb2,
    enrollment_pb2,
    node_pb2,
    pool_pb2,
    profile_pb2,
    session_pb2,
    token_pb2,
    viewer_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import grpc
    from starlette.routing import Route

    from footlights.auth.secrets import Box, ClusterKey
    from footlights.control.credentials.issuing import ServerCertificate
    from footlights.control.credentials.kubernetes import Kubernetes
    from footlights.control.routes import Origin
    from footlights.control.settings import ServerSettings
    from footlights.store import Store

REST_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (token_pb2, "TokenService"),
        (enrollment_pb2, "EnrollmentService"),
        (node_pb2, "NodeService"),
        (profile_pb2, "ProfileService"),
        (pool_pb2, "PoolService"),
        (application_pb2, "ApplicationService"),
        # Of two paths that match a request the last one is used: /stream/{session_id}:watch, not /stream/{session_id}.
        (application_streaming_pb2, "ApplicationStreamingService"),
        (session_pb2, "StreamingService"),
        (viewer_pb2, "ViewerService"),
    )
)
"""The services that have a REST form: the role ``api``."""

KAS_SERVICES = tuple(
    kit_app_streaming_pb2.DESCRIPTOR.services_by_name[name].full_name
    for name in ("StreamSessionService", "AppConfigService", "AppEditService")
)
"""Those of Kit App Streaming, where they are switched on; the last one by a switch of its own."""

NVCF_SERVICES = (functions_pb2.DESCRIPTOR.services_by_name["FunctionService"].full_name,)
"""Those of NVIDIA Cloud Functions, where they are switched on."""

_ROLES = {**dict.fromkeys(REST_SERVICES, "api"), AGENT_SERVICE: "hub", CERTIFICATE_SERVICE: "hub"}
"""The role of each service that not every process has."""

GATEWAY_OPTIONS = Options(
    strict=True,
    use_proto_names=True,
    allow_delete_body=True,
    forward_headers=("x-request-id",),
    expose_headers=("idempotency-replayed", "x-request-id"),
    name_status=True,
    error_domain=DOMAIN,
    default_timeout_s=30.0,
    max_timeout_s=300.0,
    max_body_bytes=1 << 20,
    # Room for a filter and a page token of the greatest length.
    max_url_bytes=16384,
)


API_VERSION = "1.0"
"""The version of the REST API, ``/v1``: the second number grows with what is added."""

_API = """Footlights' own API is below `/v1`. NVIDIA's Application Streaming API 2.0.0 is below `/stream`, as published.

Answers are open: later releases add members, and values of enums. Requests are closed: a member or a parameter that is
not known is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What the process needs of a control plane."""

    app: ASGIApp
    """All of HTTP that clients use."""
    admin: ASGIApp
    """What the admin listener serves, if there is one."""
    listening: Mapping[str, Sequence[str]]
    """The services of each gRPC listener, by the setting that has its address."""
    registry: Registry
    pipeline: Pipeline
    local: LocalCalls
    """Calls without a socket: the gateway's, and those of tests."""
    readiness: Readiness
    supervisor: Supervisor
    placing: PlacementLoop
    reaping: ExpiryLoop
    sender: AssignmentSender
    replicas: Membership
    peers: Peers
    notifications: NotificationRelay | None
    """None where there can be no other replica."""
    front_door: FrontDoor | None
    signals: Signals
    guard: MassLossGuard
    metrics: Metrics
    agents: AgentService
    redirect: Callable[[], Sequence[str]]
    """Which addresses agents may dial instead of this one."""
    certificate: Path | None
    """The one that is served with, watched for renewal."""
    keys: KeyRotation
    identities: NodeIdentities
    issuer: Issuer
    """Of the certificates of nodes, and of what this process serves with."""
    publishing: CaConfigMap | None
    """None where there is no ConfigMap for the authorities."""

    def grpc_handlers(self, setting: str = "grpc_listen") -> list[grpc.GenericRpcHandler]:
        """Return what the gRPC listener of a setting serves."""
        deprecated = partial(self.metrics.deprecated, GRPC)
        refused = refused_by_setting(self.listening, setting)
        return grpc_handlers(self.registry, self.pipeline, deprecated, refused=refused)

    async def loops(self) -> None:
        """Run the background loops until cancelled; each finds out whether it leads among the replicas."""
        async with asyncio.TaskGroup() as group:
            for name, loop in (
                ("placing", self.placing.run),
                ("reaping", self.reaping.run),
                ("assignments", self.sender.run),
                ("membership", self.replicas.run),
                ("peers", self.peers.run),
                ("cluster_key", self.keys.run),
                ("identities", self.identities.run),
                ("loop_lag", partial(loop_lag.watch, self.metrics.lagged, supervisor=self.supervisor)),
            ):
                group.create_task(loop(), name=name)
            if self.publishing is not None:
                group.create_task(self.publishing.run(self.supervisor), name="kubernetes_ca")
            if self.certificate is not None:
                watch = certificates.watch(self.certificate, self.metrics, supervisor=self.supervisor)
                group.create_task(watch, name="certificate")
            if self.front_door is not None:
                viewers = self.supervisor.supervise("viewers", self.front_door.end_removed, every_s=1.0)
                group.create_task(viewers, name="viewers")
            if self.notifications is not None:
                group.create_task(self.notifications.run(), name="notifications")

    def stop(self) -> None:
        """Turn readiness, refuse new calls and end running streams; unary calls go on. Agents are told where to go."""
        self.readiness.stop()
        self.agents.stop(self.redirect())
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
    wall: Callable[[], datetime] = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    decision_wait_s: float = 0.25,
    certificate: ServerCertificate | None = None,
    kubernetes: Kubernetes | None = None,
    patience: Patience | None = None,
) -> Plane:
    """Put a control plane together on an open store; ``public_url`` is the origin that browsers see.

    ``replica`` is this replica's id, the same after a restart; empty for a new one. ``decision_wait_s`` is how long the
    answer to a creation waits for the first scheduling decision. ``certificate`` is what this process has of
    the control plane's own authority. ``kubernetes`` is the cluster whose pods may enroll.
    ``patience`` is how long portals are kept waiting.

    Raises FailedPrecondition where the database belongs to another cluster key.
    """
    clock = DatabaseClock(wall, monotonic)
    clock.read(await store.read(database_time.of_the_server))
    newest = await store.read(database_time.newest)
    cautious = CautiousClock(clock, monotonic, newest=newest, file=settings.data_dir / "clock")
    cluster, digests, issuer = await _open_database(settings, store, key, certificate, now=clock())
    proofs = partial(replica_proofs, key.keys("replicas"))

    # What all rooms share.
    signals, links, metrics, box = Signals(), LinkRegistry(monotonic), Metrics(), key.box()
    supervisor = Supervisor(metrics.loop_failed)
    logs, grants = LogStreams(links), Grants(key.keys("grants"))
    store.observe_commits(metrics.committed)
    served = _served(settings, certificate)
    if served is not None:
        metrics.certified(certificates.expiry(served))

    # liveness/ and replication/
    guard = MassLossGuard(MISSED_HEARTBEATS * settings.heartbeat_interval_s, metrics, clock, monotonic)
    replicas = Membership(
        store,
        replica or ids.new_id(),
        settings.roles,
        metrics=metrics,
        clock=clock,
        supervisor=supervisor,
        pause=guard.shown,
        observe_time=clock.read,
        cluster_key=lambda: key.fingerprint,
    )
    peers = Peers(
        store,
        replicas,
        links=links,
        logs=logs,
        proofs=proofs,
        supervisor=supervisor,
        certificate=served,
        mutual=certificate,
    )
    judge = LivenessJudge(
        store,
        signals,
        links,
        membership=replicas,
        guard=guard,
        heartbeat_s=settings.heartbeat_interval_s,
        clock=clock,
        supervisor=supervisor,
        monotonic=monotonic,
    )
    relay = (
        NotificationRelay(store, signals, replica=replicas.me, linked=links, metrics=metrics, supervisor=supervisor)
        if store.shared
        else None
    )

    # scheduling/ and expiry/
    loops = "loops" in settings.roles
    fleet = FleetCache(store, signals, clock, supervisor=supervisor, monotonic=monotonic)
    placing = _placing(
        settings,
        store,
        signals,
        work=LeaderLease("placing", store, replicas, may=loops),
        cache=fleet,
        metrics=metrics,
        box=box,
        clock=clock,
        monotonic=monotonic,
        supervisor=supervisor,
    )
    reaping = ExpiryLoop(
        ExpiryContext(
            store,
            signals,
            LeaderLease("reaping", store, replicas, may=loops),
            metrics,
            cautious,
            monotonic,
            supervisor,
            unwell_nodes,
        ),
        silences=judge,
        brake=guard,
        clock=clock,
        retention_days=settings.retention_days,
    )

    # dispatch/
    sender = AssignmentSender(store, signals, links, box=box, replica=replicas.me, clock=clock, supervisor=supervisor)
    identities = NodeIdentities(
        store, signals, links, issuer=issuer, clock=clock, supervisor=supervisor, tokens=settings.node_tokens
    )
    agents = AgentService(
        store,
        signals,
        links,
        sender=sender,
        recorder=ReportRecorder(store, signals, metrics, clock=clock, supervisor=supervisor),
        duplicates=DuplicateIdentities(
            store,
            links,
            peers,
            heartbeat_s=settings.heartbeat_interval_s,
            abandon_after_s=settings.abandon_after_s,
            clock=clock,
            monotonic=monotonic,
        ),
        logs=logs,
        metrics=metrics,
        welcome=Welcome(
            cluster,
            settings.heartbeat_interval_s,
            settings.abandon_after_s,
            origin.front_door,
        ),
        policy=AgentPolicy(settings.auto_accept, NodeAddresses(settings.node_networks)),
        identities=identities,
        relays=RelayAnswers(
            store,
            relays.of(settings.turn_urls, settings.turn_secret_file, settings.turn_ttl_s),
            settings.ice_servers,
            clock,
        ),
        replica=replicas.me,
        clock=clock,
    )

    # call/ and services/
    authenticator = TokenAuthenticator(store, digests, clock, proofs)
    writes = Writes(store, box, clock)
    terminator = SessionTerminator(writes, signals, clock)
    services = [_service(REPLICA_SERVICE, ReplicaService(links, logs), strict=False)]
    if "hub" in settings.roles:
        enrolling = CertificateService(
            store,
            signals,
            identities,
            issuer=issuer,
            box=box,
            clock=clock,
            node_of_pod=None
            if kubernetes is None
            else partial(kubernetes.node_of, accounts=settings.kubernetes_agents),
        )
        both = (AGENT_SERVICE, agents), (CERTIFICATE_SERVICE, enrolling)
        services += [_service(name, found, strict=False) for name, found in both]
    if "api" in settings.roles:
        sealer = Sealer(key.keys("pages"))
        creator = SessionCreator(
            store,
            signals,
            writes=writes,
            catalog=Catalog(store, signals, monotonic, installation=settings.installation_limits),
            board=fleet,
            placing=placing,
            telling=sender,
            box=box,
            origin=origin,
            settings=settings,
            new_secret=_new_secret(settings, box),
            clock=clock,
            decision_wait_s=decision_wait_s,
            count=metrics.came_to_pool,
        )
        sessions = StreamingService(
            store,
            signals,
            writes=writes,
            creator=creator,
            terminator=terminator,
            connector=SessionConnector(store, grants, settings, public_url, clock),
            follower=SessionFollower(
                store,
                signals,
                Cursors(sealer),
                origin,
                clock=clock,
                monotonic=monotonic,
                most_per_caller=settings.max_watches_per_caller,
            ),
            peers=peers,
            origin=origin,
            sealer=sealer,
            clock=clock,
            settings=settings,
        )
        profiles, applications = (
            ProfileService(store, writes, signals, clock, sealer=sealer, box=box),
            ApplicationService(store, writes, signals, clock, sealer=sealer),
        )
        handlers: tuple[object, ...] = (
            TokenService(store, writes, authenticator, digests, clock, sealer=sealer),
            EnrollmentService(
                store,
                writes,
                signals,
                key=digests,
                box=box,
                clock=clock,
                forget=authenticator.forget_subject,
                authorities=issuer.authorities,
            ),
            NodeService(store, writes, signals, guard, clock, sealer=sealer),
            profiles,
            PoolService(store, writes, signals, clock, settings=settings, box=box, sealer=sealer),
            applications,
            ApplicationStreamingService(sessions),
            sessions,
            ViewerService(
                store, writes, targets.resolver(store, box, NodeAddresses(settings.node_networks)), clock, sealer=sealer
            ),
        )
        services += [_service(name, found) for name, found in zip(REST_SERVICES, handlers, strict=True)]
        services += [
            *_kas(settings, store, sessions, applications, profiles),
            *_nvcf(settings, FunctionService(store, settings, clock)),
        ]
    registry = Registry(services, _elsewhere(settings))
    _show_deprecated(registry, metrics)
    pipeline = Pipeline(CertificateAuthenticator(cluster, authenticator), metrics)
    local = LocalCalls(registry, pipeline)

    # HTTP
    front_door = (
        _front_door(settings, store, grants, key, clock, _open_sessions(settings, terminator, authenticator))
        if "frontdoor" in settings.roles
        else None
    )
    readiness = Readiness(store, supervisor)
    probes = Probes(metrics, readiness, queued=lambda: store.queued)
    app = web(
        probes,
        inspectors=None if settings.admin_listen else Inspectors(authenticator, settings.public_url),
        api=_api(settings, local, links, metrics) if "api" in settings.roles else None,
        front_door=front_door,
        sign_in=None
        if front_door is None or not settings.nvcf
        else SignIn(
            LocalUpstream(local),
            authenticator,
            FunctionService(store, settings, clock),
            front_door,
            cors_origins=settings.cors_origins,
            patience=patience,
        ),
    )
    return Plane(
        app=with_safe_headers(app, tls_only=has_tls(public_url)),
        admin=with_safe_headers(admin(probes), tls_only=False),
        listening=services_by_setting(settings, registry.services),
        registry=registry,
        pipeline=pipeline,
        local=local,
        readiness=readiness,
        supervisor=supervisor,
        placing=placing,
        reaping=reaping,
        sender=sender,
        replicas=replicas,
        peers=peers,
        notifications=relay,
        front_door=front_door,
        signals=signals,
        guard=guard,
        metrics=metrics,
        agents=agents,
        redirect=lambda: replicas.hubs if settings.redirect_agents else (),
        certificate=served,
        keys=KeyRotation(store, key, supervisor),
        identities=identities,
        issuer=issuer,
        publishing=CaConfigMap(kubernetes, settings.kubernetes_ca, issuer.authorities)
        if kubernetes is not None and settings.kubernetes_ca
        else None,
    )


def _no_secret(_launch_id: str) -> None:
    return None


def _new_secret(settings: ServerSettings, box: Box) -> Callable[[str], bytes | None]:
    """Return what makes the secret of a launch: viewers that dial nodes themselves cannot present one."""
    return _no_secret if settings.direct_routes else partial(launch_secrets.seal_new, box)


def _placing(
    settings: ServerSettings,
    store: Store,
    signals: Signals,
    *,
    work: LeaderLease,
    cache: FleetCache,
    metrics: Metrics,
    box: Box,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float],
    supervisor: Supervisor,
) -> PlacementLoop:
    new_secret = _new_secret(settings, box)
    pools = PoolKeeper(
        store,
        signals,
        work=work,
        cache=cache,
        metrics=metrics,
        settings=settings,
        new_secret=new_secret,
        box=box,
        clock=clock,
        monotonic=monotonic,
    )
    return PlacementLoop(
        store=store,
        bus=signals,
        work=work,
        cache=cache,
        metrics=metrics,
        clock=clock,
        supervisor=supervisor,
        new_secret=new_secret,
        pools=pools,
        monotonic=monotonic,
    )


def has_tls(url: str) -> bool:
    """Return whether browsers may be told to use TLS only: not on this machine, where ports of others have the name."""
    return url.startswith("https://") and not is_loopback(urlsplit(url).hostname or "")


def _served(settings: ServerSettings, own: ServerCertificate | None) -> Path | None:
    """Return the file of the certificate that clients are served with; None without TLS."""
    if settings.needs_certificate and own is not None:
        return own.certificate
    return settings.tls_cert


async def _open_database(
    settings: ServerSettings, store: Store, key: ClusterKey, own: ServerCertificate | None, *, now: datetime
) -> tuple[str, bytes, Issuer]:
    """Return the cluster's id, the key of tokens' digests, and what certificates are made with.

    In a new database they are made, and the first token. No node has a link where this is the only process.
    """
    cluster = await store.write(lambda tx: cluster_id(tx, ids.new_id()))
    digests = await token_key(store, key, now=now)
    known = await authorities(store, key.box(), settings, cluster, now=now) if own is None else own.authorities
    await ensure_first(store, digests, settings.data_dir / "admin.token", now=now)
    if not store.shared:
        await store.write(node_rows.disconnect_all)
    return cluster, digests, Issuer(known, cluster, settings.certificate_ttl_s)


def _service(name: str, handlers: object, *, strict: bool = True, anonymous: Caller | None = None) -> Service:
    descriptor = descriptor_pool.Default().FindServiceByName(name)
    return Service(descriptor, handlers, strict=strict, former_name=former.NAMES.get(name, ""), anonymous=anonymous)


def _elsewhere(settings: ServerSettings) -> dict[str, str]:
    """Return the role that serves each service which this process does not."""
    found = {name: role for name, role in _ROLES.items() if role not in settings.roles}
    return found | {former.NAMES[name]: role for name, role in found.items() if name in former.NAMES}


def _show_deprecated(registry: Registry, metrics: Metrics) -> None:
    """Have the calls of deprecated RPCs counted from zero."""
    for rpc in registry.rpcs.values():
        if rpc.deprecated:
            metrics.deprecated(GRPC, rpc.path, 0)


def _kas(
    settings: ServerSettings,
    store: Store,
    sessions: StreamingService,
    applications: ApplicationService,
    profiles: ProfileService,
) -> list[Service]:
    """Return the services of Kit App Streaming that are switched on."""
    if not settings.kas:
        return []
    streams, config, edit = KAS_SERVICES
    anonymous = Caller(settings.kas_user, Role.DEVELOPER, "") if settings.kas_user else None
    found = [
        _service(streams, StreamSessionService(store, sessions, settings.installation_limits), anonymous=anonymous),
        _service(config, AppConfigService(applications, profiles), anonymous=anonymous),
    ]
    return [*found, _service(edit, AppEditService(applications))] if settings.kas_edit else found


def _nvcf(settings: ServerSettings, functions: FunctionService) -> list[Service]:
    """Return the services of NVIDIA Cloud Functions, if they are switched on."""
    return [_service(name, functions) for name in NVCF_SERVICES] if settings.nvcf else []


def openapi_document(public_url: str = "") -> dict[str, Any]:
    """Return the OpenAPI document of all that is served over HTTP, with the comments of the protos."""
    info = Info(
        title="Footlights",
        version=API_VERSION,
        description=_API,
        servers=(public_url, "/") if public_url else ("/",),
        bearer=True,
        extensions={"x-footlights-version": __version__},
    )
    descriptor_set = resources.files("footlights.v1").joinpath("footlights.binpb")
    return document(
        REST_SERVICES,
        GATEWAY_OPTIONS,
        info,
        descriptor_set=descriptor_set.read_bytes(),
        fragments=(front_door_openapi.fragment(), OPENAPI),
    )


def _api(settings: ServerSettings, local: LocalCalls, links: LinkRegistry, metrics: Metrics) -> Api:
    pacing = Pacing(lambda: len(links), lambda: links.messages, most_waiting=settings.max_concurrent_calls)
    options = replace(
        GATEWAY_OPTIONS,
        pace=pacing,
        cors_origins=settings.cors_origins,
        max_concurrent_calls=settings.max_concurrent_calls,
    )
    gateway = Gateway(
        LocalUpstream(local),
        REST_SERVICES,
        options,
        on_overload=partial(metrics.shed, "CALLS"),
        on_deprecated=metrics.deprecated,
    )
    for binding in gateway.bindings:
        if binding.deprecation is not None:
            metrics.deprecated(binding.http_method, binding.template.text, 0)
    public = urlsplit(settings.public_url)

    def others(services: Sequence[str], dialect: Options) -> Gateway:
        return Gateway(LocalUpstream(local), services, dialect, on_overload=partial(metrics.shed, "CALLS"))

    kas = KAS_SERVICES if settings.kas_edit else KAS_SERVICES[:-1]
    return Api(
        gateway,
        console(
            connect_sources=[f"{public.scheme}://{public.netloc}"] if public.netloc else [],
            kit_library=kit_library.read(settings.kit_library) if settings.kit_library else None,
        ),
        _documents(settings.public_url.rstrip("/")),
        kas=for_pages_of(settings.cors_origins, others(kas, replace(options, detail_errors=True)))
        if settings.kas
        else None,
        nvcf=others(NVCF_SERVICES, replace(options, use_proto_names=False)) if settings.nvcf else None,
        kas_paths=KasPaths(settings.kas_prefix),
    )


@cache
def _documents(public_url: str) -> list[Route]:
    """Return the routes of the documents, which take longer to make than all else of a server: once in a process."""
    return docs.routes(openapi_document(public_url))


def _front_door(
    settings: ServerSettings,
    store: Store,
    grants: Grants,
    key: ClusterKey,
    now: Callable[[], datetime],
    open_sessions: OpenSessions | None,
) -> FrontDoor:
    return FrontDoor(
        targets.resolver(store, key.box(), NodeAddresses(settings.node_networks)),
        grants,
        targets.StoredViewers(store, now),
        keys=key.keys("frontdoor"),
        allow_origin="*" if "*" in settings.cors_origins else settings.cors_origins,
        now=now,
        open_sessions=open_sessions,
    )


def _open_sessions(
    settings: ServerSettings, terminator: SessionTerminator, authenticator: TokenAuthenticator
) -> OpenSessions | None:
    """Return which sessions the clients of Kit App Streaming see without a grant: they ask for none."""
    if not settings.kas:
        return None

    async def end(session_id: str, owner: str) -> None:
        caller = Caller(owner, Role.DEVELOPER, "")
        call = Call("/footlights.v1.StreamingService/TerminateSession", (), caller=caller)
        await terminator.terminate(session_pb2.TerminateSessionRequest(session_id=session_id), call)

    async def holder(token: str, permission: str) -> str:
        caller = await authenticator.caller(f"Bearer {token}")
        caller.require(permission)
        return caller.subject

    return OpenSessions(settings.kas_user, end, holder)
