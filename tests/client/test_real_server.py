"""The SDK and the command line against a server of this release, through its restart."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from footlights.v1 import node_pb2, session_pb2

from footlights.client import Client
from footlights.errors import Conflict, NotFound
from tests.client.standin import Frame
from tests.system.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(180)]

S = session_pb2.Session


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """It has no node, so that sessions stay pending."""
    async with Stack(tmp_path / "stack") as running:
        await running.register_fake()
        yield running


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client.connect(stack.grpc, stack.token) as client:
        yield client


def wanted(team: str = "") -> session_pb2.CreateSessionRequest:
    return session_pb2.CreateSessionRequest(application="fake", labels={"team": team} if team else {})


async def test_a_filter_is_followed_through_a_restart(stack: Stack, client: Client) -> None:
    """What matched before and no longer does is REMOVED, although the server has never sent it itself."""
    one = await client.sessions.create(wanted(team="b"))
    request = session_pb2.FollowSessionsRequest(filter='labels.team = "b"')

    async with asyncio.timeout(120), aclosing(client.sessions.follow(request)) as frames:
        seen = [await anext(frames), await anext(frames)]
        assert stack.server is not None
        assert await stack.server.stop() == 0
        await stack.start_server()
        await client.sessions.update(S(session_id=one.session_id, labels={"team": "c"}), ["labels.team"])
        async for frame in frames:
            seen.append(frame)
            if frame.change == Frame.REMOVED:
                break

    told = [(frame.change, frame.session.session_id) for frame in seen if frame.HasField("session")]
    assert told == [(Frame.SET, one.session_id), (Frame.REMOVED, one.session_id)]
    assert seen[1].change == Frame.SYNCED


async def test_a_list_is_continued_without_a_gap(client: Client) -> None:
    """By the cursor of its last page: what comes after it is told, and nothing that was listed."""
    first = [await client.sessions.create(wanted()) for _ in range(3)]
    pages = [page async for page in client.sessions.iterate(session_pb2.ListSessionsRequest(limit=2)).pages()]
    later = await client.sessions.create(wanted())

    async with aclosing(client.sessions.follow(session_pb2.FollowSessionsRequest(cursor=pages[-1].cursor))) as frames:
        told = await anext(frames)

    assert [len(page.items) for page in pages] == [2, 1]
    assert [item.session_id for page in pages for item in page.items] == [each.session_id for each in first]
    assert (told.change, told.session.session_id) == (Frame.SET, later.session_id)


async def test_writes_are_tried_out_and_bound_to_what_was_read(client: Client) -> None:
    """A dry run changes nothing; an etag holds once; the same request id is the same write."""
    made = await client.sessions.create(wanted(), request_id="r1")
    assert (await client.sessions.create(wanted(), request_id="r1")).session_id == made.session_id
    read = await client.sessions.get(made.session_id)
    change = S(session_id=made.session_id, priority=7, labels={"team": "b"})

    tried = await client.sessions.update(change, etag=read.etag, validate_only=True)
    unchanged = await client.sessions.get(made.session_id)
    changed = await client.sessions.update(change, etag=read.etag)
    with pytest.raises(Conflict) as caught:
        await client.sessions.update(change, ["priority"], etag=read.etag)
    await client.sessions.terminate(made.session_id, validate_only=True)
    with pytest.raises(NotFound):
        await client.nodes.update(node_pb2.Node(node="n"), ["scheduling.message"])

    assert (tried.priority, unchanged.priority, changed.priority) == (7, 0, 7)
    assert (unchanged.etag, dict(changed.labels)) == (read.etag, {"team": "b"})
    assert caught.value.reason == "ETAG_MISMATCH"
    assert (await client.sessions.get(made.session_id)).state == S.PENDING


async def test_the_command_line_updates_and_filters(stack: Stack) -> None:
    """Labels with dots too, and only what matches is listed."""

    async def footlights(*argv: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "footlights.cli", *argv),
            env={**os.environ, "FOOTLIGHTS_SERVER": stack.grpc, "FOOTLIGHTS_TOKEN": stack.token},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, argv
        return out.decode()

    one = (await footlights("sessions", "create", "fake", "--label", "old=1", "-o", "name")).strip()
    await footlights("sessions", "create", "fake")
    changed = await footlights(
        *("sessions", "update", one, "--label", "a.b=c", "--remove-label", "old", "--priority", "5", "-o", "json"),
    )
    listed = await footlights("sessions", "list", "--filter", "priority > 4", "--order", "priority desc", "-o", "name")
    await footlights("apps", "set-release", "fake", "production", "1.0.0")
    release = json.loads(await footlights("apps", "show-release", "fake", "production", "-o", "json"))

    assert (json.loads(changed)["labels"], listed.split()) == ({"a.b": "c"}, [one])
    assert [change["version"] for change in release["history"]] == ["1.0.0"]
