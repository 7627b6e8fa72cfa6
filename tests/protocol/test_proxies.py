"""Proxies of the environment: not for this machine, and named where they are the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from footlights.v1 import token_pb2

from footlights.client import Client
from footlights.errors import Unavailable
from footlights.protocol.dialing.proxies import DIRECT, EXCEPTIONS, VARIABLES, channel_options, proxy_hint
from tests.client.standin import Standin

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *EXCEPTIONS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def standin() -> Iterator[Standin]:
    standin = Standin()
    standin.on("GetCaller", token_pb2.Caller(subject="ada", server_version="0.1.0"))
    yield from standin.serve()


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.9.1:50051", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("LOCALHOST:50051", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051", True),
        ("unix:/run/a.sock", True),
        ("10.0.0.1:50051", False),
        ("localhost.example.com:50051", False),
        ("[2001:db8::1]:50051", False),
        ("dns:///control.example.com:50051", False),
    ],
)
def test_this_machine_is_reached_directly(target: str, here: bool) -> None:
    """However it is spelled; everything else may need a proxy."""
    assert channel_options(target) == (DIRECT if here else ())
    assert bool(proxy_hint(target, {"http_proxy": NOWHERE})) is not here


@pytest.mark.parametrize("variable", VARIABLES)
async def test_a_client_reaches_this_machine_whatever_proxies_there_are(
    variable: str, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would ask the proxy for it."""
    monkeypatch.setenv(variable, NOWHERE)
    async with Client.connect(standin.address, "fl_t") as client:
        assert (await client.tokens.caller()).subject == "ada"


async def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its variable and what to do, without its password."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://ann:secret@127.0.0.1:{port}")
        async with Client.connect("control.example.com:50051", "fl_t") as client:
            with pytest.raises(Unavailable) as caught:
                await client.tokens.caller()

    said = caught.value.message
    assert f"https_proxy has connections to control.example.com go through the proxy http://127.0.0.1:{port}." in said
    assert "no_proxy" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    "given", ["http://ann:se@cret@proxy:3128", "http://ann:se/cret@proxy:3128", "ann:se@proxy:3128"]
)
def test_no_password_is_shown_however_it_is_written(given: str) -> None:
    """Many have characters that should be escaped in a URL."""
    said = proxy_hint("control.example.com:50051", {"http_proxy": given})

    assert "proxy:3128." in said
    assert not any(part in said for part in ("ann", "se@", "se/", "cret"))


@pytest.mark.parametrize(
    "excepted", ["control.example.com", "a,.example.com", "*", "*.example.com", "EXAMPLE.com , b", "x"]
)
def test_what_is_excepted_is_not_blamed_on_a_proxy(excepted: str) -> None:
    """As gRPC takes the exceptions; networks too."""
    environ = {"http_proxy": NOWHERE, "no_proxy": excepted}

    assert bool(proxy_hint("control.example.com:50051", environ)) is (excepted == "x")
    assert not proxy_hint("10.1.2.3:50051", {"grpc_proxy": NOWHERE, "no_grpc_proxy": "10.1.0.0/16"})
    assert proxy_hint("10.2.2.3:50051", {"grpc_proxy": NOWHERE, "no_grpc_proxy": "10.1.0.0/16"})
    assert not proxy_hint("control.example.com:50051", {})
