"""TLS: whom the client trusts, over a real handshake, and what it says where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from footlights.v1 import token_pb2
from typer.testing import CliRunner

from footlights.cli.app import app
from footlights.client import Client, Tls
from footlights.errors import Unavailable
from tests.client.standin import Standin


@dataclass(frozen=True)
class Identity:
    """A certificate that signs itself, and its key; PEM."""

    certificate: bytes
    key: bytes


def identity(*names: str) -> Identity:
    """Make one for these names, or for localhost; an empty name is none at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
    )
    if known := [x509.DNSName(name) for name in names or ("localhost",) if name]:
        builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return Identity(
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@pytest.fixture(scope="module")
def server() -> Identity:
    return identity()


@pytest.fixture
def standin(server: Identity) -> Iterator[Standin]:
    standin = Standin()
    standin.on("GetCaller", token_pb2.Caller(subject="ada", server_version="0.1.0"))
    yield from standin.serve(grpc.ssl_server_credentials([(server.key, server.certificate)]))


async def test_a_server_is_trusted_by_its_authority(standin: Standin, server: Identity) -> None:
    """With the certificate that signed the server's, calls pass, token and all."""
    async with Client.connect(standin.address, "fl_t", tls=Tls(ca=server.certificate)) as client:
        caller = await client.tokens.caller()

    assert caller.subject == "ada"
    assert standin.calls[0].authorization == "Bearer fl_t"


@pytest.mark.parametrize("trusted", ["nobody", "somebody else"])
async def test_a_server_that_nobody_vouches_for_gets_no_token(standin: Standin, trusted: str) -> None:
    """The handshake fails, so nothing is sent."""
    tls = Tls() if trusted == "nobody" else Tls(ca=identity().certificate)
    async with Client.connect(standin.address, "fl_t", tls=tls) as client:
        with pytest.raises(Unavailable):
            await client.tokens.caller()

    assert standin.calls == []


def test_the_command_line_speaks_tls_too(standin: Standin, server: Identity, tmp_path: Path) -> None:
    """--ca-file is enough; without it the same server cannot be spoken to."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.certificate)
    runner = CliRunner(env={"FOOTLIGHTS_SERVER": standin.address, "FOOTLIGHTS_TOKEN": "fl_t"})

    trusted = runner.invoke(app, ["tokens", "whoami", "--ca-file", str(ca), "-o", "name"])
    plain = runner.invoke(app, ["tokens", "whoami"])

    assert (trusted.exit_code, trusted.stdout) == (0, "ada\n")
    assert plain.exit_code == 5


async def test_what_tls_has_to_do_with_it_is_said(standin: Standin, server: Identity) -> None:
    """Of a server with TLS that is spoken to without, one without it, and one that is not trusted, with what to do."""
    plain = Standin()
    for address, tls, said in (
        (standin.address, None, "has TLS, and this side does not use it. Give --ca-file"),
        (standin.address, Tls(), "is not trusted, or not for that name. Give --ca-file"),
        (standin.address.replace("localhost", "127.0.0.1"), Tls(ca=server.certificate), "not for that name"),
        (next(serving := plain.serve()).address, Tls(), "has no TLS, and this side uses it"),
    ):
        async with Client.connect(address, "fl_t", tls=tls) as client:
            with pytest.raises(Unavailable, match=said) as caught:
                await client.tokens.caller()
        assert caught.value.reason == "TLS_DIFFERS"
        assert caught.value.message.count(address) == 1
    next(serving, None)
    assert standin.calls == plain.calls == []


async def test_the_port_of_http_is_named() -> None:
    """What a browser is pointed at is not what the command line is."""
    answers = await asyncio.start_server(_answer_http, "127.0.0.1", 0)
    async with answers, Client.connect(f"127.0.0.1:{answers.sockets[0].getsockname()[1]}", "fl_t") as client:
        with pytest.raises(Unavailable, match=r"is a port of HTTP.*--grpc-listen"):
            await client.tokens.caller()


async def _answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()
