"""The server process from its start to its end, in the test's own loop.

Stopping under load is in tests/system/test_stopping.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from footlights import errors
from footlights.control.listeners import GrpcListener, HttpListener
from footlights.control.server import serve
from footlights.control.settings import ServerSettings


async def test_a_server_says_where_it_listens_and_stops_when_asked(tmp_path: Path) -> None:
    """Its endpoints are in a file once it listens; after the end its ports and its data directory are free."""
    settings = ServerSettings(data_dir=tmp_path, grpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0")
    endpoints = tmp_path / "endpoints.json"
    for _ in range(2):
        stop = asyncio.Event()
        server = asyncio.create_task(serve(settings, stop))
        async with asyncio.timeout(30):
            while not endpoints.exists() and not server.done():  # noqa: ASYNC110 - a file that appears wakes no one
                await asyncio.sleep(0.02)
        url = json.loads(endpoints.read_text())["http"]
        async with httpx2.AsyncClient() as client:
            ready = await client.get(f"{url}/readyz")
        stop.set()
        await server
        endpoints.unlink()

        assert ready.json() == {"status": "SERVING"}


def test_an_address_that_is_in_use_is_refused_by_name(tmp_path: Path) -> None:
    """The error names the address and the option that chooses another (`listeners`)."""
    settings = ServerSettings(data_dir=tmp_path, http_listen="127.0.0.1:0")
    first = HttpListener(settings)
    host, port = first.address
    taken = ServerSettings(data_dir=tmp_path, http_listen=f"{host}:{port}")
    try:
        with pytest.raises(errors.FailedPrecondition, match=f"{port}.*--http-listen"):
            HttpListener(taken)
    finally:
        first.close()


async def test_a_grpc_address_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    """As that of HTTP (`listeners`)."""
    settings = ServerSettings(data_dir=tmp_path, grpc_listen="192.0.2.1:1", insecure=True)

    with pytest.raises(errors.FailedPrecondition, match=r"192\.0\.2\.1:1.*--grpc-listen"):
        GrpcListener(settings, ())
