"""Connections to an application on its node, and one bounded HTTP exchange over such a connection."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httptools

from footlights.errors import Reason, Unavailable
from footlights.frontdoor.answers import FrontDoorError
from footlights.protocol.launch_secrets import CHALLENGE, PROOF, prove

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.frontdoor.interfaces import Limits, Target


async def dial(target: Target, limits: Limits) -> socket.socket:
    """A connection to the application's signal port, non-blocking and kept alive by TCP.

    Raises:
        FrontDoorError: 502 or 504, ``NODE_UNREACHABLE``.
    """
    loop = asyncio.get_running_loop()
    if target.problem:
        raise _unreachable(target, target.problem, 502)
    try:
        async with asyncio.timeout(limits.connect_timeout_s):
            connection = await _connect(loop, target)
    except TimeoutError:
        raise _unreachable(target, f"no answer in {limits.connect_timeout_s:g} s", 504) from None
    except OSError as problem:
        raise _unreachable(target, _why(problem), 502) from None
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A node that loses its power sends no FIN: find out within about a minute.
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


async def _connect(loop: asyncio.AbstractEventLoop, target: Target) -> socket.socket:
    problem = OSError("no address may be dialled")
    for address in target.dialled:
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, (address, target.signal_port))
        except OSError as error:
            connection.close()
            problem = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise problem


@dataclass(slots=True)
class NodeReply:
    """What an application answered."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def header(self, wanted: str) -> str:
        """The first header of this name (lower case); empty where there is none."""
        return next((value for name, value in self.headers if name == wanted), "")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header (called by httptools)."""
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_body(self, body: bytes) -> None:
        """Add a part of the body (called by httptools)."""
        self.body += body

    def on_message_complete(self) -> None:
        """Note the end (called by httptools)."""
        self.complete = True


async def exchange(
    target: Target, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, limits: Limits
) -> NodeReply:
    """One request to the application, over a connection of its own.

    Raises:
        FrontDoorError: 502 or 504, ``NODE_UNREACHABLE`` or ``APPLICATION_ANSWER_INVALID``.
    """
    proof = await proof_of(target, method, path, limits)
    reply = await _exchange(target, method, path, [*headers, *proof.items()], body, limits)
    if reply.status == 401 and proof and (challenge := reply.header(CHALLENGE.lower())):
        # The challenge was replaced in between, as after so many proofs. Nothing was done with the request.
        again = {PROOF: prove(target.secret, challenge, method, path)}
        reply = await _exchange(target, method, path, [*headers, *again.items()], body, limits)
    if reply.status == 401 and target.secret:
        # As it is, a viewer would take it for its own grant's.
        raise refused_proof()
    return reply


async def proof_of(target: Target, method: str, path: str, limits: Limits) -> dict[str, str]:
    """The header that shows the application, or the agent in front of it, who asks; none without a secret.

    The challenge for it is that of a request which is refused.

    Raises:
        FrontDoorError: as ``exchange`` does.
    """
    if not target.secret:
        return {}
    reply = await _exchange(target, "GET", path, [], b"", limits)
    challenge = reply.header(CHALLENGE.lower())
    if challenge:
        return {PROOF: prove(target.secret, challenge, method, path)}
    if reply.status == 401:
        raise refused_proof()
    return {}


async def _exchange(
    target: Target, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, limits: Limits
) -> NodeReply:
    connection = await dial(target, limits)
    try:
        reader, writer = await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
    try:
        async with asyncio.timeout(limits.answer_timeout_s):
            writer.write(_request(target, method, path, headers, body))
            await writer.drain()
            return await _read(reader, limits)
    except TimeoutError:
        raise _unreachable(target, f"no answer to {method} in {limits.answer_timeout_s:g} s", 504) from None
    except OSError as problem:
        raise _unreachable(target, _why(problem), 502) from None
    finally:
        writer.close()


def _request(target: Target, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    host = f"[{target.address}]" if ":" in target.address else target.address
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{target.signal_port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def _read(reader: asyncio.StreamReader, limits: Limits) -> NodeReply:
    reply = NodeReply()
    parser = httptools.HttpResponseParser(reply)
    received = 0
    while not reply.complete:
        data = await reader.read(65536)
        received += len(data)
        if received > limits.body_bytes:
            raise invalid_answer(f"more than {limits.body_bytes} bytes")
        if not data:
            # Without a length the end of the connection is the end of the body (RFC 9112, section 6.3).
            if _status(parser) and not (reply.header("content-length") or reply.header("transfer-encoding")):
                break
            raise invalid_answer("the connection ended before the answer did")
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as problem:
            raise invalid_answer(f"not HTTP: {problem}") from None
    reply.status = _status(parser)
    return reply


def invalid_answer(problem: str) -> FrontDoorError:
    """502: the application answered something that cannot be passed on."""
    error = Unavailable(
        f"The application's answer cannot be passed on: {problem}. See the session's log.",
        reason=Reason.APPLICATION_ANSWER_INVALID,
    )
    return FrontDoorError(error, 502)


def refused_proof() -> FrontDoorError:
    """502: the application takes the front door for a stranger."""
    return invalid_answer("it refused the front door's secret")


def _status(parser: httptools.HttpResponseParser) -> int:
    """The status that was parsed; 0 before there is one."""
    return int(parser.get_status_code())


def _why(problem: OSError) -> str:
    """What went wrong without the address, which asyncio puts into ``strerror``: viewers need not know it."""
    return os.strerror(problem.errno) if problem.errno and problem.errno > 0 else type(problem).__name__


def _unreachable(target: Target, problem: str, http_status: int) -> FrontDoorError:
    error = Unavailable(
        f"The session's node cannot be reached for signalling: {problem}. Try again; if it persists, check the node.",
        reason=Reason.SIGNALING_UNREACHABLE,
        metadata={"signal_port": str(target.signal_port)},
        retry_after_s=1,
    )
    return FrontDoorError(error, http_status)
