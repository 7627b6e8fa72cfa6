"""Connections of one address beyond a bound are ended, for a server that cannot do it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from footlights.linux.sockets import AddressLimit, shut_down


@contextlib.contextmanager
def connections(port: int, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=(source, 0)))
            for _ in range(count)
        ]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as found:
        yield found


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not ended it."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True


def test_the_newest_of_an_address_are_ended(listening: socket.socket) -> None:
    """Those that were there before stay, as do those of another address and of another port."""
    port = listening.getsockname()[1]
    limit = AddressLimit(port, 4)
    with (
        contextlib.ExitStack() as accepted,
        socket.create_server(("127.0.0.1", 0), backlog=100) as beside,
        connections(port, 4) as old,
        connections(port, 4, "127.0.0.2") as other,
        connections(beside.getsockname()[1], 9) as unrelated,
    ):

        def accept(server: socket.socket, count: int) -> None:
            for _ in range(count):
                accepted.enter_context(server.accept()[0])

        accept(listening, 8)
        accept(beside, 9)
        before = limit.enforce()
        with connections(port, 5) as new:
            accept(listening, 5)
            ended = limit.enforce()

            assert (before, ended) == (0, 5)
            assert [is_open(each) for each in new] == [False] * 5
            assert all(is_open(each) for each in (*old, *other, *unrelated))
            # The server has not closed them yet: they are ended once.
            assert limit.enforce() == 0


def test_one_connection_is_ended(listening: socket.socket) -> None:
    """By its client's address and port, whichever kind of addresses the server listens for; no other one is."""
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    for server in (listening, both):
        port = server.getsockname()[1]
        with server, connections(port, 2) as (one, other), server.accept()[0], server.accept()[0]:
            found = [shut_down(port, one.getsockname()), shut_down(port, ("192.0.2.1", 7))]

            assert (found, is_open(one), is_open(other)) == ([True, False], False, True)


def test_what_is_gone_makes_room(listening: socket.socket) -> None:
    """A connection that its client has closed, and its server, is not counted."""
    port = listening.getsockname()[1]
    limit = AddressLimit(port, 2)
    with connections(port, 2):
        for each in [listening.accept()[0] for _ in range(2)]:
            limit.enforce()
            each.close()
    with connections(port, 2) as later, contextlib.ExitStack() as accepted:
        for _ in range(2):
            accepted.enter_context(listening.accept()[0])

        assert limit.enforce() == 0
        assert all(is_open(each) for each in later)


def test_addresses_of_one_client_are_counted_together(listening: socket.socket) -> None:
    """Where the caller says that they are one, as all of one network of IPv6."""
    port = listening.getsockname()[1]
    limit = AddressLimit(port, 2, lambda address: address.rpartition(".")[0])
    with connections(port, 2), connections(port, 2, "127.0.0.2"), contextlib.ExitStack() as accepted:
        for _ in range(4):
            accepted.enter_context(listening.accept()[0])

        assert limit.enforce() == 2
