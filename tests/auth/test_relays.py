"""Relay credentials, checked with an independent reference and, if it is installed, with coturn itself."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aioice import stun, turn

from footlights.auth import relays
from footlights.auth.relays import Relays
from footlights.errors import InvalidArgument

NOW = datetime(2026, 3, 1, tzinfo=UTC)
URLS = ("turn:relay.example.com:3478",)


def test_a_password_is_what_the_convention_says() -> None:
    """The user name is the expiry and the session; the password is what openssl says of it."""
    issued = Relays(URLS, b"north", 3600).issue("0195-a", NOW)

    # printf 1772326800:0195-a | openssl dgst -sha1 -hmac north -binary | base64
    assert (issued.urls, issued.username) == (URLS, "1772326800:0195-a")
    assert issued.credential == "i5LkM/iVOl1A+FS9a3a+3Wqb9Ag="
    assert issued.credential not in repr(issued)


def test_without_a_relay_nothing_is_issued(tmp_path: Path) -> None:
    """No URLs, no issuer; white space around a secret in a file is not part of it."""
    (tmp_path / "secret").write_text("north\n")

    issuer = relays.of(URLS, tmp_path / "secret", 3600)

    assert relays.of((), None, 3600) is None
    assert issuer is not None
    assert issuer.issue("s", NOW) == Relays(URLS, b"north", 3600).issue("s", NOW)


@pytest.mark.parametrize(("text", "says"), [(None, "cannot read .*: No such file"), (" \n", "is empty")])
def test_a_secret_that_is_not_there_is_said(tmp_path: Path, text: str | None, says: str) -> None:
    """By the setting's name, with the file, before anybody is given a password that no relay takes."""
    if text is not None:
        (tmp_path / "secret").write_text(text)

    with pytest.raises(InvalidArgument, match=says) as problem:
        relays.of(URLS, tmp_path / "secret", 3600)

    assert problem.value.field == "turn_secret_file"


async def test_coturn_takes_them_until_they_end(tmp_path: Path) -> None:
    """A real relay allocates for a password of ours, and neither for one that is over nor for another secret's."""
    if shutil.which("turnserver") is None:
        pytest.skip("turnserver is not on this machine (Debian: coturn)")
    now = datetime.now(UTC)
    with _coturn(tmp_path, "north") as address:
        good = Relays(URLS, b"north", 3600)
        async with _allocated(address, good.issue("s", now)) as relayed:
            assert relayed[0] == "127.0.0.1"
        for bad in (good.issue("s", now - timedelta(hours=2)), Relays(URLS, b"south", 3600).issue("s", now)):
            with pytest.raises(stun.TransactionFailed) as refused:
                async with _allocated(address, bad):
                    pass
            assert refused.value.response.attributes["ERROR-CODE"][0] == 401


class _Relayed(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.gone = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        self.gone.set()


@asynccontextmanager
async def _allocated(address: tuple[str, int], issued: relays.Credential) -> AsyncIterator[tuple[str, int]]:
    """The address that a relay allocates."""
    transport, protocol = await turn.create_turn_endpoint(
        _Relayed, server_addr=address, username=issued.username, password=issued.credential
    )
    try:
        yield transport.get_extra_info("sockname")
    finally:
        transport.close()
        await asyncio.wait_for(protocol.gone.wait(), 10)


@contextmanager
def _coturn(directory: Path, secret: str) -> Iterator[tuple[str, int]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = directory / "coturn.log"
    with log.open("wb") as output:
        options = ["--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--log-file=stdout", "--realm=footlights"]
        options += ["--use-auth-secret", f"--static-auth-secret={secret}"]
        options += ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
        options += [f"--pidfile={directory / 'pid'}", f"--userdb={directory / 'db'}"]
        relay = subprocess.Popen(["turnserver", "-n", *options], stdout=output, stderr=output)
    try:
        yield "127.0.0.1", port
    finally:
        relay.kill()
        relay.wait()
