"""One UDP port for all viewers.

A launch has one media port. aioice opens a socket of its own for every connection, on random ports, and never
offers 127.0.0.1. `MediaPort` binds the given port once and lets every aioice connection share it:

* `adopt` replaces one method of one aioice `Connection` object (`get_component_candidates`), which normally
  opens sockets, by one that gives out the shared port. Nothing is patched globally.
* What comes in is sorted as RFC 8445 and RFC 7983 allow: a STUN request names its connection (the first half of
  USERNAME is ours), which also teaches us the sender's address; everything else follows that address.

* A viewer may move: its router forgets it and gives it another port. Once nothing has come from where it was, a request
  with its password from elsewhere takes its media there, as aioice would not.

Viewers are never called first: as an ICE-lite agent would, the port waits for their checks, so that an offer
cannot make this process send packets to an address of its choice. A viewer that leaves frees only its own
entries, so the next one needs no port to become free again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from typing import Any

from aioice import Candidate, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol

log = logging.getLogger("footlights.viewer.media")

BUFFER_BYTES = 1 << 20
"""A key frame leaves in one burst."""

Address = tuple[str, int]

MOVED_AFTER_S = 2.0
"""After so long a silence a viewer may be elsewhere, in seconds; one that watches is heard every second."""


class PortTaken(Exception):
    """The port is in use. The message names it."""


class MediaPort(asyncio.DatagramProtocol):
    """The UDP socket, and who is behind which address."""

    def __init__(self, public_host: str) -> None:
        self.public_host = public_host
        self._transport: asyncio.DatagramTransport | None = None
        self._lanes: dict[str, Lane] = {}  # by our username fragment
        self._senders: dict[Address, Lane] = {}

    @classmethod
    async def open(cls, public_address: str, port: int) -> MediaPort:
        """Bind `port` where `public_address` is, or on every address if it is not one of this machine's.

        Raises PortTaken.
        """
        host = await _numeric(public_address)
        self = cls(host)
        loop = asyncio.get_running_loop()
        wildcard = "::" if ":" in host else "0.0.0.0"  # noqa: S104 - a public address behind a 1:1 NAT
        for address in (host, wildcard):
            try:
                transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
            except OSError as error:
                if address == wildcard or error.errno not in _NOT_OURS:
                    raise PortTaken(
                        f"cannot listen on UDP port {port} (media) at {address}: {error.strerror}"
                    ) from error
                continue
            self._transport = transport
            break
        sock = self._transport.get_extra_info("socket") if self._transport else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        return self

    @property
    def port(self) -> int:
        """The number that was bound."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def adopt(self, connection: Any) -> Lane:
        """Make an aioice Connection, which has not gathered yet, use this port."""
        lane = Lane(self, connection)
        self._lanes[connection.local_username] = lane
        connection.get_component_candidates = lane.gather
        return lane

    def close(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Hand a datagram to the connection that it belongs to; those of no connection are dropped."""
        sender = (str(addr[0]), int(addr[1]))
        named = _named_by(data)
        lane = self._lanes.get(named) if named is not None else self._senders.get(sender)
        if lane is None:
            return
        if named is not None:
            self._senders[sender] = lane
        lane.receive(data, sender, asks=named is not None)

    def send(self, data: bytes, addr: Address) -> None:
        """Send one datagram, unless the port is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)

    def forget(self, lane: Lane) -> None:
        """Drop everything that leads to a lane."""
        self._lanes = {name: other for name, other in self._lanes.items() if other is not lane}
        self._senders = {address: other for address, other in self._senders.items() if other is not lane}


class Lane(asyncio.DatagramTransport):
    """One connection's share of the port: what aioice takes for a UDP socket."""

    def __init__(self, port: MediaPort, connection: Any) -> None:
        super().__init__()
        self._port = port
        self._connection = connection
        self._protocol: Any = None
        self._closed = False
        self._chosen: Address | None = None
        """Where aioice sends media."""
        self._moved_to: Address | None = None
        """Where it goes instead."""
        self.last_received = self._heard_there = time.monotonic()

    async def gather(self, component: int, addresses: list[str], timeout: int = 5) -> list[Any]:
        """Stands in for `aioice.Connection.get_component_candidates`: one host candidate, the shared port."""
        protocol = StunProtocol(self._connection)
        protocol.connection_made(self)
        host = self._port.public_host
        protocol.local_candidate = Candidate(
            foundation=candidate_foundation("host", "udp", host),
            component=component,
            transport="udp",
            priority=candidate_priority(component, "host"),
            host=host,
            port=self._port.port,
            type="host",
        )
        self._protocol = protocol
        self._connection._protocols.append(protocol)  # noqa: SLF001 - as the method it replaces does
        return [protocol.local_candidate]

    def receive(self, data: bytes, sender: Address, *, asks: bool) -> None:
        """A datagram for this connection; ``asks``: it is a STUN request."""
        self.last_received = time.monotonic()
        if sender == (self._moved_to or self._chosen):
            self._heard_there = self.last_received
        elif asks and self._chosen and self._is_silent_there() and self._is_its_viewers(data):
            log.info("a viewer has moved from %s to %s", self._moved_to or self._chosen, sender)
            self._moved_to, self._heard_there = sender, self.last_received
        if self._protocol is not None and not self._closed:
            self._protocol.datagram_received(data, sender)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send from the shared port."""
        if self._closed:
            return
        if data[0] > 3:  # DTLS or SRTP, which aioice sends to the address that it has chosen (RFC 7983)
            if addr != self._chosen:
                self._chosen, self._moved_to, self._heard_there = addr, None, time.monotonic()
            addr = self._moved_to or addr
        elif addr == self._chosen and data[:2] == _REQUEST:
            addr = self._moved_to or addr
        self._port.send(data, addr)

    def close(self) -> None:
        """Leave the port; it stays open for the others."""
        if self._closed:
            return
        self._closed = True
        self._port.forget(self)
        if self._protocol is not None:
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _is_its_viewers(self, data: bytes) -> bool:
        """Whether a STUN request is of who has this connection's password."""
        try:
            message = stun.parse_message(data)
        except ValueError:
            return False
        return bool(message.check_message_integrity(self._connection.local_password.encode()))

    def _is_silent_there(self) -> bool:
        return time.monotonic() - self._heard_there > MOVED_AFTER_S


_REQUEST = b"\x00\x01"
"""How a STUN binding request begins."""
_NOT_OURS = frozenset({99, 101, 49, 65})  # EADDRNOTAVAIL, ENETUNREACH on Linux and on macOS


def _named_by(data: bytes) -> str | None:
    """Our username fragment, if the datagram is a STUN request; None for everything else (RFC 5389, section 6)."""
    if len(data) < 20 or data[:2] != _REQUEST or data[4:8] != b"\x21\x12\xa4\x42":
        return None
    try:
        username = stun.parse_message(data).attributes.get("USERNAME")
    except ValueError:
        return None
    return str(username).partition(":")[0] if username else None


async def _numeric(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        infos = await asyncio.get_running_loop().getaddrinfo(address, None, type=socket.SOCK_DGRAM)
        return str(infos[0][4][0])
