"""Where a node may say that it is: the front door dials it."""

from __future__ import annotations

import pytest
from footlights.agent.v1.node_pb2 import NodeFacts

from footlights.control.dispatch import addresses
from footlights.errors import InvalidArgument

FAR = "ipv4:10.0.0.7:40312"


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("127.0.0.1", FAR),
        ("localhost", FAR),
        ("::1", "ipv6:%5B2001:db8::7%5D:40312"),
        ("169.254.169.254", FAR),
        ("169.254.169.254", "ipv4:127.0.0.1:40312"),
        ("0.0.0.0", "inproc:"),
        ("224.0.0.1", FAR),
    ],
)
def test_an_address_that_is_not_the_nodes_is_refused(address: str, peer: str) -> None:
    """A node elsewhere cannot make the front door dial the control plane itself, nor anybody a link-local address."""
    with pytest.raises(InvalidArgument, match="Start the agent with --signal-address") as caught:
        addresses.check(NodeFacts(signal_address=address), peer)

    assert caught.value.metadata["address"] == address


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("", FAR),
        ("10.0.0.7", FAR),
        ("gpu-01.example.com", FAR),
        ("127.0.0.1", "ipv4:127.0.0.1:40312"),
        ("127.0.0.1", "ipv6:%5B::1%5D:40312"),
        ("127.0.0.1", "inproc:"),
    ],
)
def test_an_address_of_its_own_is_taken(address: str, peer: str) -> None:
    """A node's own address will do; loopback only where the agent is on the control plane's machine."""
    addresses.check(NodeFacts(public_address=address, signal_address=address), peer)
