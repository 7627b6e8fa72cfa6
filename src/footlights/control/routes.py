"""How a session's application is reached: by which host and ports, and why one host alone does not do.

NVIDIA's clients take one host for signalling and for media, and dial ``/sign_in`` there. Media is always the node's.
Signalling is the front door's, which is at the same host on one machine; elsewhere the node takes it too, at its
session's port or at one port for all, and passes it on to the front door, which checks who comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from footlights.ids import is_loopback

if TYPE_CHECKING:
    from footlights.control.settings import ServerSettings
    from footlights.store.schema import LaunchRow
    from footlights.v1 import application_pb2, node_pb2, session_pb2

_TLS_PORT: Final = 443
"""The only port at which NVIDIA's players use TLS without being told to."""
_EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with
"""The hosts of a URL that is where a server listens, and no address of it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where viewers reach this control plane, and whether they connect to nodes directly."""

    host: str
    port: int
    direct_routes: bool = False
    """Whether viewers dial applications themselves, whose signalling ports are then open to all."""
    tls: bool = False
    front_door: str = ""
    """Where nodes pass viewers' signalling on to; empty: they do not."""

    @classmethod
    def of(cls, public_url: str, settings: ServerSettings) -> Origin:
        """Return the one of a URL."""
        url = urlsplit(public_url)
        tls = url.scheme == "https"
        host, port = url.hostname or "", url.port or (_TLS_PORT if tls else 80)
        passed = settings.node_signaling and not settings.direct_routes and host not in _EVERYWHERE
        return cls(host, port, settings.direct_routes, tls=tls, front_door=public_url if passed else "")

    def is_reached_by(self, node: str) -> bool:
        """Whether the node with this address passes viewers on: one at a loopback address means its own machine."""
        return bool(self.front_door) and (not is_loopback(self.host) or is_loopback(node))


@dataclass(frozen=True, slots=True)
class _Entrance:
    """Where viewers' signalling goes."""

    host: str
    port: int
    tls: bool = False
    note: str = ""
    """Why it is not at the node; empty where it is."""


def add_routes(
    message: session_pb2.Session,
    launch: LaunchRow,
    signaling: application_pb2.Signaling,
    facts: node_pb2.NodeFacts,
    origin: Origin,
) -> None:
    """Add the routes of a running launch to its session, by one host where there is one, and else the reason."""
    node = facts.public_address
    entrance = _entrance(launch, signaling, facts, origin)
    for description, protocol, host, source, destination in (
        ("signaling", "TCP", entrance.host, entrance.port, launch.signal_port),
        ("media", "UDP", node, launch.media_port, launch.media_port),
    ):
        message.routes[host].routes.add(
            description=description, protocol=protocol, source_port=source, destination_port=destination
        )
    message.routes_message = entrance.note or _note(entrance, signaling)


def _entrance(
    launch: LaunchRow, signaling: application_pb2.Signaling, facts: node_pb2.NodeFacts, origin: Origin
) -> _Entrance:
    node = facts.public_address
    if origin.direct_routes:
        return _Entrance(node, launch.signal_port)
    if _spelling(origin.host) == _spelling(node):
        return _Entrance(node, origin.port, origin.tls)
    offered = facts.entrance
    # What is encrypted on the way to the front door must be so on the way to the node.
    if signaling.websocket_path and origin.is_reached_by(node) and (offered.tls or not origin.tls):
        if offered.port:
            return _Entrance(node, offered.port, offered.tls)
        if offered.session_ports and launch.secret and not signaling.checks_secret:
            return _Entrance(node, launch.signal_port)
    return _Entrance(origin.host, origin.port, origin.tls, _why_not(launch.node, signaling, facts, origin))


def _why_not(node: str, signaling: application_pb2.Signaling, facts: node_pb2.NodeFacts, origin: Origin) -> str:
    """Why a node does not take viewers' signalling, and what to do."""
    where = f"Media is at {facts.public_address} and signalling at {origin.host}, where NVIDIA's clients take one host"
    listen = f"start the agent of node {node} with --signaling-listen"
    if not signaling.websocket_path:
        return f"{where}: the application has no signaling.websocket_path that its node could take viewers at."
    if origin.host in _EVERYWHERE or is_loopback(origin.host):
        return f"{where}: the server's address is not known to others. Start it with --public-url."
    if not origin.front_door:
        return f"{where}: the server is started with --no-node-signaling."
    if not facts.HasField("entrance"):
        return f"{where}: the agent of node {node} is of the release before. Install this one."
    if origin.tls:
        return (
            f"{where}, and signalling has TLS: {listen} :{_TLS_PORT}, --signaling-cert and --signaling-key, or give "
            "the server the node's address."
        )
    if signaling.checks_secret:
        return f"{where}, and the application itself checks who connects: {listen}."
    return f"{where}, and the node takes no signalling at that address: {listen}."


def _note(entrance: _Entrance, signaling: application_pb2.Signaling) -> str:
    """What keeps NVIDIA's players from seeing a session that is at one host."""
    if not signaling.websocket_path:
        return "The application has no signaling.websocket_path: NVIDIA's players cannot connect to it."
    if entrance.tls and entrance.port != _TLS_PORT:
        return (
            f"Signalling has TLS at port {entrance.port}: NVIDIA's players use TLS at port {_TLS_PORT}, or with the "
            "option forceWSS."
        )
    return ""


def _spelling(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
