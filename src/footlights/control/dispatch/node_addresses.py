"""The addresses of nodes: an agent says where the front door reaches its node, and is not believed.

An address is dialled only where it is public, the one from which the agent links, or in a network that an operator has
named. A name is looked up once for each dial: all its addresses are checked, and those are dialled that were checked,
so that what a name leads to later changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from footlights.control.call.context import peer_address
from footlights.errors import InvalidArgument, Reason
from footlights.ids import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from footlights.agent.v1 import node_pb2 as link_node_pb2
    from footlights.v1 import node_pb2

log = structlog.get_logger(__name__)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LEAST_PORT: Final = 1024
"""Below it are the services of a machine, and no application of a node."""

_LOOKUP_S: Final = 5.0
_MOST_LOOKUPS: Final = 4
"""At once: the threads for them are few, and a name may take long."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Reached:
    """What may be dialled."""

    addresses: tuple[str, ...] = ()
    """IP addresses that were checked; empty where none may be dialled."""
    problem: str = ""
    """Why not, for a viewer: without the address."""


async def _system(name: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(each[4][0]).partition("%")[0] for each in found]


class NodeAddresses:
    """Says at which addresses nodes may be."""

    def __init__(
        self,
        networks: Sequence[str],
        look_up: Callable[[str], Awaitable[Sequence[str]]] = _system,
        patience_s: float = _LOOKUP_S,
    ) -> None:
        """``networks``: those of nodes whose addresses are neither public nor the ones that they link from.

        ``look_up`` returns the IP addresses of a name, or raises OSError; it has ``patience_s`` seconds.
        """
        self._system, self._patience_s = look_up, patience_s
        self._networks = [ipaddress.ip_network(each, strict=False) for each in networks]
        self._lookups = asyncio.Semaphore(_MOST_LOOKUPS)

    async def check(self, facts: link_node_pb2.NodeFacts, peer: str) -> None:
        """Check what an agent says when it links; a name that cannot be looked up now is checked when it is dialled.

        ``peer`` is the origin of its link in gRPC's form, such as ``ipv4:10.0.0.7:40312``. Raises InvalidArgument.
        """
        link_address = peer_address(peer)
        for name in ("public_address", "signal_address"):
            address = getattr(facts, name)
            dialled = name == "signal_address" or not facts.signal_address
            for found in await self._look_up(address) if dialled else _literal(address):
                refused = self._refusal(found, link_address) if dialled else _special(found, link_address)
                if refused:
                    shown = address if address == str(found) else f"{address} ({found})"
                    raise _refused(name, address, f"{shown} {refused}")

    async def reach(self, facts: node_pb2.NodeFacts, port: int, link_address: str | None) -> Reached:
        """Return at which addresses a port of a node may be dialled now.

        ``link_address`` is that of its link; None where a release without it wrote the node.
        """
        address = facts.signal_address or facts.public_address
        first, last = facts.ports.first or LEAST_PORT, facts.ports.last or 65535
        if not max(first, LEAST_PORT) <= port <= last:
            log.warning("node_port_refused", port=port, first=first, last=last)
            return Reached(problem="its port is not one of the node's")
        found = await self._look_up(address)
        if not found:
            return Reached(problem="its address cannot be looked up")
        for each in found:
            refused = _special(each, "") if link_address is None else self._refusal(each, link_address)
            if refused:
                log.warning("node_address_refused", address=address, found=str(each), problem=refused)
                return Reached(problem="its address is not allowed")
        return Reached(tuple(str(getattr(each, "ipv4_mapped", None) or each) for each in found))

    def _refusal(self, address: IPAddress, link_address: str) -> str:
        """Say why an address may not be dialled; empty where it may."""
        if special := _special(address, link_address):
            return special
        real = _unwrapped(address)
        if any(real in network for network in self._networks):
            return ""
        if real.is_loopback:
            # Behind a proxy on this machine every agent would seem to be here: who names networks names this one, too.
            return "is not in --node-networks of the control plane" if self._networks else ""
        if real.is_global or (link_address and real == _unwrapped(ipaddress.ip_address(link_address))):
            return ""
        origin = f"the one that the agent links from ({link_address})" if link_address else "that of the link"
        return f"is neither public, nor {origin}, nor in --node-networks of the control plane"

    async def _look_up(self, address: str) -> list[IPAddress]:
        """Return the IP addresses of an address; none where it is empty or cannot be looked up in time."""
        found = _literal(address)
        if found or not address:
            return found
        try:
            async with asyncio.timeout(self._patience_s):
                # Who gives up waits no more, so no more wait than callers do.
                await self._lookups.acquire()
                looking = asyncio.ensure_future(self._system(address))
                looking.add_done_callback(self._looked_up)
                # It is not cancelled with its caller: its thread goes on, and counts until it ends.
                return [ipaddress.ip_address(each) for each in await asyncio.shield(looking)]
        except (OSError, UnicodeError, TimeoutError):
            return []

    def _looked_up(self, looking: asyncio.Future[Sequence[str]]) -> None:
        self._lookups.release()
        if not looking.cancelled():
            looking.exception()


def _literal(address: str) -> list[IPAddress]:
    try:
        return [ipaddress.ip_address(address.strip("[]"))]
    except ValueError:
        return []


def _special(address: IPAddress, link_address: str) -> str:
    """Say why an address is not that of one machine which can be reached from here."""
    real = _unwrapped(address)
    if real.is_loopback:
        local = not link_address or is_loopback(link_address)
        return "" if local else "is the control plane itself when it is dialled from there"
    if real.is_unspecified or real.is_multicast or real.is_reserved:
        return "is not the address of one machine"
    return "is valid on one network link only" if real.is_link_local else ""


def _unwrapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address stands for, if it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _refused(name: str, address: str, problem: str) -> InvalidArgument:
    option = f"--{name.replace('_', '-')}"
    return InvalidArgument(
        f"hello.facts.{name}",
        f"{problem}. Start the agent with {option} set to the node's own address, or name the nodes' networks.",
        reason=Reason.ADDRESS_REFUSED,
        metadata={"address": address},
    )
