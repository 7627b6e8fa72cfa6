"""A server whose clients, agents, replicas and operators each have a listener of their own, as real processes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2

from tests.system.stack import Stack

OPTIONS = ("--agents-listen", "127.0.0.1:0", "--peers-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")


async def test_a_session_runs_where_agents_have_a_listener_of_their_own(tmp_path: Path) -> None:
    """Its agent links there, its client comes over REST, and Prometheus reads the admin listener without a token."""
    async with Stack(tmp_path, server_options=OPTIONS) as stack:
        endpoints = json.loads((tmp_path / "server" / "endpoints.json").read_text())
        stack.grpc = endpoints["agents"]
        await stack.start_agent("node-a", "--launchers", "fake", "--software-devices", "1")
        await stack.register_fake()
        created = await stack.post("/stream", {"application": "fake"})
        ready = await stack.session_in(created["session_id"], "READY")
        async with httpx2.AsyncClient() as client:
            metrics = await client.get(f"{endpoints['admin']}/metrics")

    assert ready["state"] == "READY"
    assert (metrics.status_code, "footlights_links 1.0" in metrics.text) == (200, True)
