"""The addresses of a node, as its agent gives them: the front door dials them, so they must be the node's own."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument, Reason
from footlights.ids import is_loopback

if TYPE_CHECKING:
    from footlights.v1 import node_pb2


def check(facts: node_pb2.NodeFacts, peer: str) -> None:
    """Refuse addresses at which the control plane would reach itself, or no single machine.

    ``peer`` is the origin of its link in gRPC's form, such as ``ipv4:10.0.0.7:40312``. Raises InvalidArgument.
    """
    local = not peer.startswith(("ipv4:", "ipv6:")) or is_loopback(_host(peer))
    for name in ("public_address", "signal_address"):
        address = getattr(facts, name)
        if not address:
            continue
        if is_loopback(address):
            refused = "" if local else "is the control plane itself when it is dialled from there"
        else:
            refused = _special(address)
        if refused:
            option = f"--{name.replace('_', '-')}"
            raise InvalidArgument(
                f"hello.facts.{name}",
                f"{address!r} {refused}. Start the agent with {option} set to the node's own address.",
                reason=Reason.ADDRESS_REFUSED,
                metadata={"address": address},
            )


def _special(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return ""
    if parsed.is_unspecified or parsed.is_multicast:
        return "is not the address of one machine"
    return "is valid on one network link only" if parsed.is_link_local else ""


def _host(peer: str) -> str:
    return peer.partition(":")[2].replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
