"""A Footlights with the reference application, as the measurements of pictures need it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from google.protobuf import json_format

from footlights import recipes
from tests.system.stack import Stack
from tests.viewer.whep_client import WhepClient

APPLICATION = "usd-viewer"


@contextlib.asynccontextmanager
async def streaming(directory: Path) -> AsyncIterator[Stack]:
    """Start a server and an agent with one software device, and register the viewer as it ships."""
    async with Stack(directory) as stack:
        await stack.start_agent("node-a", "--launchers", "process", "--devices", "software", "--software-devices", "1")
        recipe = json_format.MessageToDict(recipes.load(APPLICATION), preserving_proto_field_name=True)
        await stack.put(f"/applications/{APPLICATION}", recipe)
        yield stack


async def create(stack: Stack) -> str:
    """Create a session on the default stage; returns its id."""
    return str((await stack.post("/stream", {"application": APPLICATION}))["session_id"])


async def player(stack: Stack, session_id: str) -> WhepClient:
    """Return a player for a session that is ready, through the front door, with a grant of its own."""
    grant = await stack.post(f"/stream/{session_id}:connect", {})
    return WhepClient(grant["whep_url"], grant["token"])


async def end(stack: Stack, session_id: str) -> None:
    """Terminate a session and wait until its device is free."""
    await stack.delete(f"/stream/{session_id}")
    await stack.session_in(session_id, "TERMINATED", "FAILED")


async def ready(stack: Stack, session_id: str) -> None:
    """Wait as a client does that wants to know at once: by its watch."""
    async with stack.watching(f"/stream/{session_id}:watch") as changes:
        async for session in changes:
            if session["state"] in ("READY", "ACTIVE"):
                return
            if session["state"] in ("TERMINATED", "FAILED"):
                break
    raise AssertionError(f"the session ended before it was ready: {session['status_message']}")
