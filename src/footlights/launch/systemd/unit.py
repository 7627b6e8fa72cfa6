"""From a plan to a unit: its names, and its properties, which are the whole boundary. Pure; systemd.exec(5).

What an application sees
    An empty root, with the node's programs, libraries and what those read of /etc, the paths of its version and its
    stages, all read-only; a home, /tmp and /dev/shm of its own, of a fixed size; its own processes; the device nodes
    of its own device. It has a user of its own for as long as it runs, no privileges and no way to any.

What it reaches
    It listens on the ports of its launch only. It reaches neither the node's loopback, nor link-local addresses (where
    clouds keep credentials), nor the networks that the node's operator denies, nor a Unix socket. Its own ports are
    reached from elsewhere, and over the node's loopback from one address (``LauncherTraits.asked_from``). That nothing
    but the agent begins a connection by that address, the node's packet filter (`firewall`) sees to.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from footlights.launch.launcher import SESSION_FILE, LaunchError
from footlights.launch.launchers import SYSTEMD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from footlights.launch.caches import ShownCache
    from footlights.launch.launcher import LaunchPlan, Ports

HOME: Final = SYSTEMD.home
SLICE: Final = "footlights.slice"
JOURNAL: Final = "footlights"
"""The namespace of the journal: what sessions write takes no room from the node's own entries."""
VARIABLES: Final = "environment"
"""The file of the variables that hold secrets, ``NAME=VALUE`` in each line: a unit's properties are read by anybody."""
EXIT: Final = "exit"
"""The file of a launch's directory that says how the application ended; blanks until then."""
ROOT: Final = "root"
"""The empty directory that is the application's root, in the launch's directory."""
TMP: Final = "tmp"
"""The mount point of the application's /tmp, in the launch's directory."""
DEFAULT_TASKS: Final = 4096
DEFAULT_DISK_BYTES: Final = 4 << 30
DEFAULT_MEMORY_SHARE: Final = 0.8
START_TIMEOUT_S: Final = 60
RECORD_S: Final = 1.0
"""The shortest grace of a unit: its last command has the same, and must be able to write."""

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
CONFIGURATION: Final = tuple(
    f"/etc/{name}"
    for name in (
        *("OpenCL", "alternatives", "ca-certificates", "fonts", "gai.conf", "glvnd", "group", "hosts", "host.conf"),
        *(
            "ld.so.cache",
            "ld.so.conf",
            "ld.so.conf.d",
            "localtime",
            "mime.types",
            "nsswitch.conf",
            "nvidia",
            "os-release",
        ),
        *("passwd", "pki", "protocols", "resolv.conf", "services", "ssl", "vulkan"),
    )
)
RESOLVERS: Final = "/run/systemd/resolve/resolv.conf"
"""The name servers that systemd-resolved asks: its own address is on the loopback network."""

ENV: Final = "/usr/bin/env"
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108  # the session's own
}
"""The environment of every unit, which its last command has too."""
_INSIDE_EXIT: Final = "/run/footlights/exit"
_LAUNCH_ID: Final = re.compile(r"[A-Za-z0-9-]{1,80}")
_RECORD_EXIT: Final = f'echo "$SERVICE_RESULT ${{EXIT_CODE:--}} ${{EXIT_STATUS:--}}" 1<>{_INSIDE_EXIT}'
_TAKE_VARIABLES: Final = 'while IFS= read -r each; do export "$each"; done < "$1" && shift && exec "$@"'
"""A shell sets what each line says, without reading it as anything else, and becomes the application."""
_ALWAYS_DENIED: Final = ("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10")
_RECURSIVE: Final = 0x4000  # MS_REC
_ALL_PORTS: Final = (0, 0, 0, 0)
_NAMESPACES_DENIED: Final = 0

Property = tuple[str, str, Any]
"""Its name, its D-Bus signature and its value."""


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """A unit that systemd is asked to make."""

    name: str
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class UnitView:
    """What of the node a launch gets, beside the system."""

    readable: tuple[str, ...] = ()
    """Directories and files that it reads."""
    caches: tuple[ShownCache, ...] = ()
    """What it reads below its home."""
    device_nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """The node's groups that own such device nodes."""
    denied_networks: tuple[str, ...] = ()
    """Networks that it does not reach, beside the node's loopback and link-local addresses."""
    memory_bytes: int = 0
    """The node's memory."""


def service_name(plan: LaunchPlan) -> str:
    """Name a launch's unit."""
    return f"{prefix(plan.cluster_id)}{_checked(plan.launch_id)}.service"


def prefix(cluster_id: str) -> str:
    """Begin the names of all units of a cluster: their mark, which no application can take or leave."""
    return f"footlights-{hashlib.sha256(cluster_id.encode()).hexdigest()[:12]}-"


def launch_of(unit: str, cluster_id: str) -> str:
    """Return the launch that a unit is of."""
    return unit.removeprefix(prefix(cluster_id)).removesuffix(".service")


def mount_name(path: str) -> str:
    """Name the mount unit of an absolute path, as systemd-escape(1) does."""
    escaped = "".join(
        chr(byte)
        if (chr(byte).isalnum() and byte < 128) or chr(byte) in "_:" or (chr(byte) == "." and number)
        else "-"
        if chr(byte) == "/"
        else f"\\x{byte:02x}"
        for number, byte in enumerate(os.fsencode(path.strip("/")))
    )
    return f"{escaped}.mount"


def units_of(plan: LaunchPlan, argv: Sequence[str], view: UnitView) -> tuple[UnitSettings, UnitSettings]:
    """Make the service of a launch, and the file system of its /tmp."""
    tmp = str(plan.directory / TMP)
    mount = mount_name(tmp)
    return UnitSettings(service_name(plan), _service(plan, argv, view, mount)), UnitSettings(mount, _mount(plan, tmp))


def environment_of(plan: LaunchPlan) -> dict[str, str]:
    """Return the environment of an application; its version's wins over what is set for every unit."""
    session_file = f"/run/credentials/{service_name(plan)}/{SESSION_FILE}"
    return {**_ENVIRONMENT, **dict(plan.environment), "FOOTLIGHTS_SESSION_FILE": session_file}


def view_of_root(view: UnitView) -> tuple[str, ...]:
    """List what is mounted in the root, so that its mount points can be made: paths of the node."""
    return (*SYSTEM, *CONFIGURATION, *view.readable)


def _service(plan: LaunchPlan, argv: Sequence[str], view: UnitView, mount: str) -> tuple[Property, ...]:
    # All commands of a unit have its environment, also root's. What a version sets is the application's alone: env(1),
    # which becomes the application, is given it.
    variables = [f"{name}={value}" for name, value in environment_of(plan).items() if _ENVIRONMENT.get(name) != value]
    credentials = [(SESSION_FILE, str(plan.directory / SESSION_FILE))]
    if plan.secret_environment:
        credentials.append((VARIABLES, str(plan.directory / VARIABLES)))
        argv = ["/bin/sh", "-c", _TAKE_VARIABLES, "sh", f"/run/credentials/{service_name(plan)}/{VARIABLES}", *argv]
    command = [ENV, [ENV, *variables, *(str(token) for token in argv)], ["no-env-expand"]]
    record = ["/bin/sh", ["/bin/sh", "-c", _RECORD_EXIT], ["privileged", "no-env-expand"]]
    return (
        ("Description", "s", f"Footlights session {plan.session_id}"),
        ("Type", "s", "exec"),
        ("CollectMode", "s", "inactive-or-failed"),
        ("Slice", "s", SLICE),
        ("Requires", "as", [mount]),
        ("After", "as", [mount]),
        ("ExecStartEx", "a(sasas)", [command]),
        ("ExecStopPostEx", "a(sasas)", [record]),
        ("Environment", "as", [f"{name}={value}" for name, value in _ENVIRONMENT.items()]),
        ("WorkingDirectory", "s", plan.working_directory or HOME),
        ("StandardInput", "s", "null"),
        ("LogNamespace", "s", JOURNAL),
        ("StandardOutput", "s", "journal"),
        ("StandardError", "s", "journal"),
        ("SyslogIdentifier", "s", "footlights-session"),
        ("LoadCredential", "a(ss)", credentials),
        ("TimeoutStartUSec", "t", START_TIMEOUT_S * 1_000_000),
        ("TimeoutStopUSec", "t", round(max(plan.stop_grace_s, RECORD_S) * 1_000_000)),
        ("KillMode", "s", "control-group"),
        *_identity(view),
        *_files(plan, view),
        *_kernel(),
        *_limits(plan, view),
        *_network(plan.ports, view.denied_networks),
    )


def _mount(plan: LaunchPlan, tmp: str) -> tuple[Property, ...]:
    return (
        ("Description", "s", f"Files of Footlights session {plan.session_id}"),
        ("CollectMode", "s", "inactive-or-failed"),
        ("StopWhenUnneeded", "b", True),
        ("What", "s", "tmpfs"),
        ("Where", "s", tmp),
        ("Type", "s", "tmpfs"),
        ("Options", "s", f"nosuid,nodev,{_size(plan)}"),
    )


def _identity(view: UnitView) -> tuple[Property, ...]:
    return (
        ("DynamicUser", "b", True),
        ("SupplementaryGroups", "as", list(view.groups)),
        ("NoNewPrivileges", "b", True),
        ("CapabilityBoundingSet", "t", 0),
        ("AmbientCapabilities", "t", 0),
        ("KeyringMode", "s", "private"),
        ("RemoveIPC", "b", True),
        ("UMask", "u", 0o077),
    )


def _files(plan: LaunchPlan, view: UnitView) -> tuple[Property, ...]:
    tmp, size = str(plan.directory / TMP), _size(plan)
    read = [(path, path, True, _RECURSIVE) for path in (*SYSTEM, *CONFIGURATION)]
    read += [(path, path, False, _RECURSIVE) for path in view.readable]
    read += [(cache.source, f"{HOME}/{cache.relative}", False, 0) for cache in view.caches]
    # Between its home and what is shown there it may write as well: systemd would make those directories as root's.
    between = {str(path) for cache in view.caches for path in PurePosixPath(cache.relative).parents} - {"."}
    homes = [(HOME, size), *((f"{HOME}/{path}", size) for path in sorted(between))]
    if os.path.exists(RESOLVERS):
        read = [each for each in read if each[1] != "/etc/resolv.conf"]
        read.append((RESOLVERS, "/etc/resolv.conf", True, 0))
    write = [
        (tmp, "/tmp", False, 0),  # noqa: S108  # each session's own
        (tmp, "/var/tmp", False, 0),  # noqa: S108
        (str(plan.directory / EXIT), _INSIDE_EXIT, False, 0),
        *((node, node, False, 0) for node in view.device_nodes),
    ]
    return (
        # An empty directory; with DynamicUser all of it is read-only, except what is mounted in it to be written to.
        ("RootDirectory", "s", str(plan.directory / ROOT)),
        ("MountAPIVFS", "b", True),
        ("ProtectSystem", "s", "strict"),
        ("TemporaryFileSystem", "a(ss)", [*homes, ("/dev/shm", size)]),  # noqa: S108
        ("BindReadOnlyPaths", "a(ssbt)", read),
        ("BindPaths", "a(ssbt)", write),
        ("PrivateDevices", "b", True),
        ("DevicePolicy", "s", "closed"),
        ("DeviceAllow", "a(ss)", [(node, "rw") for node in view.device_nodes]),
        ("PrivateIPC", "b", True),
        ("ProtectProc", "s", "invisible"),
    )


def _kernel() -> tuple[Property, ...]:
    return (
        ("ProtectKernelTunables", "b", True),
        ("ProtectKernelModules", "b", True),
        ("ProtectKernelLogs", "b", True),
        ("ProtectControlGroups", "b", True),
        ("ProtectClock", "b", True),
        ("ProtectHostname", "b", True),
        ("LockPersonality", "b", True),
        ("RestrictRealtime", "b", True),
        ("RestrictSUIDSGID", "b", True),
        ("RestrictNamespaces", "t", _NAMESPACES_DENIED),
        ("RestrictAddressFamilies", "(bas)", [True, ["AF_INET", "AF_INET6", "AF_NETLINK"]]),
        ("SystemCallArchitectures", "as", ["native"]),
        ("SystemCallFilter", "(bas)", [True, ["@system-service"]]),
        # A ring makes sockets of any family, and no filter of system calls sees what is asked of it.
        ("SystemCallFilter", "(bas)", [False, ["io_uring_setup", "io_uring_enter", "io_uring_register"]]),
        ("SystemCallErrorNumber", "i", 1),  # EPERM; the default ends the application
    )


def _limits(plan: LaunchPlan, view: UnitView) -> tuple[Property, ...]:
    asked = plan.version.systemd
    tasks = asked.tasks or DEFAULT_TASKS
    memory = asked.memory_bytes or int(view.memory_bytes * DEFAULT_MEMORY_SHARE)
    return (
        ("TasksMax", "t", tasks),
        ("LimitNPROC", "t", tasks),
        ("LimitNPROCSoft", "t", tasks),
        ("LimitCORE", "t", 0),
        ("LimitCORESoft", "t", 0),
        *((("MemoryMax", "t", memory),) if memory else ()),
        ("MemorySwapMax", "t", 0),  # it would come on top, for the files in memory as well
        *((("CPUQuotaPerSecUSec", "t", round(asked.processors * 1_000_000)),) if asked.processors else ()),
        ("OOMPolicy", "s", "kill"),
        ("OOMScoreAdjust", "i", 500),  # where the node itself has no memory left, sessions go first
    )


def _network(ports: Ports, denied: Iterable[str]) -> tuple[Property, ...]:
    own = ((socket.IPPROTO_TCP, ports.signal), (socket.IPPROTO_TCP, ports.http), (socket.IPPROTO_UDP, ports.media))
    return (
        ("SocketBindAllow", "a(iiqq)", [(0, int(protocol), 1, port) for protocol, port in own]),
        ("SocketBindDeny", "a(iiqq)", [_ALL_PORTS]),
        ("IPAddressAllow", "a(iayu)", [_network_of(f"{SYSTEMD.asked_from}/32")]),
        ("IPAddressDeny", "a(iayu)", [_network_of(network) for network in (*_ALWAYS_DENIED, *denied)]),
    )


def _network_of(text: str) -> tuple[int, bytes, int]:
    network = ipaddress.ip_network(text, strict=False)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return int(family), network.network_address.packed, network.prefixlen


def _size(plan: LaunchPlan) -> str:
    size = plan.version.systemd.disk_bytes or DEFAULT_DISK_BYTES
    return f"size={size},nr_inodes={max(size // 4096, 1024)},mode=1777"


def _checked(launch_id: str) -> str:
    if _LAUNCH_ID.fullmatch(launch_id) is None:
        raise LaunchError("BAD_LAUNCH_ID", f"{launch_id!r} cannot be a part of a unit's name.")
    return launch_id
