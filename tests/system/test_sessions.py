"""Sessions from request to end, on a real server and a real agent with the fake launcher."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from footlights.v1 import session_pb2, session_pb2_grpc
from google.protobuf.json_format import ParseDict

from footlights.client import Client
from footlights.errors import NotFound
from tests.system.stack import Stack, until


def stages(session: dict[str, Any]) -> list[str]:
    return [milestone["stage"] for milestone in session["timeline"]]


async def test_one_request_one_stream(node: Stack) -> None:
    """One POST places a session and answers 202 with its Location; it becomes READY, and DELETE frees its device."""
    await node.register_fake(log_lines=["hello", "world"])

    created = await node.call("POST", "/stream", json={"application": "fake"})
    session_id = created.json()["session_id"]
    ready = await node.session_in(session_id, "READY")
    log = await node.get(f"/stream/{session_id}/log")
    got = await node.call("GET", f"/stream/{session_id}")
    deleted = await node.call("DELETE", "/stream", json={"session_id": session_id})
    again = await node.call("DELETE", f"/stream/{session_id}")
    ended = await node.session_in(session_id, "TERMINATED")

    assert created.status_code == 202
    assert created.headers["location"] == f"/stream/{session_id}"
    assert stages(ready) == ["QUEUED", "PLACED", "PROCESS_UP", "APPLICATION_READY"]
    assert log["lines"] == ["hello", "world"]
    assert got.status_code == 200
    assert deleted.json() == {"session_id": session_id, "status": "deleted", "satus": "deleted"}
    assert again.json() == deleted.json()
    assert ended["end_reason"] == "USER_TERMINATED"
    nodes = await node.get("/nodes/node-a")
    assert [device["slots_leased"] for device in nodes["devices"]] == [0, 0]


async def test_rest_and_grpc_are_one_api(node: Stack) -> None:
    """A session created over gRPC is the same over REST, member by member."""
    await node.register_fake()
    async with grpc.aio.insecure_channel(node.grpc) as channel:
        stub = session_pb2_grpc.StreamingServiceStub(channel)
        token = (("authorization", f"Bearer {node.token}"),)

        created = await stub.CreateSession(
            session_pb2.CreateSessionRequest(application="fake"), metadata=token, timeout=10
        )
        await node.session_in(created.session_id, "READY")
        over_grpc = await stub.GetSession(
            session_pb2.GetSessionRequest(session_id=created.session_id), metadata=token, timeout=10
        )

    over_rest = await node.get(f"/stream/{created.session_id}")
    assert ParseDict(over_rest, session_pb2.Session()) == over_grpc


async def test_the_queue_serves_by_priority_then_time(node: Stack) -> None:
    """With all devices taken sessions wait, say why and where, and a freed slot serves the best of them at once."""
    await node.register_fake()
    running = [(await node.post("/stream", {"application": "fake"}))["session_id"] for _ in range(2)]
    for session_id in running:
        await node.session_in(session_id, "READY")

    answer = await node.post("/stream", {"application": "fake"})
    low = answer["session_id"]
    high = (await node.post("/stream", {"application": "fake", "priority": 5}))["session_id"]

    async def queued() -> Any:
        first, second = await node.get(f"/stream/{high}"), await node.get(f"/stream/{low}")
        return first if (first["queue"]["position"], second["queue"]["position"]) == (1, 2) else None

    waiting = await until(queued, what="both have their places")
    assert (answer["queue"]["position"], answer["queue"]["reasons"]) == (1, ["NO_SLOT: 2 devices"])
    assert waiting["state"] == "PENDING"
    assert waiting["queue"]["reasons"] == ["NO_SLOT: 2 devices"]
    explained = await node.post("/stream:explain", {"application": "fake"})
    assert not explained["fits"]
    assert explained["queue_position"] == 3
    assert {device["reason"] for device in explained["nodes"][0]["devices"]} == {"NO_SLOT"}

    await node.delete(f"/stream/{running[0]}")
    await node.session_in(high, "READY", timeout_s=5)
    assert (await node.get(f"/stream/{low}"))["state"] == "PENDING"


async def test_a_crash_is_told_with_status_and_log(node: Stack) -> None:
    """An application that exits by itself ends its session at once, with its exit status and last lines."""
    await node.register_fake(ready_after="0.1s", exit_after="0.5s", exit_code=7, log_lines=["boom: no such mesh"])

    session_id = (await node.post("/stream", {"application": "fake"}))["session_id"]
    failed = await node.session_in(session_id, "FAILED")

    assert failed["end_reason"] == "CRASHED"
    assert failed["exit_code"] == 7
    assert failed["log_tail"] == ["boom: no such mesh"]
    assert "7" in failed["status_message"]


@pytest.mark.parametrize(
    ("limits", "behavior", "state", "reason"),
    [
        ({"start_timeout": "0.5s"}, {"never_ready": True}, "FAILED", "START_TIMEOUT"),
        ({"max_duration": "0.5s"}, {"viewers": 1}, "TERMINATED", "MAX_DURATION"),
        ({"never_connected_timeout": "0.5s"}, {"viewers": 0}, "TERMINATED", "NEVER_CONNECTED"),
    ],
)
async def test_each_timer_ends_a_session_with_its_own_reason(
    node: Stack, limits: dict[str, str], behavior: dict[str, Any], state: str, reason: str
) -> None:
    """Start, maximum and never-connected timeouts end a session, each with its own end_reason."""
    version = {"version": "1.0.0", "fake": behavior, "limits": limits}
    await node.put("/applications/timed", {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}})

    session_id = (await node.post("/stream", {"application": "timed"}))["session_id"]
    ended = await node.session_in(session_id, state, timeout_s=15)

    assert ended["end_reason"] == reason
    assert ended["status_message"]


async def test_terminating_works_while_starting(node: Stack) -> None:
    """A session that is not ready yet is ended as asked, and its slot is free again."""
    await node.register_fake(never_ready=True)
    session_id = (await node.post("/stream", {"application": "fake"}))["session_id"]
    await node.session_in(session_id, "STARTING")

    await node.delete(f"/stream/{session_id}")

    assert (await node.session_in(session_id, "TERMINATED"))["end_reason"] == "USER_TERMINATED"


async def test_a_watch_tells_every_step_and_ends(node: Stack) -> None:
    """A watch shows the session as it is, then each change in order of revision, and ends with the session."""
    await node.register_fake()
    session_id = (await node.post("/stream", {"application": "fake"}))["session_id"]

    seen = []
    async with node.watching(f"/stream/{session_id}:watch") as messages:
        async for session in messages:
            seen.append(session)
            if session["state"] == "READY":
                await node.delete(f"/stream/{session_id}")

    assert seen[-1]["state"] == "TERMINATED"
    revisions = [int(session["revision"]) for session in seen]
    assert revisions == sorted(set(revisions))


async def test_a_server_restart_hurts_no_session(node: Stack) -> None:
    """Kill -9 the server: the session goes on, is there again after the restart, and can be ended."""
    await node.register_fake(viewers=1)
    session_id = (await node.post("/stream", {"application": "fake"}))["session_id"]
    await node.session_in(session_id, "ACTIVE")
    assert node.server is not None

    node.server.kill()
    await node.server.process.wait()
    await node.start_server()

    back = await node.session_in(session_id, "ACTIVE")
    assert back["launch_count"] == 1
    await until(lambda: _linked(node), what="the agent is back")
    await node.delete(f"/stream/{session_id}")
    assert (await node.session_in(session_id, "TERMINATED"))["end_reason"] == "USER_TERMINATED"


async def _linked(stack: Stack) -> bool:
    return bool((await stack.get("/nodes/node-a"))["state"] == "READY")


async def test_the_client_raises_what_the_server_raised(node: Stack) -> None:
    """The SDK's error is of the server's class, with its reason and metadata."""
    async with Client.connect(node.grpc, node.token) as client:
        with pytest.raises(NotFound, match="there is no application 'nope'") as caught:
            await client.sessions.create(session_pb2.CreateSessionRequest(application="nope"))

    assert caught.value.reason == "APPLICATION_NOT_FOUND"


async def test_the_same_request_twice_at_once_is_one_session(node: Stack) -> None:
    """Ten identical requests with one request_id, all at once, create one session."""
    await node.register_fake()
    body = {"application": "fake", "request_id": "job-17"}

    answers = await asyncio.gather(*(node.post("/stream", body) for _ in range(10)))

    assert len({answer["session_id"] for answer in answers}) == 1
    listed = await node.get("/stream")
    assert listed["count"] == 1


async def test_a_node_whose_applications_wrote_much_while_the_server_was_down_links_again(tmp_path: Path) -> None:
    """Their ends arrive with the last lines, cut to what a message carries; the node is not lost."""
    go = tmp_path / "go"
    source = tmp_path / "talker.py"
    source.write_text(
        "import os, time\n"
        f"while not os.path.exists({str(go)!r}):\n"
        "    time.sleep(0.02)\n"
        "for number in range(40):\n"
        "    print(number, 'x' * 50_000, flush=True)\n"
        "raise SystemExit(3)\n"
    )
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent("node-a", "--launchers", "process", "--software-devices", "5")
        version = {"version": "1.0.0", "command": [sys.executable, "-S", str(source)]}
        await stack.put(
            "/applications/talker",
            {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}},
        )
        ids = [(await stack.post("/stream", {"application": "talker"}))["session_id"] for _ in range(5)]
        for session_id in ids:
            await stack.session_in(session_id, "STARTING")

        async def all_run() -> bool:
            shown = [await stack.get(f"/stream/{session_id}") for session_id in ids]
            return all(any(step["stage"] == "PROCESS_UP" for step in one["timeline"]) for one in shown)

        await until(all_run, what="the applications run")
        assert stack.server is not None
        await stack.server.stop()
        go.touch()
        journals = tmp_path / "stack" / "node-a" / "journal"

        async def all_ended() -> bool:
            return sum(b"EXITED" in path.read_bytes() for path in journals.iterdir() if path.is_file()) >= len(ids)

        await until(all_ended, what="the agent has journalled the ends")
        await stack.start_server()

        async def all_failed() -> bool:
            shown = [await stack.get(f"/stream/{session_id}") for session_id in ids]
            return all(one["state"] == "FAILED" for one in shown)

        await until(all_failed, what="the ends are known", timeout_s=40)
        assert (await stack.get("/nodes/node-a"))["state"] == "READY"
        tail = (await stack.get(f"/stream/{ids[0]}"))["log_tail"]
        assert tail[-1].startswith("39 xxx")
        assert sum(map(len, tail)) < 70_000


async def test_an_application_that_hangs_is_said_and_ended(tmp_path: Path) -> None:
    """Stopped by a signal it answers nothing, not even SIGTERM: that is said, and that it was killed in the end."""
    application = Path(__file__).parents[1] / "agent" / "application.py"
    command = [sys.executable, "-S", str(application), "{http_port}", "{signal_port}", "none"]
    limits = {"unresponsive_timeout": "8s", "stop_grace_period": "1s"}
    version = {"version": "1.0.0", "command": command, "limits": limits}
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent()
        body = {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}}
        await stack.put("/applications/hangs", body)
        session_id = (await stack.post("/stream", {"application": "hangs"}))["session_id"]
        await stack.session_in(session_id, "READY")
        [first, *_] = (await stack.get(f"/stream/{session_id}/log"))["lines"]
        os.kill(int(first.rpartition(" ")[2]), signal.SIGSTOP)

        async def said() -> Any:
            shown = await stack.get(f"/stream/{session_id}")
            return shown if "does not answer" in shown["status_message"] else None

        hung = await until(said, what="it is said that it hangs")
        ended = await stack.session_in(session_id, "FAILED")

    assert hung["state"] == "READY"
    assert "The application does not answer: GET http://127.0.0.1:" in hung["status_message"]
    assert (ended["end_reason"], ended["exit_code"]) == ("UNRESPONSIVE", -9)
    assert ended["status_message"] == (
        "The application did not answer for 8 seconds. "
        "The application did not end within 1 s of SIGTERM (stop_grace_period), and was killed."
    )
