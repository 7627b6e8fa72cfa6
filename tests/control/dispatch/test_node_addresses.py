"""Where a node may say that it is: the front door dials it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from footlights.agent.v1 import node_pb2 as link_node_pb2
from footlights.v1.node_pb2 import NodeFacts

from footlights.control.call.context import peer_address
from footlights.control.dispatch.node_addresses import NodeAddresses, Reached
from footlights.errors import InvalidArgument

FAR = "ipv4:10.0.0.7:40312"
NEAR = "ipv4:127.0.0.1:40312"
PUBLIC = "8.8.8.8"

NAMES = {
    "two.example.com": [PUBLIC, "10.0.0.1"],
    "mapped.example.com": ["::ffff:10.0.0.1"],
    "gpu.example.com": [PUBLIC, "2606:4700::1111"],
}


async def look_up(name: str) -> Sequence[str]:
    if name not in NAMES:
        raise OSError(f"no such name: {name}")
    return NAMES[name]


def addresses(*networks: str) -> NodeAddresses:
    return NodeAddresses(networks, look_up)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("127.0.0.1", FAR),
        ("::1", "ipv6:%5B2001:db8::7%5D:40312"),
        ("::ffff:127.0.0.1", FAR),
        ("64:ff9b::7f00:1", FAR),
        ("2002:7f00:1::", FAR),
        ("169.254.169.254", FAR),
        ("::ffff:169.254.169.254", FAR),
        ("169.254.169.254", NEAR),
        ("0.0.0.0", "inproc:"),
        ("224.0.0.1", FAR),
        ("255.255.255.255", FAR),
        ("10.0.0.8", FAR),
        ("::ffff:10.0.0.8", FAR),
        ("192.168.1.1", NEAR),
        ("100.64.0.1", FAR),
        ("fd00::1", FAR),
        ("two.example.com", FAR),
        ("mapped.example.com", FAR),
    ],
)
async def test_an_address_that_is_not_the_nodes_is_refused(address: str, peer: str) -> None:
    """Neither the control plane's own, nor an internal service, in no spelling and by no name: the error says which."""
    facts = link_node_pb2.NodeFacts(signal_address=address)
    with pytest.raises(InvalidArgument, match="Start the agent with --signal-address") as caught:
        await addresses().check(facts, peer)

    assert (caught.value.reason, caught.value.metadata["address"]) == ("ADDRESS_REFUSED", address)
    reached = await addresses().reach(NodeFacts(signal_address=address), 20000, peer_address(peer))
    assert reached == Reached(problem="its address is not allowed")


@pytest.mark.parametrize("address", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost"])
async def test_the_systems_spellings_of_loopback_are_loopback(address: str) -> None:
    """Decimal, hexadecimal, octal and short forms, and names."""
    system = NodeAddresses(())
    with pytest.raises(InvalidArgument, match="is the control plane itself"):
        await system.check(link_node_pb2.NodeFacts(signal_address=address), FAR)
    assert (await system.reach(NodeFacts(signal_address=address), 20000, "10.0.0.7")).addresses == ()


@pytest.mark.parametrize(
    ("address", "peer", "networks", "dialled"),
    [
        ("10.0.0.7", FAR, (), ["10.0.0.7"]),
        ("::ffff:10.0.0.7", FAR, (), ["10.0.0.7"]),
        ("10.0.0.9", FAR, ("10.0.0.0/24",), ["10.0.0.9"]),
        ("fd00::1", FAR, ("10.0.0.0/24", "fd00::/8"), ["fd00::1"]),
        (PUBLIC, FAR, (), [PUBLIC]),
        ("gpu.example.com", FAR, (), NAMES["gpu.example.com"]),
        ("127.0.0.1", NEAR, (), ["127.0.0.1"]),
        ("127.0.0.1", "ipv6:%5B::1%5D:40312", (), ["127.0.0.1"]),
        ("127.0.0.1", "inproc:", (), ["127.0.0.1"]),
        ("127.0.0.1", NEAR, ("127.0.0.0/8",), ["127.0.0.1"]),
    ],
)
async def test_an_address_of_its_own_is_taken_and_dialled(
    address: str, peer: str, networks: tuple[str, ...], dialled: list[str]
) -> None:
    """Public, the one that it links from, or in a network that an operator has named."""
    own = addresses(*networks)
    await own.check(link_node_pb2.NodeFacts(public_address="203.0.113.7", signal_address=address), peer)

    reached = await own.reach(NodeFacts(signal_address=address), 20000, peer_address(peer))
    assert reached == Reached(tuple(dialled))


async def test_loopback_is_a_network_too_where_networks_are_named() -> None:
    """A proxy on the control plane's machine makes every agent's link come from there."""
    with pytest.raises(InvalidArgument, match="is not in --node-networks"):
        await addresses("10.0.0.0/8").check(link_node_pb2.NodeFacts(signal_address="127.0.0.1"), NEAR)


async def test_a_name_is_checked_again_at_each_dial() -> None:
    """It leads elsewhere later, or nowhere when its agent links: what is dialled is what was checked then."""
    names = {"gpu": ["10.0.0.7"]}

    async def changing(name: str) -> Sequence[str]:
        if name not in names:
            raise OSError(name)
        return names[name]

    own, facts = NodeAddresses((), changing), NodeFacts(signal_address="gpu")
    assert (await own.reach(facts, 20000, "10.0.0.7")).addresses == ("10.0.0.7",)
    names["gpu"] = ["10.0.0.1"]
    assert await own.reach(facts, 20000, "10.0.0.7") == Reached(problem="its address is not allowed")
    names.clear()
    await own.check(link_node_pb2.NodeFacts(signal_address="gpu"), FAR)
    assert await own.reach(facts, 20000, "10.0.0.7") == Reached(problem="its address cannot be looked up")


async def test_names_that_take_long_are_looked_up_a_few_at_once() -> None:
    """Who gives up leaves nothing behind that is looked up later; once there is room names are looked up again."""
    asked: list[str] = []
    over = asyncio.Event()

    async def slow(name: str) -> Sequence[str]:
        asked.append(name)
        await over.wait()
        return [PUBLIC]

    own = NodeAddresses((), slow, patience_s=0.05)
    facts = [NodeFacts(signal_address=f"gpu-{number}.example.com") for number in range(20)]
    found = await asyncio.gather(*(own.reach(each, 20000, "10.0.0.7") for each in facts))
    assert {each.problem for each in found} == {"its address cannot be looked up"}

    over.set()
    assert (await own.reach(facts[0], 20000, "10.0.0.7")).addresses == (PUBLIC,)
    assert asked == [*(f"gpu-{number}.example.com" for number in range(4)), "gpu-0.example.com"]


@pytest.mark.parametrize(
    ("port", "ports", "dialled"),
    [
        (20000, (20000, 20999), True),
        (20999, (20000, 20999), True),
        (21000, (20000, 20999), False),
        (22, (1, 65535), False),
        (22, None, False),
        (5432, None, True),
    ],
)
async def test_only_ports_of_the_nodes_range_are_dialled(
    port: int, ports: tuple[int, int] | None, dialled: bool
) -> None:
    """Whatever its agent reports; and none below 1024, where a machine's own services are."""
    facts = NodeFacts(signal_address=PUBLIC)
    if ports:
        facts.ports.first, facts.ports.last = ports

    assert bool((await addresses().reach(facts, port, "10.0.0.7")).addresses) == dialled


async def test_a_node_that_an_older_server_linked_is_dialled_as_before() -> None:
    """Until its next link, except for what is no machine's own address."""
    own = addresses()
    assert (await own.reach(NodeFacts(signal_address="10.0.0.9"), 20000, None)).addresses == ("10.0.0.9",)
    assert (await own.reach(NodeFacts(signal_address="169.254.169.254"), 20000, None)).addresses == ()
