"""A server whose clients, agents, replicas and operators each have a listener of their own, as real processes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2

from tests.system.stack import Stack

OPTIONS = ("--agents-listen", "127.0.0.1:0", "--peers-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")


async def test_a_session_runs_where_agents_have_a_listener_of_their_own(tmp_path: Path) -> None:
    """Its agent enrolls and links there, its client comes over REST, and metrics need no token there."""
    async with Stack(tmp_path, server_options=OPTIONS) as stack:
        endpoints = json.loads((tmp_path / "server" / "endpoints.json").read_text())
        invited = await stack.post("/v1/nodes/node-a:invite", {})
        await stack.start_agent("node-a", "--launchers", "fake", "--software-devices", "1", "--enroll", invited["code"])
        await stack.register_fake()
        created = await stack.post("/stream", {"application": "fake"})
        ready = await stack.session_in(created["session_id"], "READY")
        async with httpx2.AsyncClient() as client:
            metrics = await client.get(f"{endpoints['admin']}/metrics")

    assert ready["state"] == "READY"
    assert (metrics.status_code, "footlights_links 1.0" in metrics.text) == (200, True)
