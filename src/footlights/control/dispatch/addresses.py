"""Where an agent says that its node can be reached: the front door dials it, so it must be the node's to give."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument
from footlights.ids import is_loopback

if TYPE_CHECKING:
    from footlights.v1 import node_pb2


def check(facts: node_pb2.NodeFacts, peer: str) -> None:
    """Refuse addresses that would make the control plane call itself, or nobody in particular.

    Args:
        facts: What the agent says.
        peer: Where its link comes from, as gRPC says it: ``ipv4:10.0.0.7:40312``, ``unix:…``, ``inproc:``.

    Raises:
        InvalidArgument: names the member, the address and the fix.
    """
    local = not peer.startswith(("ipv4:", "ipv6:")) or is_loopback(_host(peer))
    for name in ("public_address", "signal_address"):
        address = getattr(facts, name)
        if not address:
            continue
        if is_loopback(address):
            refused = "" if local else "is the control plane itself, as seen from there"
        else:
            refused = _special(address)
        if refused:
            option = f"--{name.replace('_', '-')}"
            raise InvalidArgument(
                f"hello.facts.{name}",
                f"{address!r} {refused}. Start the agent with {option} set to the node's own address.",
                reason="ADDRESS_REFUSED",
                metadata={"address": address},
            )


def _special(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return ""
    if parsed.is_unspecified or parsed.is_multicast:
        return "is no one machine's address"
    return "is good on one link only" if parsed.is_link_local else ""


def _host(peer: str) -> str:
    return peer.partition(":")[2].replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
