"""A node's ports: blocks of four, each with one holder until its launch's end is proved."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from footlights.launch.launcher import PORTS_OF_A_LAUNCH, Ports

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIES = 256
"""How many blocks are tried for one launch before giving up: each try binds eight sockets."""


class PortsExhausted(Exception):
    """No block is free now; the message says why."""


def why_taken(ports: Ports) -> str:
    """Say which of the ports are taken, by binding each on every address of IPv4 and IPv6; empty where all are free."""
    for port, kind, name in (
        (ports.signal, socket.SOCK_STREAM, "TCP"),
        (ports.media, socket.SOCK_DGRAM, "UDP"),
        (ports.http, socket.SOCK_STREAM, "TCP"),
        (ports.splice, socket.SOCK_STREAM, "TCP"),
    ):
        if not port:
            continue
        for family in (socket.AF_INET, socket.AF_INET6):
            if problem := _why_not_bound(family, kind, port):
                return f"{name} port {port}: {problem}"
    return ""


def _why_not_bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> str:
    try:
        probe = socket.socket(family, kind)
    except OSError:
        return ""  # the machine has no IPv6
    with probe:
        if kind == socket.SOCK_STREAM:
            # Connections in TIME_WAIT do not prevent a listener; another listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise it would take IPv4's too, and not say which of them is taken.
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, str(error))
            if code in ("EADDRNOTAVAIL", "EAFNOSUPPORT"):
                return ""  # it is disabled
            over = " (IPv6)" if family == socket.AF_INET6 else ""
            return f"{'taken by another process' if code == 'EADDRINUSE' else code}{over}"
    return ""


class PortBlocks:
    """Blocks of four consecutive ports, taken in turn, so that a viewer's stale address does not meet a new one."""

    def __init__(self, first: int, last: int, *, why_taken: Callable[[Ports], str] = why_taken) -> None:
        self._first, self._last = first, last
        self.capacity = (last - first + 1) // PORTS_OF_A_LAUNCH
        """How many launches the range allows at once."""
        self._why_taken = why_taken
        self._holders: dict[int, str] = {}
        """By port: an earlier release had blocks of another size."""
        self._next = 0
        self.skipped: dict[Ports, str] = {}
        """Blocks that were found in use when they were last tried, and by which port."""

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last port that a launch may have, also one of an earlier agent with another range."""
        return min((self._first, *self._holders)), max((self._last, *self._holders))

    def take(self, holder: str) -> Ports:
        """Take a free block whose ports are not in use. Raises PortsExhausted: none is left."""
        tried = 0
        for step in range(self.capacity):
            ports = self._block((self._next + step) % self.capacity)
            if any(port in self._holders for port in _numbers(ports)):
                continue
            if tried == _TRIES:
                break
            tried += 1
            problem = self._why_taken(ports)
            if problem:
                self.skipped[ports] = problem
                continue
            self.skipped.pop(ports, None)
            self._next = (self._next + step + 1) % self.capacity
            self.adopt(holder, ports)
            return ports
        example = next(iter(self.skipped.values()), "")
        in_use = f"{len(self.skipped)} are in use by others" + (f" ({example})" if example else "")
        held = f"{len(set(self._holders.values()))} are held by launches"
        raise PortsExhausted(
            f"none of {self.capacity} port blocks from {self._first} is free: {held}, {in_use}. Widen the range."
        )

    def adopt(self, holder: str, ports: Ports) -> None:
        """Hold the ports of a launch that an earlier agent started, wherever they lie."""
        self._holders.update(dict.fromkeys(_numbers(ports), holder))

    def release(self, holder: str) -> None:
        """Release every block that ``holder`` has."""
        for port in [port for port, who in self._holders.items() if who == holder]:
            del self._holders[port]

    def _block(self, number: int) -> Ports:
        signal = self._first + number * PORTS_OF_A_LAUNCH
        return Ports(signal=signal, media=signal + 1, http=signal + 2, splice=signal + 3)


def _numbers(ports: Ports) -> tuple[int, ...]:
    return tuple(port for port in (ports.signal, ports.media, ports.http, ports.splice) if port)
