"""What an operator may set of an agent, checked before anything starts."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from footlights.devices.detect import is_choice
from footlights.errors import InvalidArgument
from footlights.ids import check_node, is_loopback
from footlights.launch import writable
from footlights.launch.firewall import FirewallSettings
from footlights.launch.launchers import LAUNCHERS
from footlights.protocol.isolation import Isolation
from footlights.protocol.output import visible

CONTAINER_ENGINES = ("auto", "docker", "podman", "none")
CONTAINER_NETWORKS = ("own", "node")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_EPHEMERAL = 32768
"""Where Linux's ephemeral ports begin by default (ip(7), ip_local_port_range)."""


def default_node() -> str:
    """This machine's host name, in the spelling of node names."""
    return platform.node().lower().rstrip(".") or "localhost"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One agent. Raises InvalidArgument: a member is wrong; names it, the value and the fix."""

    data_dir: Path
    """Journal, launch directories and output; made with mode 0700 where missing."""
    server: str
    """The control plane's gRPC address, ``HOST:PORT`` or ``unix:PATH``; those of several replicas with commas between:
    the agent links to one of them, and to the next when that one is gone."""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    """Read again at every dial, so that a rotated token is used. Wins over ``token``."""
    enroll: str = field(default="", repr=False)
    """The code of ``footlights nodes invite``. It is traded once for a certificate, which the data directory keeps."""
    enroll_file: Path | None = None
    """A file that holds the code. Wins over ``enroll``."""
    enroll_token_file: Path | None = None
    """In a pod of the control plane's Kubernetes cluster: a file with a token of its service account for the audience
    ``footlights``, by which it enrolls as the pod's node wherever it has no certificate."""
    node: str = field(default_factory=default_node)
    public_address: str = "127.0.0.1"
    """The address that viewers send media to."""
    signal_address: str = ""
    """Where the front door reaches the node's ports; empty is the public address."""
    signaling_listen: str = ""
    """Where the node takes the signalling of viewers of all its sessions, ``HOST:PORT`` or ``:PORT``, and passes it on
    to the front door; empty: each session's own port does, where the front door has no TLS."""
    signaling_cert: Path | None = None
    """The certificate chain (PEM) for ``signaling_listen``, of an authority that browsers trust. NVIDIA's players use
    TLS at port 443. It is read when the agent starts, which ends no session."""
    signaling_key: Path | None = None
    """The private key of ``signaling_cert`` (PEM)."""
    first_port: int = 20000
    last_port: int = 29999
    devices: str = "auto"
    """``auto``: GPUs, as soon as the driver knows any, and software renderers for what needs none; ``nvml``: only GPUs;
    ``software``; ``fake:FILE``."""
    software_devices: int | None = None
    """How many software renderers; None is one a core."""
    slots_per_device: int = 1
    encoder_sessions: int | None = None
    """How many streams a GPU encodes at the most; None is as many as its driver takes. With GeForce boards NVIDIA
    allows a few in a machine (8 since driver 551)."""
    launchers: tuple[str, ...] = ("container",)
    """A launcher to enable: ``process``, ``systemd``, ``container`` or ``fake``; repeatable. ``process`` isolates
    applications from nothing on the node."""
    container_engine: str = "auto"
    """What runs containers: ``docker``, ``podman``, ``auto`` (Docker where it answers, else podman) or ``none``."""
    container_socket: str = ""
    """Docker's Unix socket; empty is the one that DOCKER_HOST names, else /var/run/docker.sock."""
    container_network: str = "own"
    """``own``: each container has a network of its own, with its ports published. ``node``: all have this node's, which
    Kit needs; they then reach its loopback, and count as not isolated."""
    allowed_roots: tuple[str, ...] = ()
    """A directory of this node; what lies below it may be shown to applications that ask for it, read-only;
    repeatable."""
    writable_roots: tuple[str, ...] = ()
    """A directory of this node that may be mounted into containers that ask for it, also to be written, as a whole;
    with ``/*`` at its end, each of its own subdirectories is one; repeatable. What one session writes there the next
    one reads."""
    shared_volumes: tuple[str, ...] = ()
    """A volume of the container engine that sessions share to read it, with the wildcards ``*`` and ``?``; with
    ``:rw`` at its end, also to write to it, so that each session trusts those before it; repeatable. Any other volume
    of a version is empty at the start of each session and ends with it."""
    image_registries: tuple[str, ...] = ()
    """A registry, or a place in one, that images may come from, such as ``registry.example.com/team``; repeatable.
    Without any: all."""
    image_digests: bool = False
    """Refuse images that are not named by digest."""
    pull_timeout_s: float = 3600.0
    """How long the pull of an image may take. It does not count as the start of the application, which has a limit of
    its own."""
    container_subnets: str = "10.213.0.0/16"
    """The network, of 16 bits, that containers' own networks are parts of: one that nothing else has."""
    denied_networks: tuple[str, ...] = ()
    """A network that applications in units of systemd and in containers do not reach, such as ``10.0.0.0/8``;
    repeatable. The node's loopback and link-local addresses never are. Containers: see ``footlights firewall``."""
    allowed_networks: tuple[str, ...] = ()
    """A network, or address, that containers reach although it is denied, or the node's own; repeatable."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    foreign_memory_bytes: int = 256 << 20
    """How much GPU memory a foreign process may have that draws, or that ``tolerated_processes`` names; and how much an
    application may have of a GPU that is not its own, as it has while it looks which there are."""
    tolerated_processes: tuple[str, ...] = ()
    """Names of foreign processes that are tolerated although they only compute, with the wildcards ``*`` and ``?``."""
    wrong_device_s: float = 10.0
    """How long an application may have more than that of a GPU that is not its own, before it is ended."""
    ca_file: Path | None = None
    """PEM certificates that the server's must lead to, for a token; empty is the system's."""
    tls: bool = False
    """Whether to use TLS to a server on this machine too; to others it is used in any case."""
    insecure: bool = False
    """Whether the token goes unencrypted to a server beyond loopback, as where something else encrypts it."""
    drain_on_stop: bool = False
    """Whether stopping the agent ends its launches; otherwise they go on and are adopted by the next agent."""
    log_retention_s: float = 7 * 86400.0
    """How long the output of ended launches is kept."""
    device_interval_s: float = 2.0
    device_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_node("node", self.node)
        self._check_server()
        _check(bool(self.public_address), "public_address", "is empty. Give the address that viewers can reach.")
        self._check_signaling()
        ports = f"{self.first_port}..{self.last_port}"
        in_range = 1024 <= self.first_port <= self.last_port <= 65535
        _check(in_range, "first_port", f"{ports} is not a range. Give ports from 1024 to 65535, the first one first.")
        room = self.last_port - self.first_port >= 3
        _check(room, "last_port", f"{ports} has no room for the four ports of one launch. Widen it.")
        slots = self.slots_per_device
        _check(1 <= slots <= 64, "slots_per_device", f"must be from 1 to 64 (got {slots}).")
        encoders = self.encoder_sessions
        _check(encoders is None or encoders >= 1, "encoder_sessions", f"must be at least 1 (got {encoders}).")
        software = self.software_devices
        _check(software is None or software >= 1, "software_devices", f"must be at least 1 (got {software}).")
        text = f"unknown choice {self.devices!r}; choose from auto, nvml, software and fake:FILE."
        _check(is_choice(self.devices), "devices", text)
        self._check_launchers()
        for name, value in self.labels.items():
            text = f"{name!r} is not a valid label name. Use letters, digits, ._/-."
            _check(bool(_LABEL.fullmatch(name)), "labels", text)
            text = f"the value of {name} has {len(value)} characters; at most 63 are allowed."
            _check(len(value) <= 63, "labels", text)
            text = f"the value of {name} is {visible(value)!r}: give one of printable characters."
            _check(value.isprintable(), "labels", text)
        memory = self.foreign_memory_bytes
        _check(memory >= 0, "foreign_memory_bytes", f"must not be negative (got {memory}).")
        for name in ("pull_timeout_s", "log_retention_s", "device_interval_s", "device_timeout_s", "wrong_device_s"):
            value_s: float = getattr(self, name)
            _check(value_s > 0, name, f"must be more than 0 seconds (got {value_s:g}).")

    @property
    def node_network(self) -> bool:
        """Whether containers have the node's network."""
        return self.container_network == "node"

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses, each once."""
        return tuple(dict.fromkeys(address.strip() for address in self.server.split(",")))

    @property
    def is_beside_server(self) -> bool:
        """Whether the control plane is on this machine, as far as addresses say."""
        beside = any(each.startswith("unix:") or is_loopback(each.rpartition(":")[0]) for each in self.servers)
        return beside or is_loopback(self.public_address)

    @property
    def entrance_host(self) -> str:
        """The address to take the front door's connections on; empty is every one."""
        return "127.0.0.1" if is_loopback(self.signal_address or self.public_address) else ""

    @property
    def signaling_address(self) -> tuple[str, int] | None:
        """The host and port of ``signaling_listen``; an empty host is every address, None nowhere."""
        host, _, port = self.signaling_listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.signaling_listen else None

    @property
    def takes_viewers(self) -> bool:
        """Whether viewers reach the ports of sessions at the public address."""
        return not self.entrance_host or is_loopback(self.public_address)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes for an operator on settings that are allowed but unwise."""
        found = [
            f"the launcher {name} isolates sessions from nothing on this node: start only applications that you trust"
            for name in self.launchers
            if LAUNCHERS[name].isolation is Isolation.NONE
        ]
        if self.last_port >= _EPHEMERAL:
            found.append(
                f"ports {self.first_port}..{self.last_port} reach into Linux's ephemeral range from {_EPHEMERAL}: "
                "any process's outgoing connection may take one of them"
            )
        return tuple(found)

    def uses_tls(self, server: str) -> bool:
        """Return whether one of the addresses is dialled with TLS."""
        if self.tls or self.ca_file is not None:
            return True
        return not (self.insecure or server.startswith("unix:") or is_loopback(server.rpartition(":")[0]))

    @property
    def is_invited(self) -> bool:
        """Whether it has a code to enroll with."""
        return bool(self.enroll or self.enroll_file)

    def read_code(self) -> str:
        """Return the code to enroll with. Raises InvalidArgument: it cannot be read."""
        return self.enroll.strip() if self.enroll_file is None else _read("enroll_file", self.enroll_file)

    def read_pod_token(self) -> str:
        """Return the pod's token as it is now. Raises InvalidArgument: it cannot be read."""
        assert self.enroll_token_file is not None
        return _read("enroll_token_file", self.enroll_token_file)

    def read_token(self) -> str:
        """Return the node's token as it is now. Raises InvalidArgument: there is none."""
        if self.token_file is None:
            _check(
                bool(self.token),
                "token",
                "is empty, and the node is not enrolled. Give the code of footlights nodes invite, or a token of the "
                "role `node`.",
            )
            return self.token
        token = _read("token_file", self.token_file)
        _check(bool(token), "token_file", f"{self.token_file} is empty. Put a token of the role `node` into it.")
        return token

    def _check_launchers(self) -> None:
        choices = ", ".join(LAUNCHERS)
        for name in self.launchers:
            _check(name in LAUNCHERS, "launchers", f"unknown launcher {name!r}; choose from {choices}.")
        _check(bool(self.launchers), "launchers", f"is empty. Give at least one of {choices}.")
        engine = self.container_engine
        text = f"unknown container engine {engine!r}; choose from {', '.join(CONTAINER_ENGINES)}."
        _check(engine in CONTAINER_ENGINES, "container_engine", text)
        network = self.container_network
        text = f"unknown network {network!r}; choose from {', '.join(CONTAINER_NETWORKS)}."
        _check(network in CONTAINER_NETWORKS, "container_network", text)
        for name in ("allowed_roots", "writable_roots"):
            for root in getattr(self, name):
                path = root.removesuffix(writable.EACH) if name == "writable_roots" else root
                good = path.startswith("/") and path != "/" and ".." not in path.split("/")
                _check(good, name, f"{root!r} is not a directory below /. Give an absolute path without '..'.")
        if pair := writable.nested(self.writable_roots):
            text = f"{pair[0]!r} and {pair[1]!r}: one lies in the other, where applications could replace it. Give one."
            _check(False, "writable_roots", text)
        for volume in self.shared_volumes:
            name, separator, mode = volume.partition(":")
            good = bool(name) and (not separator or mode == "rw")
            _check(good, "shared_volumes", f"{volume!r} is not NAME or NAME:rw. Give one of them.")
        if self.container_socket:
            text = f"{self.container_socket!r} is not an absolute path. Give the path of Docker's Unix socket."
            _check(self.container_socket.startswith("/"), "container_socket", text)
        FirewallSettings.of(self)

    def _check_signaling(self) -> None:
        listen = self.signaling_listen
        _, separator, port = listen.rpartition(":")
        good = not listen or bool(separator and port.isascii() and port.isdigit() and int(port) < 65536)
        _check(good, "signaling_listen", f"{listen!r} is not an address. Give HOST:PORT, or :443 for every address.")
        for name in ("signaling_cert", "signaling_key"):
            both = self.signaling_cert is not None and self.signaling_key is not None
            text = "TLS needs signaling_listen, signaling_cert and signaling_key. Give all three, or no certificate."
            _check(getattr(self, name) is None or bool(both and listen), name, text)

    def _check_server(self) -> None:
        for server in self.servers:
            if server.startswith("unix:"):
                continue
            host, separator, port = server.rpartition(":")
            good = separator and host and port.isdigit() and 0 < int(port) < 65536
            text = f"{server!r} is not an address. Give HOST:PORT, as in 10.0.0.5:50051, or unix:PATH."
            _check(bool(good), "server", text)


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(name, f"{path} cannot be read: {error}") from error


def _check(good: bool, name: str, problem: str) -> None:
    if not good:
        raise InvalidArgument(name, problem)
