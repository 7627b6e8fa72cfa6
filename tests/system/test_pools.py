"""Warm instances through the whole stack: a stand-in for Kit that takes 25 seconds, before who waits for five."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.system.kit import APP, apply, lay_out, stack_with_gpu
from tests.system.stack import Stack, until
from tests.system.test_nvcf import Portal, first_words

START_S = 25.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A server with one GPU, and a Kit application that is ready late."""
    (tmp_path / "stages").mkdir()
    root = lay_out(tmp_path / "kit-app", STANDIN_READY_AFTER=str(START_S))
    async with stack_with_gpu(tmp_path, "--nvcf", "--min-isolation", "none") as stack:
        await apply(stack, APP, KIT_ROOT=str(root), STAGE_ROOT=str(tmp_path / "stages"))
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
