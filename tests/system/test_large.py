"""Nodes with much to run and much to say link again, on real processes: also those of the release before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from footlights.agent.v1.agent_pb2 import Hello, LinkRequest, LinkResponse

from footlights.protocol.bounds import MAX_MESSAGE_BYTES
from tests.system.stack import Stack, until
from tests.system.test_upgrade import take

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LAUNCHES = 64
SECRETS = {f"secret_{number}": "s" * 65_536 for number in range(5)}
LARGEST: dict[str, Any] = {
    "version": "1.0.0",
    "fake": {"never_ready": True},
    "environment": {f"VARIABLE_{number}": "x" * 8000 for number in range(31)},
    "arguments": [{"name": name, "type": "STRING", "secret": True, "max_length": 65_536} for name in SECRETS],
    "limits": {"stop_grace_period": "1s"},
}
AGENT = ("--launchers", "fake", "--software-devices", "1", "--slots-per-device", str(LAUNCHES))


async def epoch(stack: Stack) -> int:
    """The number of the node's link, once its node is READY."""
    node = await stack.get("/nodes/node-a")
    return int(node["epoch"]) if node["state"] == "READY" and node["connected_time"] else 0


@pytest.mark.parametrize("release", ["this", "before"])
async def test_a_node_that_runs_64_of_the_largest_launches_links_again(tmp_path: Path, release: str) -> None:
    """After a restart of the server and one of its agent: nothing is lost, begun twice or ended."""
    environment = take(tmp_path / "released") if release == "before" else None
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent("node-a", *AGENT, environment=environment)
        manifest = {"application": {}, "versions": [LARGEST], "releases": {"default": "1.0.0"}}
        await stack.put("/applications/large", manifest)
        ids = []
        for _ in range(LAUNCHES):
            made = await stack.post("/stream", {"application": "large", "application_arguments": SECRETS})
            ids.append(made["session_id"])
        for session_id in ids:
            await stack.session_in(session_id, "STARTING")

        async def linked_again(before: int) -> bool:
            return await epoch(stack) > before

        before = await epoch(stack)
        assert stack.server is not None
        await stack.server.stop()
        await stack.start_server()
        await until(lambda: linked_again(before), what="the node has linked again", timeout_s=60)
        before = await epoch(stack)
        stack.agents["node-a"].kill()
        await stack.agents["node-a"].process.wait()
        await stack.start_agent("node-a", *AGENT, environment=environment, wait=False)
        await until(lambda: linked_again(before), what="the restarted agent has linked", timeout_s=60)
        await stack.delete(f"/stream/{ids[0]}")
        await stack.session_in(ids[0], "TERMINATED")

        for session_id in ids[1:]:
            session = await stack.get(f"/stream/{session_id}")
            assert (session["state"], session["launch_count"]) == ("STARTING", 1)
        assert "RESOURCE_EXHAUSTED" not in stack.agents["node-a"].log.read_text(errors="replace")


async def test_a_message_that_is_too_large_is_refused_and_logged(stack: Stack) -> None:
    """With the node, the size and the limit: an operator sees which one cannot link, and why."""
    secret = (await stack.post("/tokens", {"role": "NODE", "subject": "node-a"}))["secret"]
    hello = LinkRequest(hello=Hello(node="node-a", incarnation="x" * (MAX_MESSAGE_BYTES + 1)))
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(stack.grpc, options=options) as channel:
        for package in ("footlights.agent.v1", "footlights.v1"):
            link: Any = channel.stream_stream(
                f"/{package}.AgentService/Link", LinkRequest.SerializeToString, LinkResponse.FromString
            )
            call = link(metadata=(("authorization", f"Bearer {secret}"),))
            await call.write(hello)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"at most {MAX_MESSAGE_BYTES} are taken" in (caught.value.details() or "")

    assert stack.server is not None
    lines = [line for line in stack.server.log.read_text().splitlines() if "link_message_refused" in line]
    assert len(lines) == 2
    assert "node=node-a" in lines[0]
    assert f"size={hello.ByteSize()}" in lines[0]
    assert f"limit={MAX_MESSAGE_BYTES}" in lines[0]
