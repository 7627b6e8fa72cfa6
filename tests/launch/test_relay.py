"""An application is given its relay, `probes.relay`: what is sent, and what its answer means."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from footlights.v1.application_pb2 import Signaling, Version

from footlights.launch.launcher import LaunchPlan, Ports
from footlights.launch.probes.relay import RelayAccess, give_relay
from tests.launch.plans import make_plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATH = "/v1/streaming/creds"
ACCESS = RelayAccess(("turn:127.0.0.1:3478",), "1770000000:session", "p4ss")


@asynccontextmanager
async def application(tmp_path: Path, status: str, body: bytes) -> AsyncIterator[tuple[LaunchPlan, list[bytes]]]:
    """One that answers each request so, and keeps what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
        asked.append(head + await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        plan = make_plan(Version(version="1.0.0", signaling=Signaling(relay_path=PATH)), tmp_path)
        port = server.sockets[0].getsockname()[1]
        yield replace(plan, ports=Ports(plan.ports.signal, plan.ports.media, port)), asked
    finally:
        server.close()


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        (["turn:192.0.2.1:3478"], ("192.0.2.1", 3478)),
        (["turn:relay.example.com"], ("relay.example.com", 3478)),
        (["turn:relay.example.com:80?transport=udp"], ("relay.example.com", 80)),
        (["stun:192.0.2.1:19302"], ("192.0.2.1", 19302)),
        (["turn:[2001:db8::1]:3479"], ("2001:db8::1", 3479)),
        (["turns:r:443", "turn:r:443?transport=tcp", "turn:r:3478"], ("r", 3478)),
        (["turns:r:443"], None),
        (["turn:r:443?transport=tcp"], None),
        (["turn:r:0"], None),
        (["turn:r:99999"], None),
        (["turn:user@r:1"], None),
        (["turn:r\r\n:1"], None),
        ([], None),
    ],
)
def test_the_address_is_one_that_an_application_can_be_given(urls: list[str], address: tuple[str, int] | None) -> None:
    """A host and a port over UDP: it can be told neither TLS nor TCP."""
    assert RelayAccess(tuple(urls)).address == address


async def test_what_is_sent_is_the_published_form(tmp_path: Path) -> None:
    """An IP, whatever the URL has; a number; and the launch's secret, by which the application knows its agent."""
    access = RelayAccess(("turn:localhost:3479",), ACCESS.username, ACCESS.password)
    async with application(tmp_path, "200 OK", b'{"success": true, "errorMessage": null}') as (plan, asked):
        problem = await give_relay(plan, access, secret="fls_x")

    [request] = asked
    head, _, body = request.partition(b"\r\n\r\n")
    assert problem == ""
    assert head.startswith(f"POST {PATH} HTTP/1.0\r\n".encode())
    assert b"Footlights-Launch-Secret: fls_x" in head
    assert json.loads(body) == {
        "stunIp": "127.0.0.1",
        "stunPort": 3479,
        "username": "1770000000:session",
        "password": "p4ss",
    }


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        ("200 OK", b'{"success": true}', ""),
        ("200 OK", b"", ""),
        ("204 No Content", b"", ""),
        ("200 OK", b'{"success": false, "errorMessage": "no livestream"}', "'no livestream'"),
        ("200 OK", b'{"success": false}', "200 OK"),
        ("200 OK", b'{"success": "no"}', "200 OK"),
        ("200 OK", b'{"success": null}', "200 OK"),
        ("404 Not Found", b'{"detail": "Not Found"}', "404 Not Found, 'Not Found'"),
        ("422 Unprocessable Entity", b'{"detail": [{"loc": ["body"]}]}', "422 Unprocessable"),
        ("500 Internal Server Error", b"p4ss is not 1770000000:session", "'[redacted] is not [redacted]'"),
        ("200 OK", b"[" * 60_000, ""),
    ],
)
async def test_its_answer_is_believed(tmp_path: Path, status: str, body: bytes, says: str) -> None:
    """Taken is what it says it took; what it repeats of the credentials is not shown."""
    async with application(tmp_path, status, body) as (plan, _):
        problem = await give_relay(plan, ACCESS)

    assert bool(problem) == bool(says)
    assert says in problem
    assert "p4ss" not in problem


@pytest.mark.parametrize(
    ("access", "says"),
    [
        (RelayAccess(("turns:r:443",)), "turns:r:443"),
        (RelayAccess(("turn:no-such-name.invalid:1",)), "no-such-name.invalid is not known"),
        (ACCESS, "connection refused"),
    ],
)
async def test_what_keeps_it_from_being_given_is_said(tmp_path: Path, access: RelayAccess, says: str) -> None:
    """An address that it cannot take, a name that is not known, nobody who listens."""
    async with application(tmp_path, "200 OK", b"") as (plan, asked):
        pass
    problem = await give_relay(plan, access)

    assert says in problem
    assert asked == []


def test_a_relays_password_is_not_in_its_text() -> None:
    """Logs are made of such texts."""
    texts: list[Any] = [ACCESS, [ACCESS]]
    assert not [text for text in texts if "p4ss" in repr(text)]
