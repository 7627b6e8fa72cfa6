"""One HTTP request to a running application, over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib

from footlights.protocol.launch_secrets import HEADER

HOST = "127.0.0.1"
MAX_ANSWER_BYTES = 64 << 10


async def connect(port: int, source: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the application that listens on ``port``, from ``source`` where that is given. Raises OSError."""
    address = (source, 0) if source else None
    return await asyncio.open_connection(HOST, port, limit=MAX_ANSWER_BYTES, local_addr=address)


async def ask(
    port: int, path: str, *, method: str = "GET", body: bytes | None = None, secret: str = "", source: str = ""
) -> tuple[int, bytes]:
    """Ask the application that listens on ``port``; return the status and the answer's body. ``secret``: the launch's.

    ``source``: the address to ask from, where the launcher asks for one.

    HTTP/1.0 over a connection of its own: a client's pool costs more than the whole request. Raises OSError or EOFError
    (nothing listens, or the connection was lost) or ValueError (not HTTP).
    """
    reader, writer = await connect(port, source)
    try:
        head = f"{method} {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\nAccept: application/json\r\nConnection: close\r\n"
        if secret:
            head += f"{HEADER}: {secret}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}\r\n".encode("ascii") + (body or b""))
        status_line = await reader.readline()
        if not status_line:
            raise EOFError("the connection was closed without an answer")
        parts = status_line.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            text = status_line[:80].decode("ascii", "replace").strip()
            raise ValueError(f"{text!r} is not an HTTP answer")
        length = MAX_ANSWER_BYTES
        while header := (await reader.readline()).strip().lower():
            name, _, value = header.partition(b":")
            if name == b"content-length":
                length = min(int(value), MAX_ANSWER_BYTES)
        answer = bytearray()
        while len(answer) < length and (piece := await reader.read(length - len(answer))):
            answer += piece
        return int(parts[1]), bytes(answer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
