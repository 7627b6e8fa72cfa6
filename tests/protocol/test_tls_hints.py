"""What TLS has to do with a server out of reach; over real handshakes in `tests/client/test_tls.py`."""

from __future__ import annotations

import socket

import pytest

from footlights.protocol.dialing.tls_hints import is_other_certificate, tls_hint


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("server", ["unix:/run/footlights", "nonsense", "127.0.0.1:1", "[::1]:1"])
async def test_nothing_is_said_of_what_is_not_known(server: str, tls: bool) -> None:
    """Such as a server that is not there, or is reached without a network."""
    assert await tls_hint("Socket closed", server, tls=tls) == ""
    assert await tls_hint("Connection refused", server, tls=tls) == ""


async def test_a_server_that_answers_nothing_holds_nobody_up() -> None:
    """It is asked for two seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await tls_hint("Socket closed", f"127.0.0.1:{silent.getsockname()[1]}", tls=False) == ""


def test_another_certificate_is_known_by_what_grpc_says() -> None:
    """So is none at all; a refused connection is neither."""
    said = ("...CERTIFICATE_VERIFY_FAILED: self signed certificate", "...WRONG_VERSION_NUMBER: Invalid", "refused")

    assert [is_other_certificate(each) for each in said] == [True, True, False]
