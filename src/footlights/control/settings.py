"""The settings of a control plane process: one frozen record, checked when it is made.

Each field is an option of ``footlights server``; its docstring is the option's help.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from footlights.auth.grants import MAX_TTL_S
from footlights.errors import InvalidArgument
from footlights.ids import is_loopback
from footlights.protocol.isolation import Isolation

if TYPE_CHECKING:
    from footlights.launch.recipe.limits import InstallationLimits

ISOLATIONS = {level.name.lower(): level for level in Isolation}
ROLES = ("api", "frontdoor", "hub", "loops")

_ACCOUNT = re.compile(r"[a-z0-9-]{1,63}:[a-z0-9.-]{1,253}")
_UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_FUNCTION = re.compile(
    f"(?P<function_id>{_UUID})(?:/(?P<version_id>{_UUID}))?"
    "=(?P<application>[a-z0-9-]{1,63})(?:@(?P<version>[^:@/]{1,128}))?(?::(?P<profile>[a-z0-9-]{1,63}))?"
)
_OPTIONAL_LISTENERS = ("agents_listen", "peers_listen", "admin_listen")
_LISTENERS = ("grpc_listen", "http_listen", *_OPTIONAL_LISTENERS)
_DAY_S = 86_400.0
_BOUNDS: dict[str, tuple[float, float, str]] = {
    "heartbeat_interval_s": (0.1, 300.0, "three missed heartbeats make a node UNREACHABLE"),
    "abandon_after_s": (1.0, 366 * _DAY_S, "it is a time span"),
    "queue_limit": (1, 100_000, "placement reads the whole queue, which takes seconds beyond that"),
    "max_concurrent_calls": (1, 10_000, "no more writes than that may wait for the disk"),
    "max_connections": (1, 1_000_000, "each takes a file descriptor and memory"),
    "max_connections_per_ip": (0, 1_000_000, "0 is no bound of its own"),
    "max_connection_streams": (1, 100_000, "each takes memory"),
    "max_watches_per_caller": (1, 1_000_000, "each keeps the ids of the sessions that its client has"),
    "retention_days": (1, 3650, "history is kept in the database"),
    "grant_ttl_s": (1.0, MAX_TTL_S, "a grant cannot be revoked"),
    "certificate_ttl_s": (60.0, 366 * _DAY_S, "an agent renews it over its link"),
    "turn_ttl_s": (1.0, 366 * _DAY_S, "a password for the relay cannot be revoked"),
    "max_connection_age_s": (1.0, 20 * _DAY_S, "opening connections costs both sides"),
    "stop_delay_s": (0.0, 300.0, "a server that stops would seem to hang"),
}
"""Setting -> least, most, and why it is bounded."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """A control plane's settings.

    Raises InvalidArgument where a setting is out of bounds or contradicts another; ``field`` names it as the command
    line does.
    """

    data_dir: Path
    """Its own directory: database, cluster key, first token."""
    grpc_listen: str = "127.0.0.1:50051"
    """Where gRPC listens, ``HOST:PORT``; port 0 takes a free one."""
    http_listen: str = "127.0.0.1:8080"
    """Where REST, the front door and the console listen, ``HOST:PORT``; port 0 takes a free one."""
    agents_listen: str = ""
    """Where enrolled agents open their links, with their certificates, ``HOST:PORT``; empty: agents have tokens, and
    link where gRPC listens."""
    peers_listen: str = ""
    """Where other replicas call, with their certificates, ``HOST:PORT``; empty: where gRPC listens."""
    admin_listen: str = ""
    """Where metrics, health with its reasons, the API's descriptors and gRPC's reflection are served, to any client,
    ``HOST:PORT``; empty: on the other listeners, metrics and reasons only to clients on this machine and operators."""
    database: str = ""
    """Empty for SQLite in the data directory, or ``postgresql://USER@HOST/NAME``."""
    roles: tuple[str, ...] = ROLES
    """What this process does, of several on one Postgres: ``api`` (gRPC, REST, console), ``frontdoor`` (viewers'
    signalling), ``hub`` (agents' links), ``loops`` (placement, expiry). Repeat, or separate by commas."""
    peer_address: str = ""
    """Where other replicas reach this one, ``HOST:PORT``; empty: where it listens for them, unless that is every
    address of this machine."""
    redirect_agents: bool = False
    """Whether a server that stops sends its agents to the other replicas' peer addresses: only where agents reach
    these, so not with ``agents_listen``."""
    public_url: str = ""
    """The origin that browsers see, ``https://streams.example.com``; empty: that of ``http_listen``."""
    insecure: bool = False
    """Whether it listens for clients beyond loopback without TLS: only where something in front ends TLS."""
    tls_cert: Path | None = None
    """The certificate chain (PEM) for gRPC and HTTP; by default, beyond loopback, one of the control plane's own
    authority, whose certificate is ca.pem in the data directory."""
    tls_key: Path | None = None
    """The private key of the certificate (PEM)."""
    tls_names: tuple[str, ...] = ()
    """More names and addresses at which clients reach this process, for the certificate that it makes for itself."""
    ca_cert: Path | None = None
    """The certificate of an authority of yours that signs those of nodes and servers, with those above it (PEM); by
    default the control plane has its own authority."""
    ca_key: Path | None = None
    """The private key of ``ca_cert`` (PEM)."""
    node_tokens: bool = True
    """Whether agents may prove themselves by tokens from other machines, where gRPC listens; the next release takes
    only certificates."""
    agents_address: str = ""
    """Where agents reach ``agents_listen``, ``HOST:PORT``; empty: its port, at the host that they were given."""
    certificate_ttl_s: float = 604_800.0
    """How long the certificate of a node is valid; its agent renews it over the link when two thirds are over."""
    kubernetes_agents: tuple[str, ...] = ()
    """The service accounts, ``NAMESPACE:NAME``, whose pods may enroll as the node that they run on, where the server
    runs in the same Kubernetes cluster. Repeat, or separate by commas."""
    kubernetes_ca: str = ""
    """The ConfigMap of the server's namespace in which it keeps its authorities, as ``ca.crt``, for agents' pods."""
    direct_routes: bool = False
    """Whether viewers dial applications on nodes themselves: a session's routes name the node for signalling too, and
    its port there is open to all who reach it."""
    node_signaling: bool = True
    """Whether nodes take viewers' signalling too and pass it on to this server at ``public_url``, so that a session's
    routes have one host where the server's is not the node's."""
    kas: bool = False
    """Whether clients of NVIDIA's Kit App Streaming are served: ``/streaming/stream`` and ``/cfg/apps``, also below
    ``/applications``."""
    kas_user: str = ""
    """As whom clients of Kit App Streaming call that send no token, as its web viewer never does: all their sessions
    are this user's, each of them sees and ends all, and their ids open ``/sign_in`` for viewers. Empty: a token is
    needed, and a grant."""
    kas_prefix: str = ""
    """A path below which Kit App Streaming is served too, such as ``/ovas``."""
    kas_edit: bool = False
    """Whether its clients with an operator's token may also edit applications and versions."""
    kit_library: Path | None = None
    """The directory of NVIDIA's streaming library, @nvidia/omniverse-webrtc-streaming-library as npm unpacks it: with
    it the console plays sessions of applications that speak NVIDIA's signalling."""
    nvcf: bool = False
    """Whether portals that were written for NVIDIA Cloud Functions are served: ``/v2/nvcf`` and the sessions of
    ``/sign_in``, with a token of ours as their key."""
    nvcf_functions: tuple[str, ...] = ()
    """Ids of functions that portals know already, for applications here: ``ID=APPLICATION``, or
    ``ID/VERSION_ID=APPLICATION@VERSION``, both also with ``:PROFILE``. Every application and version has ids of its own
    beside these. Repeat, or separate by commas."""
    cors_origins: tuple[str, ...] = ("*",)
    """The origins whose pages may call. No cookie ever authorises, so all may by default."""
    heartbeat_interval_s: float = 5.0
    """How often each agent sends a heartbeat; three missed make a node UNREACHABLE."""
    abandon_after_s: float = 1800.0
    """How long an agent keeps sessions without viewers while it has no link."""
    auto_accept: bool = False
    """Whether new nodes, and nodes whose hardware has changed, take sessions before ``footlights nodes accept``: for
    labs."""
    node_networks: tuple[str, ...] = ()
    """The networks of nodes, ``10.20.0.0/16``, whose addresses are neither public nor the ones that their agents link
    from, as behind a proxy: elsewhere no node is dialled. Repeat, or separate by commas."""
    queue_limit: int = 2000
    """How many sessions may wait for a device, at most 100,000. One caller alone may have half of them waiting, and
    some stay for others however many callers there are."""
    min_isolation: str = "process"
    """How far sessions must be separated from everything else on their node, at least, except those of operators:
    ``none``, ``process`` or ``container``."""
    limit_defaults: tuple[str, ...] = ()
    """Limits of sessions whose version and profile set none, ``idle_timeout=30m``; by default start_timeout=15m,
    stop_grace_period=10s, queue_timeout=30m and no other. Repeat, or separate by commas."""
    limit_caps: tuple[str, ...] = ()
    """The most that the limits of new sessions may be, ``max_duration=12h``, whatever their version and profile say; a
    session names those that were lowered in ``limits.capped``. Repeat, or separate by commas."""
    max_concurrent_calls: int = 2000
    """How many calls may be in progress at once, at most 10,000; more are answered with 503."""
    max_connections: int = 10_000
    """How many connections a listener may have open at once; more are closed, over HTTP with 503."""
    max_connections_per_ip: int = 1000
    """How many of them one address may have, of IPv6 one network of 64 bits; 0: as many as in all, as behind a proxy,
    which has one address."""
    max_connection_streams: int = 1000
    """How many gRPC calls one connection may have open at once, watches included; a client waits with more."""
    max_watches_per_caller: int = 1000
    """How many watches of sessions one caller may have open at one server; more are answered with 429."""
    retention_days: int = 30
    """How long ended sessions are kept."""
    grant_ttl_s: float = 300.0
    """How long a viewer's grant opens a first connection; one that was used opens others until its session ends."""
    ice_servers: tuple[str, ...] = ()
    """``stun:`` or ``turn:`` URLs that viewers are given."""
    turn_urls: tuple[str, ...] = ()
    """``turn:`` or ``turns:`` URLs of a relay that shares ``turn_secret_file``; each viewer has its own password."""
    turn_secret_file: Path | None = None
    """The secret that is shared with the relay (coturn: static-auth-secret)."""
    turn_ttl_s: float = 86400.0
    """How long a viewer's password for the relay is valid; longer than a session may last."""
    max_connection_age_s: float = 1800.0
    """The age at which a gRPC client is told to open another connection, so that load spreads again after an upgrade;
    calls under way, links and watches continue on the old one."""
    stop_delay_s: float = 0.0
    """How long a server that stops goes on serving once it says that it is not ready, for load balancers to notice."""
    log_format: str = "console"
    """``console`` or ``json``."""
    log_level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching anything."""
        self.installation_limits  # noqa: B018 - it checks them
        self._check_roles()
        self._check_networks()
        self._check_kubernetes()
        self._check_listeners()
        for name, (least, most, why) in _BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidArgument(name, f"must be from {least:g} to {most:g} (got {value:g}): {why}.")
        self._check_relay()
        _check_choice("min_isolation", self.min_isolation, tuple(ISOLATIONS))
        _check_choice("log_format", self.log_format, ("console", "json"))
        _check_choice("log_level", self.log_level, ("debug", "info", "warning", "error"))
        if self.kas_prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", self.kas_prefix):
            raise InvalidArgument("kas_prefix", f"must be a path such as /ovas (got {self.kas_prefix!r}).")
        for name in ("kas_user", "kas_prefix", "kas_edit"):
            if getattr(self, name) and not self.kas:
                raise InvalidArgument(name, "is only for --kas. Give both, or none.")
        self._check_nvcf()
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise InvalidArgument("public_url", f"must start with http:// or https:// (got {self.public_url!r}).")

    @property
    def given_functions(self) -> list[GivenFunction]:
        """What ``nvcf_functions`` says."""
        return [_given_function(text) for text in self.nvcf_functions]

    @property
    def installation_limits(self) -> InstallationLimits:
        """What ``limit_defaults`` and ``limit_caps`` say."""
        from footlights.launch.recipe.limits import InstallationLimits  # help is shown without protobuf

        return InstallationLimits.parse(self.limit_defaults, self.limit_caps)

    @property
    def least_isolation(self) -> Isolation:
        """What ``min_isolation`` names."""
        return ISOLATIONS[self.min_isolation]

    @property
    def needs_certificate(self) -> bool:
        """Whether a listener for clients leaves this machine, and must have a certificate that nobody gave."""
        if self.insecure or self.tls_cert is not None:
            return False
        addresses = (self.grpc_listen, self.http_listen, self.admin_listen)
        return not all(is_loopback(split_address("", each)[0]) for each in addresses if each)

    def is_mutual(self, setting: str) -> bool:
        """Return whether the callers of a listener, by its setting, prove themselves by certificates."""
        return setting in ("agents_listen", "peers_listen") and bool(getattr(self, setting))

    def reached_at(self, port: int) -> str:
        """Return where other replicas reach the one that listens for them on ``port``; empty if that is not known."""
        if self.peer_address:
            return self.peer_address
        host, _ = split_address("peers_listen", self.peers_listen or self.grpc_listen)
        if host in ("0.0.0.0", "::"):  # noqa: S104  # another machine that dials it reaches itself
            return ""
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _check_nvcf(self) -> None:
        object.__setattr__(self, "nvcf_functions", _listed(self.nvcf_functions))
        if self.nvcf_functions and not self.nvcf:
            raise InvalidArgument("nvcf_functions", "is only for --nvcf. Give both, or none.")
        if self.nvcf and not {"api", "frontdoor"} <= set(self.roles):
            raise InvalidArgument("nvcf", "needs the roles api and frontdoor in one process, which share its path.")
        taken: dict[tuple[str, str], str] = {}
        for text, given in zip(self.nvcf_functions, self.given_functions, strict=True):
            ids = given.function_id, given.version_id
            if taken.setdefault(ids, text) is not text:
                raise InvalidArgument("nvcf_functions", f"{text!r} has the ids of {taken[ids]!r}. Give each once.")

    def _check_networks(self) -> None:
        networks = _listed(self.node_networks)
        object.__setattr__(self, "node_networks", networks)
        for network in networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                problem = f"must be a network, as in 10.20.0.0/16 (got {network!r})."
                raise InvalidArgument("node_networks", problem) from None

    def _check_kubernetes(self) -> None:
        accounts = _listed(self.kubernetes_agents)
        object.__setattr__(self, "kubernetes_agents", accounts)
        for account in accounts:
            if not _ACCOUNT.fullmatch(account):
                problem = f"must be NAMESPACE:NAME, as in footlights:footlights-agent (got {account!r})."
                raise InvalidArgument("kubernetes_agents", problem)
        if accounts and not self.agents_listen:
            problem = "needs a listener on which agents prove themselves by certificates. Give --agents-listen."
            raise InvalidArgument("kubernetes_agents", problem)

    def _check_roles(self) -> None:
        roles = tuple(part.strip() for given in self.roles for part in given.split(","))
        object.__setattr__(self, "roles", roles)
        for role in roles:
            _check_choice("roles", role, ROLES)
        if not self.database and set(roles) != set(ROLES):
            raise InvalidArgument(
                "roles",
                f"{','.join(roles)} leaves the rest to other processes, but only one process can use SQLite. "
                "Leave the option out, or give --database postgresql://….",
            )

    def _check_listeners(self) -> None:
        taken: dict[str, str] = {}
        for name in _LISTENERS:
            value: str = getattr(self, name)
            if not value and name in _OPTIONAL_LISTENERS:
                continue
            _, port = split_address(name, value)
            if port and taken.setdefault(value, name) != name:
                option = taken[value].replace("_", "-")
                raise InvalidArgument(name, f"{value!r} is also that of --{option}. Choose another port.")
        if self.peer_address:
            split_address("peer_address", self.peer_address)
        if self.redirect_agents and self.agents_listen:
            raise InvalidArgument(
                "redirect_agents",
                "agents cannot link at the peer addresses where they have a listener of their own. Leave it out, and "
                "give agents the addresses of all replicas.",
            )
        if self.agents_address:
            split_address("agents_address", self.agents_address)
        if (self.ca_cert is None) != (self.ca_key is None):
            raise InvalidArgument("ca_key", "an authority needs its certificate and its key. Give both or neither.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidArgument("tls_key", "a certificate needs its key. Give both or neither.")

    def _check_relay(self) -> None:
        for url in self.turn_urls:
            if not url.startswith(("turn:", "turns:")):
                raise InvalidArgument(
                    "turn_urls", f"must start with turn: or turns:, as in turn:HOST:3478 (got {url!r})."
                )
        if bool(self.turn_urls) != (self.turn_secret_file is not None):
            raise InvalidArgument("turn_secret_file", "a relay needs its URLs and its secret. Give both or neither.")


@dataclass(frozen=True, slots=True)
class GivenFunction:
    """A function's id, or that of one version of it, that an operator has chosen for an application."""

    function_id: str
    version_id: str
    """Empty: the function has all versions of the application, under their own ids."""
    application: str
    version: str
    """A version or a release; empty with ``version_id``: that of the release ``default``, else the newest."""
    profile: str


def split_address(field: str, text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``; IPv6 hosts stand in brackets. Raises InvalidArgument that names ``field``."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(field, f"must be HOST:PORT, as in 127.0.0.1:8080 (got {text!r}).")
    return host, int(port)


def _given_function(text: str) -> GivenFunction:
    found = _FUNCTION.fullmatch(text)
    parts = {name: part or "" for name, part in found.groupdict().items()} if found else {}
    if not parts or (parts["version"] and not parts["version_id"]):
        problem = f"must be ID=APPLICATION or ID/VERSION_ID=APPLICATION@VERSION, the ids UUIDs (got {text!r})."
        raise InvalidArgument("nvcf_functions", problem)
    return GivenFunction(
        **{**parts, "function_id": parts["function_id"].lower(), "version_id": parts["version_id"].lower()}
    )


def _listed(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of an option that may be repeated, or separate them by commas."""
    return tuple(part.strip() for each in given for part in each.split(",") if part.strip())


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidArgument(field, f"unknown value {value!r}; choose from {', '.join(choices)}.")
