"""Clients that go away: each sends a whole request and resets its connection, a little later than the one before."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

STEP_S = 0.0007
"""What lies between two of them: together they go away at every point of a creation, which takes some milliseconds."""


async def vanish(url: str, token: str, bodies: list[dict[str, Any]]) -> None:
    """Create sessions, and be gone after so many steps as there were bodies before."""
    await asyncio.gather(*(_one(url, token, body, number * STEP_S) for number, body in enumerate(bodies)))


async def _one(url: str, token: str, body: dict[str, Any], after_s: float) -> None:
    place = urlsplit(url)
    content = json.dumps(body).encode()
    head = (
        f"POST /stream HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    try:
        _, writer = await asyncio.open_connection(place.hostname, place.port)
    except OSError:
        return  # the server is hurt just now, too
    # A reset, not an end: nobody will read what is still on its way.
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(head.encode() + content)
    await asyncio.sleep(after_s)
    writer.transport.abort()
