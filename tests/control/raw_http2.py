"""A gRPC client that does not keep to the rules: HTTP/2 frames by hand, as an attacker sends them."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A header field, spelt out (RFC 7541, section 6.2.2)."""
    return b"\0" + _text(name) + _text(value)


def head(path: str) -> bytes:
    """The header block of a call."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path.encode(),
        b":authority": b"test",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    return b"".join(field(name, value) for name, value in fields.items())


def begin(stream: int, path: str) -> bytes:
    """A call whose message is still to come."""
    return frame(HEADERS, END_HEADERS, stream, head(path))


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    size, rest = bytes([127]), len(text) - 127
    while rest >= 128:
        size, rest = size + bytes([rest % 128 + 128]), rest // 128
    return size + bytes([rest]) + text


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.answers = True
        """Whether it answers what keeps it alive."""
        self.goaway = b""
        """The debug data with which the server ended the connection."""

    def send(self, *frames: bytes) -> None:
        """Send frames, or bytes that are none."""
        self._writer.writelines(frames)

    async def frames(self) -> AsyncIterator[tuple[int, int, int, bytes]]:
        """Yield what comes, until the server ends the connection: kind, flags, stream, payload."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                start = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(start[:3], "big"))
                kind, flags, stream = start[3], start[4], int.from_bytes(start[5:], "big")
                if kind == PING and not flags & ACK and self.answers:
                    self.send(frame(PING, ACK, 0, payload))
                if kind == SETTINGS and not flags & ACK and self.answers:
                    self.send(frame(SETTINGS, ACK, 0))
                if kind == GOAWAY:
                    self.goaway = payload[8:]
                yield kind, flags, stream, payload

    async def until_closed(self) -> None:
        """Wait until the server ends the connection."""
        async for _ in self.frames():
            pass

    async def until(self, kind: int, stream: int = 0) -> bytes:
        """Wait for a frame of a kind on a stream; return its payload. Raises ConnectionError where none comes."""
        async for found, _, on, payload in self.frames():
            if (found, on) == (kind, stream):
                return payload
        raise ConnectionError(f"closed by the server: {self.goaway!r}")


@contextlib.asynccontextmanager
async def raw(port: int, *first: bytes, settings: bytes = b"", source: str = "127.0.0.1") -> AsyncIterator[Raw]:
    """A connection on which the preface, settings and ``first`` were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        found = Raw(reader, writer)
        found.send(PREFACE, frame(SETTINGS, 0, 0, settings), *first)
        yield found
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
