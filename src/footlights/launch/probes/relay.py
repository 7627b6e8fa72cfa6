"""Gives a running application the relay that its media may take, as NVIDIA's cloud functions do.

``POST http://127.0.0.1:{http_port}{signaling.relay_path}`` with ``{"stunIp": "192.0.2.9", "stunPort": 3478,
"username": "…", "password": "…"}``; the answer is ``{"success": true}``, or false with ``errorMessage``. The address is
an IP, and the relay is reached over UDP. Where it needs no credentials (STUN alone), both are empty.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback
from footlights.launch.probes.readiness import answer_of, explained

if TYPE_CHECKING:
    from footlights.launch.launcher import LaunchPlan

TIMEOUT_S: Final = 5.0
_PORT: Final = 3478
_URL: Final = re.compile(
    r"(?:turn|stun):(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?(?:\?transport=udp)?"
)


@dataclass(frozen=True, slots=True)
class RelayAccess:
    """A relay, and what one launch may use it with."""

    urls: tuple[str, ...]
    """Its ``turn:`` or ``stun:`` URLs, the best one first."""
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and port of the first URL that an application can be given; None where it can be given none."""
        for url in self.urls:
            found = _URL.fullmatch(url)
            if found is not None and 0 < (port := int(found["port"] or _PORT)) < 65536:
                return found["host"].strip("[]"), port
        return None


async def give_relay(plan: LaunchPlan, relay: RelayAccess, *, secret: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Give it once; return why the application does not have it, empty where it has. ``secret`` is the launch's."""
    if relay.address is None:
        return f"it is at {' and '.join(relay.urls)}, and an application takes turn:HOST:PORT, over UDP"
    host, port = relay.address
    path = plan.version.signaling.relay_path
    what = f"POST http://{loopback.HOST}:{plan.ports.http}{path}"
    try:
        async with asyncio.timeout(timeout_s):
            try:
                ip = await _resolved(host, port)
            except OSError as error:
                return f"the name {host} is not known: {error.strerror or error}"
            credentials = {"username": relay.username, "password": relay.password}
            body = json.dumps({"stunIp": ip, "stunPort": port, **credentials}).encode()
            source = traits_of(plan.version).asked_from
            status, answer = await loopback.ask(
                plan.ports.http, path, method="POST", body=body, secret=secret, source=source
            )
    except (OSError, ValueError, EOFError, TimeoutError) as error:
        return f"{what}: {explained(error, timeout_s)}"
    if 200 <= status < 300 and not _refuses(answer):
        return ""
    # The answer may repeat what was sent.
    return f"{what}: {answer_of(status, answer, relay.password, relay.username, secret)}"


async def _resolved(host: str, port: int) -> str:
    """Return an address of a host, of IPv4 where it has one. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return str(found[0][4][0])


def _refuses(answer: bytes) -> bool:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("success", True) is not True
