"""Kit's recipes through the whole stack, with a stand-in for Kit on a stand-in GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from footlights import recipes
from footlights.launch.probes import loopback
from tests.system.kit import GPU, apply, lay_out, start_gpu_agent
from tests.system.stack import Stack


@pytest.mark.parametrize(("generation", "recipe"), [("107", "kit-107"), ("108", "kit-108-110"), ("108", "kit-108")])
async def test_kit_is_launched_on_its_gpu_with_its_ports(
    stack: Stack, tmp_path: Path, generation: str, recipe: str
) -> None:
    """A session of Kit becomes READY on the ports and device it was given, with the stage and the user's token.

    Both reach Kit past its command line: by its session file, and by its environment.
    """
    report = tmp_path / "reports" / "kit.json"
    report.parent.mkdir()
    kept_file, seen_file = report.with_name("session"), report.with_name("seen")
    kept = f'cp "$FOOTLIGHTS_SESSION_FILE" {kept_file}; echo "$OMNI_USER $OMNI_PASS $*" > {seen_file}'
    root = lay_out(tmp_path / "kit-app", generation, before=kept, STANDIN_REPORT=str(report))
    stage = tmp_path / "stages" / "a.usd"
    await start_gpu_agent(stack, tmp_path)
    await apply(stack, recipe, KIT_ROOT=str(root), STAGE_ROOT=str(stage.parent))

    created = await stack.post(
        "/stream",
        {
            "application": recipe,
            "application_version": "1.3.0-process",
            "application_arguments": {
                "usd_stage_uri": str(stage),
                "nucleus_connection_config": [{"url": "omniverse://nucleus", "token": "ey.users-token"}],
            },
        },
    )
    ready = await stack.session_in(created["session_id"], "READY", timeout_s=30)

    settings = json.loads(report.read_text())
    routes = ready["routes"]["127.0.0.1"]["routes"]
    ports = {route["description"]: route["destination_port"] for route in routes}
    assert ready["device"] == GPU
    session = json.loads(kept_file.read_text())
    seen = seen_file.read_text()
    assert (session["usd_stage_uri"], session["omni_pass"]) == (str(stage), "ey.users-token")
    assert seen.startswith("$omni-api-token ey.users-token ")
    assert (seen.count("ey.users-token"), str(stage) in seen) == (1, False)
    assert f"--exec {recipes.KIT_STAGE}" in seen
    assert "ey.users-token" not in json.dumps(ready)
    # Kit cannot check who connects: its own port is the block's last, and the agent has the one that is given out.
    assert str(ports["media"] + 2) in json.dumps(settings)
    status, _ = await loopback.ask(ports["signaling"], "/sign_in")
    assert (ports["signaling"], status) == (ports["media"] - 1, 401)
    assert str(ports["media"]) in json.dumps(settings)
    await stack.delete(f"/stream/{created['session_id']}")
    await stack.session_in(created["session_id"], "TERMINATED")
