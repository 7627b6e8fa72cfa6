"""Passes viewers that dial a node on to the servers' front door.

NVIDIA's players dial signalling at the host of media, which is the node. The node cannot tell who may watch; the front
door can. So a node that is dialled as a player does, by ``/sign_in``, is a way to the front door and to nothing else
there: the front door asks for a grant, or for what else opens a session, and then dials the session's own door.

What is encrypted between viewers and the front door is so here: without TLS nothing is passed on to a front door that
has it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from footlights.ids import is_loopback
from footlights.launch import connections
from footlights.launch.connections import HEAD_BYTES, Head
from footlights.protocol.launch_secrets import PROOF

if TYPE_CHECKING:
    from collections.abc import Callable

PASSED: Final = "Footlights-Passed-On"
"""The header of a request that a node passes on: a front door's address that leads back to a node is noticed."""
_TARGET: Final = re.compile(r"(?:/(?:v1/sessions|stream)/[A-Za-z0-9._~%-]+)?/sign_in(?:\?[!-~]*)?")
_NOT_PASSED: Final = re.compile(
    r"host|content-.*|transfer-.*|te|trailer|expect|keep-alive|forwarded|x-forwarded-.*|x-real-ip|proxy-.*|footlights-.*"
)
_DIAL_S: Final = 5.0
_ANSWER_S: Final = 30.0
"""A front door waits for the application's answer before its own."""
_MOST_ANSWER_BYTES: Final = 256 << 10
_TRUST_S: Final = 60.0
"""How long authorities that were read are trusted: to read them takes long, and anybody may have a node dial."""
_log = structlog.get_logger(__name__)


class FrontDoorWay:
    """The way from a node to the front door.

    Args:
        trust: Makes what its certificate must lead to.
        is_here: Whether the control plane is on this machine, so that a loopback address is its.
    """

    def __init__(
        self, trust: Callable[[], ssl.SSLContext] = ssl.create_default_context, *, is_here: bool = True
    ) -> None:
        self._trust, self._is_here = trust, is_here
        self._context: ssl.SSLContext | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._url = ""
        self._said = ""

    def learn(self, url: str) -> None:
        """Note where it is: its origin and, where it has one, the path before its routes; empty: nowhere."""
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname
        # At a loopback address is the machine of who says so; here it would be anything.
        other = known and is_loopback(parts.hostname or "") and not self._is_here
        self._url = url.rstrip("/") if known and not other else ""

    def takes(self, head: Head, *, tls: bool) -> bool:
        """Whether a request is one to pass on: a player's, with as much encryption as the front door has."""
        if not self._url or not (tls or self._url.startswith("http:")) or head.values(PROOF.lower()):
            return False
        if not head.is_plain or head.version != "HTTP/1.1" or not _TARGET.fullmatch(head.target):
            return False
        return head.method in ("HEAD", "DELETE", "OPTIONS") or _upgrades(head)

    async def pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        head: Head,
        *,
        joined: Callable[[], bool],
    ) -> None:
        """Pass on one request that ``takes`` takes, and what it becomes.

        ``joined`` is called once the front door has let the viewer in, and says whether there is room for it.
        """
        if head.values(PASSED.lower()):
            self._say("the front door's address leads back to this node")
            await connections.answer(writer, "508 Loop Detected", "the front door's address leads back to a node")
            return
        try:
            async with asyncio.timeout(_DIAL_S):
                inner, inner_writer = await self._dial()
        except (OSError, TimeoutError) as error:
            self._say(f"the front door cannot be reached: {error or type(error).__name__}")
            await connections.answer(writer, "502 Bad Gateway", "the node cannot reach the front door")
            return
        try:
            for each in (writer, inner_writer):
                connections.keep_alive(each)
            inner_writer.write(self._written(head))
            reply = await connections.read_head(inner, _ANSWER_S)
            if not reply:
                await connections.answer(writer, "504 Gateway Timeout", "the front door did not answer")
            elif reply.startswith(b"HTTP/1.1 101 "):
                if joined():
                    writer.write(reply)
                    await connections.join(reader, writer, inner, inner_writer)
                else:
                    await connections.answer(writer, "503 Service Unavailable", "there are too many viewers already")
            else:
                await self._answer(writer, reply, inner)
        finally:
            inner_writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self._url)
        tls = url.scheme == "https"
        return await asyncio.open_connection(
            url.hostname,
            url.port or (443 if tls else 80),
            limit=HEAD_BYTES,
            ssl=await self._trusted() if tls else None,
        )

    async def _trusted(self) -> ssl.SSLContext:
        """Return what a certificate must lead to, read beside the event loop and rarely."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if self._context is None or now - self._read_at >= _TRUST_S:
                self._context, self._read_at = await asyncio.to_thread(self._trust), now
            return self._context

    def _written(self, head: Head) -> bytes:
        url = urlsplit(self._url)
        ends = not _upgrades(head)
        headers = [
            (name, value)
            for name, value in head.headers
            if not _NOT_PASSED.fullmatch(name.lower()) and not (ends and name.lower() in ("connection", "upgrade"))
        ]
        headers += [("Host", url.netloc.rpartition("@")[2]), (PASSED, "1")]
        if ends:
            # One request and no more: what follows it on the connection is not passed on.
            headers += [("Connection", "close"), ("Content-Length", "0")]
        lines = [f"{head.method} {url.path}{head.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _answer(self, writer: asyncio.StreamWriter, reply: bytes, inner: asyncio.StreamReader) -> None:
        """Pass on an answer that is no socket: the front door ends the connection with it, or soon after."""
        writer.write(reply)
        left = _MOST_ANSWER_BYTES
        if (length := _length(reply)) is not None:
            left = min(left, length)
        try:
            async with asyncio.timeout(_ANSWER_S):
                while left and (piece := await inner.read(min(left, HEAD_BYTES))):
                    left -= len(piece)
                    writer.write(piece)
                    await writer.drain()
        except TimeoutError:
            return
        await connections.finish(writer)

    def _say(self, problem: str) -> None:
        """Log it once until it changes: every viewer's try would say the same."""
        if problem != self._said:
            self._said = problem
            _log.warning("viewers_not_passed_on", problem=problem, front_door=self._url)


def _upgrades(head: Head) -> bool:
    return head.method == "GET" and [value.lower() for value in head.values("upgrade")] == ["websocket"]


def _length(reply: bytes) -> int | None:
    values = Head.of(reply).values("content-length")
    return int(values[0]) if len(values) == 1 and values[0].isascii() and values[0].isdigit() else None
