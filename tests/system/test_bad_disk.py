"""A disk that fails under the server, or under an agent, while both run: strace lets their system calls return EIO."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.tracing import DISK_CALLS, JOURNAL_CALLS, CannotTrace, failing
from tests.system.stack import JSON, Stack, until

pytestmark = pytest.mark.slow

REASON = "STORE_UNAVAILABLE"


async def create(stack: Stack, request_id: str, **members: Any) -> tuple[int, JSON]:
    answer = await stack.call("POST", "/stream", json={"application": "fake", "request_id": request_id, **members})
    return answer.status_code, answer.json()


async def listed(stack: Stack) -> set[str]:
    return {item["session_id"] for item in (await stack.get("/stream", limit=1000))["items"]}


async def test_a_server_whose_disk_fails_acknowledges_nothing_and_goes_on(node: Stack) -> None:
    """503 with the reason; what was acknowledged is there, also after a kill -9; a retry with its id is one session."""
    await node.register_fake()
    assert node.server is not None
    before = [(await create(node, f"before-{number}"))[1]["session_id"] for number in range(3)]
    try:
        async with failing(node.server.pid, DISK_CALLS):
            refused = [await create(node, f"during-{number}") for number in range(3)]
            ending = await node.call("DELETE", f"/stream/{before[0]}")
            during = await node.call("GET", f"/stream/{before[0]}")
    except CannotTrace as why:
        pytest.skip(str(why))
    again = [await create(node, f"during-{number}") for number in range(3)]
    node.server.kill()
    await node.server.process.wait()
    await node.start_server()
    after = await listed(node)
    once_more = [(await create(node, f"during-{number}"))[1]["session_id"] for number in range(3)]

    assert [code for code, _ in refused] == [503] * 3
    assert {detail["reason"] for _, body in refused for detail in body["details"] if "reason" in detail} == {REASON}
    assert "disk I/O error" in refused[0][1]["message"]
    assert (ending.status_code, during.json()["state"] in ("STARTING", "READY", "PENDING")) == (503, True)
    assert {code for code, _ in again} <= {200, 202}
    assert once_more == [body["session_id"] for _, body in again]
    assert len({*before, *once_more}) == 6
    assert after == {*before, *once_more}


async def test_an_agent_whose_disk_fails_starts_nothing_and_goes_on(node: Stack) -> None:
    """What cannot be journalled is refused and waits with the reason; what runs runs on, and is told of, throughout."""
    await node.register_fake()
    agent = node.agents["node-a"]
    running = (await create(node, "running"))[1]["session_id"]
    await node.session_in(running, "READY", "ACTIVE")
    try:
        async with failing(agent.pid, JOURNAL_CALLS):
            waiting = (await create(node, "waiting"))[1]["session_id"]

            async def refused() -> bool:
                session = await node.get(f"/stream/{waiting}")
                # This session at first, and then all, leave the node alone.
                reasons = {each["reason"] for each in (session["queue"] or {}).get("wait_reasons", ())}
                waits = session["state"] == "PENDING" and bool(reasons & {"REFUSED", "UNWELL"})
                return waits and "Input/output error" in session["status_message"]

            await until(refused, what="the session waits for a journal that can be written")
            during = await node.get(f"/stream/{running}")
            unwell = (await node.get("/nodes/node-a"))["back_offs"]
    except CannotTrace as why:
        pytest.skip(str(why))
    await node.call("DELETE", f"/stream/{running}")
    ended = await node.session_in(running, "TERMINATED")
    # One session tries the node again after half a minute.
    started = await node.session_in(waiting, "READY", "ACTIVE", timeout_s=60)

    assert during["state"] == "READY"
    assert [each["reason"] for each in unwell] == ["JOURNAL_UNAVAILABLE"]
    assert started["state"] == "READY"
    assert ended["end_reason"] == "USER_TERMINATED"
