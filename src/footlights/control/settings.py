"""What a control plane can be told, in one frozen record that is passed down by constructor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from footlights.errors import InvalidArgument
from footlights.ids import is_loopback

ROLES = ("api", "frontdoor", "hub", "loops")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """A control plane's settings.

    Raises:
        InvalidArgument: a setting cannot be; ``field`` names it as the command line does.
    """

    data_dir: Path
    """Its own directory: database, cluster key, first token."""
    grpc_listen: str = "127.0.0.1:50051"
    """Where gRPC listens, ``HOST:PORT``; port 0 takes a free one."""
    http_listen: str = "127.0.0.1:8080"
    """Where REST, the front door and the console listen, ``HOST:PORT``; port 0 takes a free one."""
    database: str = ""
    """Empty for SQLite in the data directory, or ``postgresql://USER@HOST/NAME``."""
    roles: tuple[str, ...] = ROLES
    """What this process does, of several on one Postgres: ``api`` (gRPC, REST, console), ``frontdoor`` (viewers'
    signalling), ``hub`` (agents' links), ``loops`` (placing, reaping). Repeat, or separate by commas."""
    peer_address: str = ""
    """Where other replicas reach this one's gRPC, ``HOST:PORT``; empty: that of ``grpc_listen``, unless it is every
    address of this machine."""
    public_url: str = ""
    """The origin that browsers see, ``https://streams.example.com``; empty: that of ``http_listen``."""
    insecure: bool = False
    """Whether it may listen beyond loopback without TLS."""
    tls_cert: Path | None = None
    """The certificate chain (PEM) for gRPC and HTTP."""
    tls_key: Path | None = None
    """Its key (PEM)."""
    direct_routes: bool = False
    """Whether a session's routes name the node for signalling too, for clients that dial nodes."""
    cors_origins: tuple[str, ...] = ("*",)
    """The origins whose pages may call. No cookie ever authorises, so all may by default."""
    heartbeat_interval_s: float = 5.0
    """How often agents say that they are alive; three missed make a node UNREACHABLE."""
    abandon_after_s: float = 1800.0
    """How long an agent keeps unwatched sessions without a link."""
    queue_limit: int = 1000
    """How many sessions may wait for a device."""
    max_concurrent_calls: int = 2000
    """How many calls may be under way at once; more are shed with 503."""
    retention_days: int = 30
    """How long ended sessions are kept."""
    grant_ttl_s: float = 300.0
    """How long a viewer's grant opens new connections."""
    ice_servers: tuple[str, ...] = ()
    """``stun:`` or ``turn:`` URLs that viewers are given."""
    turn_urls: tuple[str, ...] = ()
    """``turn:`` or ``turns:`` URLs of a relay that knows ``turn_secret_file``; each viewer has its own password."""
    turn_secret_file: Path | None = None
    """The secret that is shared with the relay (coturn: static-auth-secret)."""
    turn_ttl_s: float = 86400.0
    """How long a viewer's password for the relay is good; longer than a session may last."""
    log_format: str = "console"
    """``console`` or ``json``."""
    log_level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching anything."""
        self._check_roles()
        for name, value in (("grpc_listen", self.grpc_listen), ("http_listen", self.http_listen)):
            host, _ = split_address(name, value)
            if not self.insecure and self.tls_cert is None and not is_loopback(host):
                raise InvalidArgument(
                    name,
                    f"{value!r} listens beyond this machine without TLS, and tokens would travel in the clear. "
                    "Give --tls-cert and --tls-key, or say --insecure where something in front ends TLS.",
                )
        if self.peer_address:
            split_address("peer_address", self.peer_address)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidArgument("tls_key", "a certificate and its key go together. Give both or neither.")
        for name, number in (
            ("heartbeat_interval_s", self.heartbeat_interval_s),
            ("abandon_after_s", self.abandon_after_s),
            ("queue_limit", self.queue_limit),
            ("max_concurrent_calls", self.max_concurrent_calls),
            ("retention_days", self.retention_days),
            ("grant_ttl_s", self.grant_ttl_s),
            ("turn_ttl_s", self.turn_ttl_s),
        ):
            if not number > 0:
                raise InvalidArgument(name, f"{number!r} is not above 0.")
        for url in self.turn_urls:
            if not url.startswith(("turn:", "turns:")):
                raise InvalidArgument("turn_urls", f"{url!r} must start with turn: or turns:, as in turn:HOST:3478.")
        if bool(self.turn_urls) != (self.turn_secret_file is not None):
            raise InvalidArgument("turn_secret_file", "a relay's URLs and secret go together. Give both or neither.")
        if self.log_format not in ("console", "json"):
            raise InvalidArgument("log_format", f"{self.log_format!r} is neither 'console' nor 'json'.")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidArgument("log_level", f"{self.log_level!r} is none of debug, info, warning, error.")
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise InvalidArgument("public_url", f"{self.public_url!r} must start with http:// or https://.")

    def reached_at(self, port: int) -> str:
        """Return where other replicas reach its gRPC, that listens on ``port``; empty where nobody can tell."""
        if self.peer_address:
            return self.peer_address
        host, _ = split_address("grpc_listen", self.grpc_listen)
        if host in ("0.0.0.0", "::"):  # noqa: S104  # whoever dials it reaches itself
            return ""
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _check_roles(self) -> None:
        roles = tuple(part.strip() for given in self.roles for part in given.split(","))
        object.__setattr__(self, "roles", roles)
        for role in roles:
            if role not in ROLES:
                raise InvalidArgument("roles", f"{role!r} is no role. Give some of {', '.join(ROLES)}.")
        if not self.database and set(roles) != set(ROLES):
            raise InvalidArgument(
                "roles",
                f"{','.join(roles)} leaves the rest to other processes, and SQLite can be used by one only. Leave it "
                "out, or give --database postgresql://….",
            )
        if self.peer_address:
            split_address("peer_address", self.peer_address)


def split_address(field: str, text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``; IPv6 hosts stand in brackets. Raises InvalidArgument that names ``field``."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(field, f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080.")
    return host, int(port)
