"""The reference application through the whole path: launched by an agent, watched through the front door."""

from __future__ import annotations

import numpy as np

from tests.system.stack import Stack, until
from tests.viewer.whep_client import WhepClient


async def _register_viewer(stack: Stack) -> None:
    from google.protobuf.json_format import MessageToDict

    from footlights.recipes import load

    await stack.put("/applications/usd-viewer", MessageToDict(load("usd-viewer"), preserving_proto_field_name=True))


async def test_the_picture_comes_through_the_front_door(node: Stack) -> None:
    """WHEP with a grant gives moving frames at 1280x720; the session is ACTIVE meanwhile and READY after."""
    await _register_viewer(node)
    session_id = (await node.post("/stream", {"application": "usd-viewer"}))["session_id"]
    ready = await node.session_in(session_id, "READY", timeout_s=30)
    way = await node.post(f"/stream/{session_id}:connect", {})

    async with WhepClient(way["whep_url"], token=way["token"]) as viewer:
        first = (await viewer.next_frame(timeout=15)).to_ndarray(format="rgb24")
        await node.session_in(session_id, "ACTIVE")

        async def changed() -> bool:
            frame = (await viewer.next_frame(timeout=5)).to_ndarray(format="rgb24")
            return bool(np.abs(frame.astype(int) - first.astype(int)).mean() > 0.5)

        await until(changed, what="the picture moves")

    assert first.shape == (720, 1280, 3)
    assert first.std() > 10
    await node.session_in(session_id, "READY")
    (host,) = ready["routes"]
    assert {route["description"] for route in ready["routes"][host]["routes"]} == {"signaling", "media"}
    await node.delete(f"/stream/{session_id}")
    ended = await node.session_in(session_id, "TERMINATED")
    assert "FIRST_VIEWER" in [milestone["stage"] for milestone in ended["timeline"]]


async def test_a_stage_that_cannot_be_opened_says_so(node: Stack, tmp_path: object) -> None:
    """A stage that is missing below an allowed root fails the session with the application's own words."""
    from footlights.viewer import stages

    await _register_viewer(node)
    root = next(iter(stages.__path__))

    session_id = (
        await node.post(
            "/stream",
            {"application": "usd-viewer", "application_arguments": {"usd_stage_uri": f"{root}/missing.usda"}},
        )
    )["session_id"]
    failed = await node.session_in(session_id, "FAILED", timeout_s=30)

    assert failed["end_reason"] == "LAUNCH_FAILED"
    assert "missing.usda" in failed["status_message"]


async def test_the_front_door_wants_a_grant_for_this_session(node: Stack) -> None:
    """Neither no token, nor an API token, nor another session's grant opens the way to a picture."""
    await node.register_fake()
    await _register_viewer(node)
    session_id = (await node.post("/stream", {"application": "usd-viewer"}))["session_id"]
    other = (await node.post("/stream", {"application": "fake"}))["session_id"]
    await node.session_in(session_id, "READY", timeout_s=30)
    await node.session_in(other, "READY")
    grant = (await node.post(f"/stream/{other}:connect", {}))["token"]

    statuses = []
    for token in ("", node.token, grant):
        async with node.client(token) as client:
            answer = await client.post(
                f"/stream/{session_id}/whep", content="v=0\r\n", headers={"Content-Type": "application/sdp"}
            )
            statuses.append(answer.status_code)

    assert statuses == [401, 401, 403]
