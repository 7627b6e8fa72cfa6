"""Blocks of four ports."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footlights.agent.devices.ports import PortBlocks, PortsExhausted, why_taken
from footlights.launch.launcher import Ports


def free(_ports: Ports) -> str:
    return ""


def test_blocks_do_not_overlap_and_the_range_is_kept() -> None:
    """Every block is four ports of its own within the range, and there are as many as are promised."""
    blocks = PortBlocks(20000, 20014, why_taken=free)
    taken = [blocks.take(str(n)) for n in range(blocks.capacity)]
    numbers = [port for ports in taken for port in (ports.signal, ports.media, ports.http, ports.splice)]
    assert len(set(numbers)) == len(numbers) == 12
    assert min(numbers) >= 20000
    assert max(numbers) <= 20014
    with pytest.raises(PortsExhausted, match="3 are held"):
        blocks.take("one more")


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60))
def test_a_held_block_is_never_given_away(takes: list[bool]) -> None:
    """Whatever is taken and released in whatever order, no two holders share a block."""
    blocks = PortBlocks(20000, 20019, why_taken=free)
    held: dict[str, Ports] = {}
    for number, take in enumerate(takes):
        if take and len(held) < blocks.capacity:
            ports = blocks.take(str(number))
            assert ports not in held.values()
            held[str(number)] = ports
        elif held:
            holder = next(iter(held))
            blocks.release(holder)
            del held[holder]


def test_a_released_block_is_not_the_next_one() -> None:
    """A block that was just given back is taken last, so that a viewer's stale address meets nobody."""
    blocks = PortBlocks(20000, 20011, why_taken=free)
    first = blocks.take("a")
    blocks.release("a")
    assert blocks.take("b") != first


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "offset"),
    [(socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 1), (socket.SOCK_STREAM, 2), (socket.SOCK_STREAM, 3)],
)
@pytest.mark.parametrize(("host", "over"), [("127.0.0.1", ""), ("::1", " (IPv6)")])
def test_a_block_in_use_is_skipped_with_a_reason(
    kind: socket.SocketKind, offset: int, host: str, over: str, ports: Ports
) -> None:
    """A port that somebody else has costs its block, over IPv6 too, and the reason names the port."""
    if over and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = ports.signal + offset
    with socket.socket(socket.AF_INET6 if over else socket.AF_INET, kind) as other:
        other.bind((host, port))
        if kind is socket.SOCK_STREAM:
            other.listen()
        reason = f"{'UDP' if offset == 1 else 'TCP'} port {port}: taken by another process{over}"
        assert why_taken(ports) == reason
        blocks = PortBlocks(ports.signal, ports.splice)
        with pytest.raises(PortsExhausted, match=str(port)):
            blocks.take("x")
        assert blocks.skipped == {ports: reason}
    assert blocks.take("x") == ports
    assert blocks.skipped == {}


def test_adopted_ports_are_held() -> None:
    """Ports that an earlier agent gave out are not given out again, also where its blocks lay otherwise."""
    blocks = PortBlocks(20000, 20015, why_taken=free)
    blocks.adopt("old", Ports(20003, 20004, 20005))
    assert blocks.take("new").signal == 20008
    assert blocks.take("next").signal == 20012
    with pytest.raises(PortsExhausted):
        blocks.take("newer")


def test_the_range_of_a_node_has_the_ports_of_launches_that_an_earlier_agent_started() -> None:
    """They go on although the range was changed: the control plane dials only what is in it."""
    blocks = PortBlocks(20000, 20099)
    assert blocks.range == (20000, 20099)
    blocks.adopt("old", Ports(signal=30000, media=30001, http=30002))
    assert blocks.range == (20000, 30002)
    blocks.release("old")
    assert blocks.range == (20000, 20099)
