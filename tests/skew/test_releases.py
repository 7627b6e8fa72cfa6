"""The release before and this one, as real processes: its SDK and command line, its server, and one database.

Agents and replicas of both releases side by side are in `tests/system/test_upgrade.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from footlights.v1 import session_pb2

from footlights.client import Client, ServerTooOld
from tests.system.stack import Stack
from tests.system.test_upgrade import take

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

S = session_pb2.Session
PROGRAM = Path(__file__).with_name("sdk_program.py")
SEEN = {
    "applications": ["sdk"],
    "versions": ["1.0.0"],
    "state": "READY",
    "max_duration": 60,
    "listed": True,
    "grant": True,
    "extended": 120,
    "explained": 1,
    "log": True,
    "nodes": ["READY"],
    "tokens": True,
    "ended": "TERMINATED",
    "end_reason": "USER_TERMINATED",
}
"""What the program sees on either server."""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the code of the release before is what runs."""
    return take(tmp_path_factory.mktemp("released"))


async def run(environment: Mapping[str, str] | None, *argv: str) -> str:
    """Run Python with a release's code; return its output, and fail where it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        env={**os.environ, **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, f"{argv}: {error.decode()}\n{out.decode()}"
    return out.decode()


async def commands(stack: Stack, environment: Mapping[str, str] | None) -> None:
    """Go through a session's life with the command line of a release."""
    ours = {**(environment or {}), "FOOTLIGHTS_SERVER": stack.grpc, "FOOTLIGHTS_TOKEN": stack.token}

    async def footlights(*argv: str) -> Any:
        text = await run(ours, "-m", "footlights", *argv, "-o", "json")
        return json.loads(text) if text.startswith("{") else text

    await stack.register_fake("cli")
    made = await footlights("sessions", "create", "cli", "--max-duration", "60s", "--wait")
    session_id = made["session_id"]
    assert made["state"] == "READY"
    assert session_id in [item["session_id"] for item in (await footlights("sessions", "list"))["items"]]
    assert (await footlights("sessions", "show", session_id))["max_duration"] == "60s"
    assert (await footlights("sessions", "connect", session_id))["token"]
    assert (await footlights("sessions", "extend", session_id, "--by", "60s"))["max_duration"] == "120s"
    assert len((await footlights("sessions", "explain", "cli"))["nodes"]) == 1
    assert (await footlights("nodes", "list"))["items"][0]["node"] == "node-a"
    assert (await footlights("nodes", "cordon", "node-a"))["state"] == "CORDONED"
    assert (await footlights("nodes", "uncordon", "node-a"))["state"] == "READY"
    assert (await footlights("apps", "versions", "cli"))["items"][0]["version"] == "1.0.0"
    assert (await footlights("tokens", "whoami"))["role"] == "OPERATOR"
    await footlights("sessions", "terminate", session_id, "--wait")
    assert (await footlights("sessions", "show", session_id))["state"] == "TERMINATED"


async def test_the_sdk_of_the_release_before_works_with_this_server(tmp_path: Path, released: dict[str, str]) -> None:
    """Every call that it has, through a session's life."""
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent()
        assert json.loads(await run(released, str(PROGRAM), stack.grpc, stack.token)) == SEEN


async def test_this_sdk_works_with_the_server_of_the_release_before(tmp_path: Path, released: dict[str, str]) -> None:
    """The calls that both have work; one that it lacks is answered with what to do about it."""
    async with Stack(tmp_path / "stack", environment=released) as stack:
        await stack.start_agent(environment=released)
        assert json.loads(await run(None, str(PROGRAM), stack.grpc, stack.token)) == SEEN
        async with Client.connect(stack.grpc, stack.token) as client:
            made = await client.sessions.create(session_pb2.CreateSessionRequest(application="sdk"))
            with pytest.raises(ServerTooOld, match="earlier release") as refused:
                await client.sessions.update(session_pb2.Session(session_id=made.session_id, priority=1))
            with pytest.raises(ServerTooOld, match="would ignore validate_only"):
                await client.sessions.terminate(made.session_id, validate_only=True)
            await client.nodes.drain("node-a", 0)
            assert (await client.sessions.wait_ended(made.session_id, timeout_s=60)).end_reason == S.DRAINED
            ended = client.sessions.iterate(session_pb2.ListSessionsRequest(include_ended=True))
            assert made.session_id in [session.session_id async for session in ended]
        assert refused.value.reason == "SERVER_TOO_OLD"


async def test_the_command_line_of_the_release_before_works_with_this_server(
    tmp_path: Path, released: dict[str, str]
) -> None:
    """Its output for programs as well."""
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent()
        await commands(stack, released)


async def test_this_command_line_works_with_the_server_of_the_release_before(
    tmp_path: Path, released: dict[str, str]
) -> None:
    """Its output for programs as well."""
    async with Stack(tmp_path / "stack", environment=released) as stack:
        await stack.start_agent(environment=released)
        await commands(stack, None)


async def test_the_release_before_refuses_a_database_that_this_one_has_migrated(
    tmp_path: Path, released: dict[str, str]
) -> None:
    """A server that is started again by mistake says so and changes nothing; this one goes on where it was."""
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent()
        await stack.register_fake()
        running = (await stack.post("/v1/sessions", {"application": "fake"}))["session_id"]
        await stack.session_in(running, "READY")
        assert stack.server is not None
        assert await stack.server.stop() == 0

        stack.environment = released
        with pytest.raises(AssertionError, match="which this version of Footlights does not know"):
            await stack.start_server()

        stack.environment = None
        await stack.start_server()
        assert (await stack.session_in(running, "READY"))["launch_count"] == 1
