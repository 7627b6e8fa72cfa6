"""NVIDIA's web viewer against a server and a node at different hosts: it dials the node for both, and is let in."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.system.kit import APP, apply, lay_out, start_gpu_agent
from tests.system.stack import Stack, until


async def _ready(viewer: httpx2.AsyncClient, stream_id: str) -> dict[str, Any]:
    """Poll as the viewer does, until exactly 200."""

    async def found() -> dict[str, Any] | None:
        answer = await viewer.get(f"/streaming/stream/{stream_id}")
        assert answer.status_code in (200, 202), answer.text
        return dict(answer.json()) if answer.status_code == 200 else None

    return dict(await until(found, timeout_s=60, what="the stream is ready"))


async def test_a_viewer_dials_the_node_for_signalling_and_media(tmp_path: Path) -> None:
    """`routes` has one host, the node's; `/sign_in` there leads to the session whose id the player shows, and only so.

    The server is `localhost` to viewers and the node `127.0.0.1`: two hosts, as on two machines.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--kas", "--kas-user", "viewer", "--min-isolation", "none", "--public-url", f"http://localhost:{port}")
    stack = Stack(tmp_path / "stack", server_options=options)
    stack.http = f"http://127.0.0.1:{port}"
    async with stack, stack.client("") as viewer:
        await start_gpu_agent(stack, tmp_path)
        await apply(stack, APP, KIT_ROOT=str(lay_out(tmp_path / "kit-app")))

        made = (await viewer.post("/streaming/stream", json={"id": "kit-108", "profile": "default"})).json()
        found = await _ready(viewer, made["id"])

        [(host, ways)] = found["routes"].items()
        ports = {way["description"]: way["source_port"] for way in ways["routes"]}
        assert (host, set(ports)) == ("127.0.0.1", {"signaling", "media"})
        published = await stack.get(f"/v1/sessions/{made['id']}")
        assert (list(published["routes"]), published["routes_message"]) == ([host], "")

        url = f"ws://{host}:{ports['signaling']}/sign_in?peer_id=peer-0123456789&version=2"
        player = f"x-nv-sessionid.{made['id']}"
        async with connect(url, subprotocols=[player]) as first:  # type: ignore[list-item]  # a NewType of str
            said = [json.loads(await first.recv()) for _ in range(3)]
            assert first.subprotocol == player
            assert [each["ackid"] for each in said] == [1, 2, 3]
            assert json.loads(said[2]["peer_msg"]["msg"])["type"] == "offer"
            await stack.session_in(made["id"], "ACTIVE")
            assert [each["session_id"] for each in (await stack.get(f"/v1/sessions/{made['id']}/viewers"))["items"]]
            another = url.replace("peer-0", "peer-1")
            with pytest.raises(ConnectionClosed) as second:
                async with connect(another, subprotocols=[player]) as other:  # type: ignore[list-item]
                    await other.recv()
        assert second.value.rcvd is not None
        assert second.value.rcvd.code == 3005
        for stranger in (None, ["x-nv-sessionid.01890000-0000-7000-8000-000000000000"]):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, subprotocols=stranger).__aenter__()  # type: ignore[arg-type]
            assert refused.value.response.status_code in (401, 404)

        async def reconnected() -> bool:
            # As the player does: again and again, until the one that was cut is no longer counted.
            async with connect(f"{url}&reconnect=1", subprotocols=[player]) as again:  # type: ignore[list-item]
                try:
                    return bool(json.loads(await again.recv())["ackid"] == 1)
                except ConnectionClosed:
                    return False

        await until(reconnected, what="the player is back")
        assert (await viewer.request("DELETE", "/streaming/stream", json={"id": made["id"]})).content == b""
        await stack.session_in(made["id"], "TERMINATED")
