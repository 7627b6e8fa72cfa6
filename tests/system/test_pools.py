"""Warm instances through the whole stack: a stand-in for Kit that takes 25 seconds, before who waits for five."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from footlights import recipes
from footlights.devices.fake_state import FakeGpu, FakeState
from tests.devices.standin import Standin, build
from tests.system.stack import Stack, until
from tests.system.test_nvcf import GPU, STANDIN_KIT, Portal, first_words

START_S = 25.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A server with one GPU, and a Kit application that is ready late."""
    root = tmp_path / "kit-app"
    (root / "kit").mkdir(parents=True)
    (tmp_path / "stages").mkdir()
    kit = root / "kit" / "kit"
    kit.write_text(f'#!/bin/sh\nSTANDIN_READY_AFTER={START_S} exec {sys.executable} -I -S {STANDIN_KIT} 108 "$@"\n')
    kit.chmod(0o755)
    machine = Standin(build(), tmp_path / "gpus.state")
    machine.set(FakeState(gpus=(FakeGpu(uuid=GPU),)))
    async with Stack(tmp_path / "stack", server_options=("--nvcf", "--min-isolation", "none")) as stack:
        options = ("--launchers", "process", "--devices", "nvml")
        await stack.start_agent("gpu-node", *options, environment=machine.environment)
        manifest = recipes.load("kit-108", {"KIT_ROOT": str(root), "STAGE_ROOT": str(tmp_path / "stages")})
        await stack.put("/applications/kit-108", MessageToDict(manifest, preserving_proto_field_name=True))
        yield stack


async def test_a_portal_is_served_by_a_kit_that_starts_in_25_seconds(stack: Stack) -> None:
    """Its start is answered within its five seconds, by a session that is ready; a viewer is sent its offer."""
    pool = {"application": "kit-108", "application_version": "process", "size": 1}
    await stack.put("/v1/pools/warm", pool)

    async def ready() -> bool:
        return bool((await stack.get("/v1/pools/warm")).get("ready_count"))

    await until(ready, timeout_s=120)
    assert (await stack.get("/v1/sessions?include_ended=true"))["items"] == []
    [published] = [
        each for each in (await stack.get("/v2/nvcf/functions"))["functions"] if each["name"] == "kit-108@process"
    ]
    key = (await stack.post("/tokens", {"role": "SERVICE", "subject": "portal"}))["secret"]
    portal = Portal(stack, key, published)

    status, request_id = await portal.start()

    assert status == 200, request_id
    session = await stack.session_in(request_id, "READY", timeout_s=START_S / 5)
    assert session["started_from_pool"] == "warm"
    began, came = (datetime.fromisoformat(session[name]) for name in ("created_time", "ready_time"))
    assert (came - began).total_seconds() < START_S / 5
    async with portal.dial(request_id) as socket:
        assert "offer" in (await first_words(socket))[2]["peer_msg"]["msg"]
    assert await portal.stop(request_id) == 200


async def test_a_session_that_waits_gets_the_only_gpu(stack: Stack) -> None:
    """The pool's instance gives it back, whether it is ready or not."""
    await stack.put("/v1/pools/warm", {"application": "kit-108", "application_version": "process", "size": 1})

    async def starting() -> bool:
        return bool((await stack.get("/v1/pools/warm")).get("instances"))

    await until(starting, timeout_s=30)

    created = await stack.post(
        "/v1/sessions",
        {"application": "kit-108", "application_version": "1.3.0-process", "limits": {"stop_grace_period": "5s"}},
    )

    session = await stack.session_in(created["session_id"], "STARTING", timeout_s=60)
    assert "started_from_pool" not in session or not session["started_from_pool"]
    assert (await stack.get("/v1/pools/warm")).get("ready_count", 0) == 0
