"""Kit's recipes through the whole stack, with a stand-in for Kit on a stand-in GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from footlights import recipes
from footlights.devices.fake_state import FakeGpu, FakeState
from footlights.launch.probes import loopback
from tests.devices.standin import Standin, build
from tests.system.stack import Stack

GPU = "GPU-00000000-0000-0000-0000-000000000001"
STANDIN_KIT = Path(__file__).parents[1] / "launch" / "standin_kit.py"


@pytest.mark.parametrize(("generation", "recipe"), [("107", "kit-107"), ("108", "kit-108-110"), ("108", "kit-108")])
async def test_kit_is_launched_on_its_gpu_with_its_ports(
    stack: Stack, tmp_path: Path, generation: str, recipe: str
) -> None:
    """A session of Kit becomes READY on the ports and device it was given, with the stage that was asked for."""
    root = tmp_path / "kit-app"
    (root / "kit").mkdir(parents=True)
    report = tmp_path / "reports" / "kit.json"
    report.parent.mkdir()
    kit = root / "kit" / "kit"
    kit.write_text(f'#!/bin/sh\nSTANDIN_REPORT={report} exec {sys.executable} -I -S {STANDIN_KIT} {generation} "$@"\n')
    kit.chmod(0o755)
    stage = tmp_path / "stages" / "a.usd"
    machine = Standin(build(), tmp_path / "gpus.state")
    machine.set(FakeState(gpus=(FakeGpu(uuid=GPU),)))
    await stack.start_agent("gpu-node", "--launchers", "process", "--devices", "nvml", environment=machine.environment)
    variables = {"KIT_ROOT": str(root), "STAGE_ROOT": str(stage.parent)}
    manifest = recipes.load(recipe, variables)
    await stack.put(f"/applications/{recipe}", MessageToDict(manifest, preserving_proto_field_name=True))

    created = await stack.post(
        "/stream",
        {
            "application": recipe,
            "application_version": "1.3.0-process",
            "application_arguments": {"usd_stage_uri": str(stage)},
        },
    )
    ready = await stack.session_in(created["session_id"], "READY", timeout_s=30)

    settings = json.loads(report.read_text())
    routes = ready["routes"]["127.0.0.1"]["routes"]
    ports = {route["description"]: route["destination_port"] for route in routes}
    assert ready["device"] == GPU
    assert str(stage) in json.dumps(settings)
    # Kit cannot check who connects: its own port is the block's last, and the agent has the one that is given out.
    assert str(ports["media"] + 2) in json.dumps(settings)
    status, _ = await loopback.ask(ports["signaling"], "/sign_in")
    assert (ports["signaling"], status) == (ports["media"] - 1, 401)
    assert str(ports["media"]) in json.dumps(settings)
    await stack.delete(f"/stream/{created['session_id']}")
    await stack.session_in(created["session_id"], "TERMINATED")
