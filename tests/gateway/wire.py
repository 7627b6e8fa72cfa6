"""HTTP by hand: requests that stay open, answers that are read as they come."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def opened(port: int, head: str, body: bytes = b"") -> Iterator[socket.socket]:
    """A connection on which a request has been sent: its first line and headers, without the Host."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        lines = head.replace("\n", "\r\n")
        peer.sendall(f"{lines}\r\nHost: gw.test\r\n\r\n".encode() + body)
        yield peer


def read_until(peer: socket.socket, mark: bytes) -> bytes:
    """What comes until a mark is in it."""
    got = b""
    while mark not in got:
        chunk = peer.recv(65536)
        assert chunk, f"the connection ended before {mark!r}: {got!r}"
        got += chunk
    return got


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until something holds; how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not come about in time"
        time.sleep(0.005)
    return time.monotonic() - start
