"""Whose ports are these?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from footlights.launch.launcher import Ports
from footlights.launch.process import ownership

OWN = frozenset({os.getpid()})
HOLDER = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); print('up', flush=True); sys.stdin.read()"


def listening(kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, port: int = 0) -> socket.socket:
    bound = socket.socket(family, kind)
    bound.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
    if kind == socket.SOCK_STREAM:
        bound.listen()
    return bound


@pytest.fixture
def ports() -> Iterator[tuple[Ports, list[socket.socket]]]:
    """A launch's three ports, listened on by this process."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(listening()),
            stack.enter_context(listening(socket.SOCK_DGRAM)),
            stack.enter_context(listening()),
        ]
        signal, media, http = (bound.getsockname()[1] for bound in sockets)
        yield Ports(signal=signal, media=media, http=http), sockets


def test_own_listeners(ports: tuple[Ports, list[socket.socket]]) -> None:
    """Listeners of the tree are inside, with their process; none is outside."""
    ours, _ = ports

    assert ownership.listeners_outside(ours, OWN) == ()
    inside = ownership.listeners_inside(ours, OWN)
    assert {(one.protocol, one.port, one.pid) for one in inside} == {
        ("TCP", ours.signal, os.getpid()),
        ("UDP", ours.media, os.getpid()),
        ("TCP", ours.http, os.getpid()),
    }


def test_somebody_elses(ports: tuple[Ports, list[socket.socket]]) -> None:
    """Seen from another tree the same listeners are outside, named for a person."""
    ours, _ = ports
    other = frozenset({1})

    outside = ownership.listeners_outside(ours, other)

    assert {one.pid for one in outside} == {os.getpid()}
    assert f"TCP port {ours.signal} belongs to pid {os.getpid()}" in {str(one).rpartition(" (")[0] for one in outside}
    assert ownership.listeners_inside(ours, other) == ()


def test_nobody(ports: tuple[Ports, list[socket.socket]]) -> None:
    """Ports that nothing listens on have no listeners."""
    ours, sockets = ports
    for bound in sockets:
        bound.close()

    assert ownership.listeners_outside(ours, OWN) == ()
    assert ownership.listeners_inside(ours, OWN) == ()


def test_another_address_of_the_same_port(ports: tuple[Ports, list[socket.socket]]) -> None:
    """A second listener on the same port at another address is told apart from the first."""
    ours, _ = ports
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import socket, sys; s = socket.socket(); s.bind(('127.0.0.2', int(sys.argv[1])));"
            "s.listen(); print('up', flush=True); sys.stdin.read()",
            str(ours.signal),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"up\n"

    outside = ownership.listeners_outside(ours, OWN)

    holder.communicate()
    assert [(one.protocol, one.port, one.pid) for one in outside] == [("TCP", ours.signal, holder.pid)]


def test_inherited(ports: tuple[Ports, list[socket.socket]]) -> None:
    """A listener that a child inherited belongs to the tree if either of them does."""
    ours, sockets = ports
    descriptor = sockets[0].fileno()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(descriptor)],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"up\n"

    as_parent = ownership.listeners_outside(ours, OWN)
    as_child = [one for one in ownership.listeners_outside(ours, {holder.pid}) if one.port == ours.signal]

    holder.communicate()
    assert (as_parent, as_child) == ((), [])


def test_connections(ports: tuple[Ports, list[socket.socket]]) -> None:
    """Each connection to the port counts once, though both its ends are on this machine; listeners do not count."""
    ours, sockets = ports
    assert ownership.connections(ours.signal) == 0

    with socket.create_connection(("127.0.0.1", ours.signal)), sockets[0].accept()[0]:
        assert ownership.connections(ours.signal) == 1


def test_in_a_process_network(ports: tuple[Ports, list[socket.socket]]) -> None:
    """Listeners and connections of another network are seen through any of its processes; of none there are none."""
    ours, sockets = ports

    assert ownership.listening_hosts(ours.signal, os.getpid()) == {"127.0.0.1"}
    assert not ownership.listening_hosts(ours.signal, 2**22 + 1)
    with socket.create_connection(("127.0.0.1", ours.signal)), sockets[0].accept()[0]:
        assert ownership.connections(ours.signal, os.getpid()) == 1
        assert ownership.connections(ours.signal, 2**22 + 1) == 0


def test_all_that_a_tree_listens_on(ports: tuple[Ports, list[socket.socket]]) -> None:
    """With their addresses, of both families; nobody else's; what may not be looked into is not known."""
    ours, _ = ports
    with listening(family=socket.AF_INET6) as six, listening() as again:
        found = ownership.listening(OWN)
        six_port, again_port = six.getsockname()[1], again.getsockname()[1]

    assert found is not None
    assert {f"TCP 127.0.0.1:{ours.signal}", f"TCP [::1]:{six_port}", f"TCP 127.0.0.1:{again_port}"} <= {
        str(each) for each in found
    }
    assert ownership.listening(frozenset({os.getppid()}), os.getpid()) in ((), None)
    assert ownership.listening(frozenset({2**22 + 1})) is None
