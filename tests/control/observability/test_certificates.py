"""Until when the certificate is good that a server serves with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from footlights.control.observability.certificates import expiry, name
from footlights.control.replication.peers import Peers
from footlights.errors import InvalidArgument
from tests.client.test_tls import identity
from tests.control.harness import control


def test_a_chain_ends_with_its_first(tmp_path: Path) -> None:
    """Of several certificates in a file the one that ends first counts."""
    first, second = identity(), identity()
    path = tmp_path / "chain.pem"
    path.write_bytes(second.certificate + first.certificate)

    ends = [x509.load_pem_x509_certificate(one.certificate).not_valid_after_utc for one in (first, second)]

    assert expiry(path) == min(ends)


@pytest.mark.parametrize(("text", "says"), [(None, "cannot be read"), ("", "holds no certificate")])
def test_what_is_no_certificate_is_said(tmp_path: Path, text: str | None, says: str) -> None:
    """By the setting's name and the file."""
    if text is not None:
        (tmp_path / "chain.pem").write_text(text)

    with pytest.raises(InvalidArgument, match=says) as problem:
        expiry(tmp_path / "chain.pem")

    assert problem.value.field == "tls_cert"


async def test_a_server_says_it(tmp_path: Path, migrated: Path) -> None:
    """Among its figures is when its certificate ends; 0 without one."""
    one = identity()
    (tmp_path / "tls.crt").write_bytes(one.certificate)
    ends = x509.load_pem_x509_certificate(one.certificate).not_valid_after_utc.timestamp()
    shown: list[float] = []
    served: dict[str, Any] = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    for settings in (served, {}):
        async with control(tmp_path / str(len(shown)), migrated, **settings) as plane:
            text = (await plane.rest("GET", "/metrics", "")).text
        (line,) = [line for line in text.splitlines() if line.startswith("footlights_certificate_expiry")]
        shown.append(float(line.split()[1]))

    assert shown == [ends, 0]


@pytest.mark.parametrize("names", [["localhost"], ["*.example.com"]], ids=["plain", "wildcard"])
async def test_replicas_find_each_other_by_address(tmp_path: Path, names: list[str]) -> None:
    """Over TLS a replica reaches another at an address that no certificate names, for both serve with the same one."""
    mine, other = identity(*names), identity(*names)
    (tmp_path / "tls.crt").write_bytes(mine.certificate)
    peers = Peers(None, None, None, "proof", tmp_path / "tls.crt")  # type: ignore[arg-type]  # none of them is asked
    try:
        for served, reached in ((mine, True), (other, False)):
            server = grpc.aio.server()
            port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([(served.key, served.certificate)])
            )
            await server.start()
            ready = asyncio.wait_for(peers._channel(f"127.0.0.1:{port}").channel_ready(), 10 if reached else 1)
            if reached:
                await ready
            else:
                with pytest.raises(TimeoutError):
                    await ready
            await server.stop(0)
    finally:
        await peers.close()


def test_a_certificate_may_name_nobody(tmp_path: Path) -> None:
    """One that is for addresses alone, or for nothing, has no name; dialling by address is then as it names."""
    (tmp_path / "tls.crt").write_bytes(identity().certificate)
    assert name(tmp_path / "tls.crt") == "localhost"
    (tmp_path / "tls.crt").write_bytes(identity("").certificate)
    assert name(tmp_path / "tls.crt") == ""
