"""The connections of this process to one of its ports, by their clients' addresses, where its server counts none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_OPEN_FILES: Final = Path("/proc/self/fd")


def shut_down(port: int, client: tuple[str, int]) -> bool:
    """End the connection of a client, by address and port, to ``port``; return whether there is one.

    It takes time with the number of open files: use a thread.
    """
    for link, descriptor in _sockets().items():
        if (connection := _opened(link, descriptor)) is not None:
            with connection, contextlib.suppress(OSError):
                if _client(connection, port) == client:
                    connection.shutdown(socket.SHUT_RDWR)
                    return True
    return False


class AddressLimit:
    """Ends connections to a port beyond so many of one address; the newest of them, as far as that is known."""

    def __init__(self, port: int, most: int, client_of: Callable[[str], str] = str) -> None:
        """Create it; nothing is ended before ``enforce``. Addresses for which ``client_of`` is equal are one."""
        self._port, self._most, self._client_of = port, most, client_of
        self._known: dict[str, str] = {}
        """The sockets that are open, in the order in which they were found, and their clients' addresses; empty for
        what is no connection to the port."""

    def enforce(self) -> int:
        """End what is beyond the limit; return how many. It takes time with the number of open files: use a thread."""
        found = _sockets()
        if len(found) <= self._most:
            return 0
        known = {link: address for link, address in self._known.items() if link in found}
        for link, descriptor in found.items():
            if link not in known:
                known[link] = self._address(link, descriptor)
        self._known = known
        counts = Counter(address for address in known.values() if address)
        return sum(self._end_newest(address, found) for address, count in counts.items() if count > self._most)

    def _end_newest(self, address: str, found: dict[str, int]) -> int:
        ended = 0
        for link in [link for link, of in self._known.items() if of == address][self._most :]:
            if (connection := _opened(link, found[link])) is not None:
                with connection, contextlib.suppress(OSError):
                    # The server that has it sees its end, and closes it.
                    connection.shutdown(socket.SHUT_RDWR)
                    self._known[link] = ""
                    ended += 1
        return ended

    def _address(self, link: str, descriptor: int) -> str:
        if (connection := _opened(link, descriptor)) is not None:
            with connection, contextlib.suppress(OSError):
                return self._client_of(_client(connection, self._port)[0])
        return ""


def _sockets() -> dict[str, int]:
    """Return the sockets of this process by what identifies them, with a descriptor of each."""
    found: dict[str, int] = {}
    for name in os.listdir(_OPEN_FILES):
        with contextlib.suppress(OSError):
            link = os.readlink(_OPEN_FILES / name)
            if link.startswith("socket:"):
                found[link] = int(name)
    return found


def _client(connection: socket.socket, port: int) -> tuple[str, int]:
    """Return the client of a connection to ``port``; an empty address where it is none.

    Raises OSError where it has no client, because it listens or is over.
    """
    if connection.type != socket.SOCK_STREAM or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return "", 0
    if connection.getsockname()[1] != port:
        return "", 0
    address, client_port = connection.getpeername()[:2]
    # What listens for both kinds of addresses sees IPv4 within IPv6.
    return address.removeprefix("::ffff:"), client_port


def _opened(link: str, descriptor: int) -> socket.socket | None:
    """Return a socket by a descriptor of its own, or None where the given one is no longer that of ``link``.

    Its owner may close the given one meanwhile, and the number may be another file's.
    """
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        if os.readlink(_OPEN_FILES / str(copy)) == link:
            return socket.socket(fileno=copy)
    except OSError:
        pass
    os.close(copy)
    return None
