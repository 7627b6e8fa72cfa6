"""A Kit that says that it is ready, and never offers a picture: `probes.offer` through the whole stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.system.kit import APP, kit_without_gpu
from tests.system.stack import Stack, until


async def test_one_that_never_offers_is_started_again_elsewhere(stack: Stack, tmp_path: Path) -> None:
    """Its session is not given out meanwhile, says why, and becomes READY on another node."""
    root, first = tmp_path / "kit-app", tmp_path / "notes" / "first"
    for folder in (root, first.parent):
        folder.mkdir()
    silent_once = f"mkdir {first} 2>/dev/null && export STANDIN_MODES=silent"
    await stack.put(f"/applications/{APP}", kit_without_gpu(root, {}, before=silent_once, offer_timeout_s=4))
    for node in ("node-a", "node-b"):
        await stack.start_agent(node, "--launchers", "process", "--software-devices", "1", "--devices", "software")

    made = await stack.post("/stream", {"application": APP})
    tried: list[dict[str, Any]] = []

    async def over() -> bool:
        tried.append(await stack.get(f"/stream/{made['session_id']}"))
        return bool(tried[-1]["state"] in ("READY", "FAILED"))

    await until(over, timeout_s=90, what="the session is READY")

    assert (tried[-1]["state"], tried[-1]["launch_count"]) == ("READY", 2), tried[-1]
    assert "READY" not in [each["state"] for each in tried[:-1]]
    assert any("no offer came by 127.0.0.1:" in each["status_message"] for each in tried[:-1])
    assert {each["node"] for each in tried if each["node"]} == {"node-a", "node-b"}
    nodes = [await stack.get(f"/nodes/{node}") for node in ("node-a", "node-b")]
    assert [each["reason"] for node in nodes for each in node["back_offs"]] == ["NO_OFFER"]
