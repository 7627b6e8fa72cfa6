"""Which process holds a launch's ports. Kit takes the next port when its own is taken: an answer proves nothing.

Reads /proc/net and /proc/PID/fd (proc(5)); the owner of another user's socket is seen only by root.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from footlights.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from footlights.launch.launcher import Ports

_LISTEN, _ESTABLISHED = "0A", "01"
_EPHEMERAL = 32768


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens, or for UDP is bound and unconnected."""

    protocol: str
    port: int
    pid: int | None
    """None where no process that we may look into holds it."""
    name: str = ""

    def __str__(self) -> str:
        who = f"pid {self.pid} ({self.name})" if self.pid is not None else "an unknown process"
        return f"{self.protocol} port {self.port} belongs to {who}"


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """What a process listens on."""

    protocol: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol} {host}:{self.port}"


def listeners_outside(ports: Ports, pids: Collection[int]) -> tuple[Listener, ...]:
    """Find listeners on a launch's ports outside its tree: ready needs that there is none. Blocking."""
    return tuple(_listener(socket, socket.holders) for socket in _sockets(ports, pids) if not socket.holders & {*pids})


def listeners_inside(ports: Ports, pids: Collection[int]) -> tuple[Listener, ...]:
    """Find listeners on a launch's ports in its tree: TERMINATED needs that there is none. Blocking."""
    inside = [(socket, socket.holders & {*pids}) for socket in _sockets(ports, pids)]
    return tuple(_listener(socket, holders) for socket, holders in inside if holders)


def connections(port: int, pid: int | None = None) -> int:
    """Count the established TCP connections to a port, in a process's network or the node's. Blocking."""
    return sum(1 for row in _rows("tcp", pid) if row.port == port and row.state == _ESTABLISHED)


def listening_hosts(port: int, pid: int | None = None) -> frozenset[str]:
    """Find the addresses at which a TCP port is listened on, in a process's network or the node's. Blocking."""
    return frozenset(row.host for row in _rows("tcp", pid) if row.port == port and row.state == _LISTEN)


def listening(pids: Collection[int], pid: int | None = None) -> tuple[BoundSocket, ...] | None:
    """Find all that processes listen on, in a process's network or the node's; None where that is not known. Blocking.

    For UDP: what is bound and unconnected, on a port below Linux's usual range for outgoing connections.
    """
    if not any(_readable(each) for each in pids):
        return None
    rows = {
        f"socket:[{row.inode}]": BoundSocket(protocol.upper(), row.host, row.port)
        for protocol in ("tcp", "udp")
        for row in _rows(protocol, pid)
        if (row.state == _LISTEN if protocol == "tcp" else row.unconnected and 0 < row.port < _EPHEMERAL)
    }
    holders = _holders(rows, pids)
    return tuple(sorted({rows[link] for link, held in holders.items() if held}, key=str))


class _Row(NamedTuple):
    """One socket of /proc/net."""

    address: str
    port: int
    state: str
    inode: str
    unconnected: bool

    @property
    def host(self) -> str:
        words = [self.address[first : first + 8] for first in range(0, len(self.address), 8)]
        packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)  # each in the machine's order
        found = ipaddress.ip_address(packed)
        return str(getattr(found, "ipv4_mapped", None) or found)


def _rows(protocol: str, pid: int | None = None) -> Iterator[_Row]:
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (procfs.PROC / ("" if pid is None else str(pid)) / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue  # without IPv6 there is no tcp6
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].rpartition(":")
            yield _Row(address, int(port, 16), fields[3], fields[9], fields[2].endswith(":0000"))


@dataclass(frozen=True, slots=True)
class _Socket:
    protocol: str
    port: int
    holders: frozenset[int]
    """Everybody who has it open: it may have been inherited. Of a launch's tree only its members are looked for."""


def _sockets(ports: Ports, pids: Collection[int]) -> list[_Socket]:
    """Find the sockets on a launch's ports and who holds them, asking ``pids`` first and the rest only if need be."""
    wanted = {
        f"socket:[{row.inode}]": (protocol.upper(), row.port)
        for protocol, numbers in (("tcp", {ports.signal, ports.http}), ("udp", {ports.media}))
        for row in _rows(protocol)
        if row.port in numbers and (row.state == _LISTEN if protocol == "tcp" else row.unconnected)
    }
    holders = _holders(wanted, pids)
    if missing := {link for link in wanted if not holders[link]}:
        holders.update(_holders(missing, procfs.pids()))
    return [_Socket(*wanted[link], frozenset(holders[link])) for link in sorted(wanted)]


def _holders(links: Collection[str], pids: Iterable[int]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {link: set() for link in links}
    if links:
        for pid in pids:
            for link in _open_sockets(pid):
                if link in found:
                    found[link].add(pid)
    return found


def _readable(pid: int) -> bool:
    return os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK)


def _open_sockets(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            yield target


def _listener(socket: _Socket, holders: frozenset[int]) -> Listener:
    pid = min(holders, default=None)
    return Listener(socket.protocol, socket.port, pid, "" if pid is None else _name(pid))


def _name(pid: int) -> str:
    try:
        return (procfs.PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""
