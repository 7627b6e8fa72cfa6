"""Sessions of Kit in a real browser: a stand-in for NVIDIA's library and one for Kit, and all of ours between them.

Covers the console's ``stream/kit.js`` and ``stream/stage.js``, its ``kit/frame.js`` and the code that it gives to be
pasted.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Frame, Page, expect

from tests.browser.pages import foreign_page
from tests.browser.video import Sample, look
from tests.system.stack import JSON, Stack, until

LIBRARY = Path(__file__).parent / "kit_library"
STANDIN_KIT = Path(__file__).parents[1] / "launch" / "standin_kit.py"
EXTENSIONS = ("omni.kit.livestream.app", "omni.services.livestream.session")
VERSION: JSON = {
    "version": "1.0.0",
    "command": [
        sys.executable,
        *("-I", "-S", str(STANDIN_KIT), "108", "app.kit"),
        *(word for extension in EXTENSIONS for word in ("--enable", extension)),
        "--/exts/omni.kit.livestream.app/primaryStream/signalPort={signal_port}",
        "--/exts/omni.services.transport.server.http/port={http_port}",
    ],
    "readiness": {"check": "OFFER", "path": "/v1/streaming/ready"},
    "signaling": {"websocket_path": "/sign_in", "max_viewers": 1},
    "presence": {"source": "CONNECTIONS"},
    "stage_delivery": {"method": "MESSAGE"},
    "allowed_stage_roots": ["/srv"],
}
STAGE = "/srv/stage.usd"


@contextlib.asynccontextmanager
async def kit(directory: Path, *options: str) -> AsyncIterator[tuple[Stack, str]]:
    """Run a Footlights with a session of the stand-in Kit that is READY."""
    async with Stack(directory, server_options=options) as stack:
        await stack.start_agent()
        application = {"application": {}, "versions": [VERSION], "releases": {"default": "1.0.0"}}
        await stack.put("/applications/kit", application)
        arguments = {"usd_stage_uri": STAGE}
        session = await stack.post("/v1/sessions", {"application": "kit", "application_arguments": arguments})
        await stack.session_in(session["session_id"], "READY", timeout_s=60)
        yield stack, session["session_id"]


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[tuple[Stack, str]]:
    """One whose operator has provided the library."""
    async with kit(tmp_path / "stack", "--kit-library", str(LIBRARY)) as running:
        yield running


async def open_session(page: Page, stack: Stack, session_id: str) -> None:
    await page.goto(f"{stack.http}/console/#token={stack.token}")
    await page.goto(f"{stack.http}/console/#/sessions/{session_id}")


async def frame_of(page: Page) -> Frame:
    """Return the frame in which the session plays."""
    await expect(page.get_by_test_id("picture")).to_have_attribute("data-state", "playing", timeout=30_000)
    (frame,) = [each for each in page.frames if each != page.main_frame]
    return frame


async def moves(place: Page | Frame, selector: str) -> Sample:
    """Return a sample of a video once it has shown another picture than its first."""
    first: Sample = await until(lambda: look(place, selector), what="a picture")

    async def later() -> Sample | None:
        now = await look(place, selector)
        return now if now is not None and now.differs(first) > 3 else None

    moved: Sample = await until(later, what="another picture")
    return moved


async def test_a_session_of_kit_is_played_in_the_console(
    played: tuple[Stack, str], page: Page, browser: Browser
) -> None:
    """
    By the library, through the front door: a moving picture, its figures, one viewer in the list and no second one;
    the application is asked for the session's stage.
    """
    stack, session_id = played
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Content Security" in message.text else None)
    await open_session(page, stack, session_id)

    frame = await frame_of(page)
    sample = await moves(frame, "#remote-video")

    assert (sample.width, sample.height) == (640, 360)
    await expect(page.get_by_test_id("stream-stats")).to_contain_text(re.compile("640.360"))
    assert await until(lambda: frame.evaluate("globalThis.stage"), what="a request for the stage") == STAGE
    await stack.session_in(session_id, "ACTIVE", timeout_s=60)
    (viewer,) = (await stack.get(f"/v1/sessions/{session_id}/viewers"))["items"]
    assert (viewer["state"], viewer["subject"]) == ("CONNECTED", "admin")
    # The stand-in tries to tell somebody else, by which it is known that the policy holds; nothing else is refused.
    assert refused
    assert all("127.0.0.2:9" in text for text in refused), refused

    second = await browser.new_page()
    await open_session(second, stack, session_id)
    await expect(second.get_by_test_id("connecting")).to_contain_text("takes no more viewers", timeout=30_000)
    await second.close()

    await stack.post(f"/v1/sessions/{session_id}/viewers/{viewer['viewer_id']}:disconnect", {})
    await expect(page.get_by_test_id("connecting")).to_contain_text("You were disconnected", timeout=30_000)
    await page.get_by_test_id("connecting").get_by_role("button").click()
    await moves(await frame_of(page), "#remote-video")
    await page.get_by_test_id("terminate").first.click()
    await page.get_by_test_id("confirm-terminate").click()
    await stack.session_in(session_id, "TERMINATED")


async def test_the_library_gets_at_nothing_of_the_console(tmp_path: Path, page: Page) -> None:
    """
    It is somebody else's code: neither the page, its token nor another server; and the API without a token. Here it has
    the interface of later releases.
    """
    shutil.copytree(LIBRARY, tmp_path / "library")
    (tmp_path / "library" / "package.json").write_text(json.dumps({"exports": "./dist/later.js"}))
    async with kit(tmp_path / "stack", "--kit-library", str(tmp_path / "library")) as (stack, session_id):
        await open_session(page, stack, session_id)
        frame = await frame_of(page)
        attempts: dict[str, Any] = await frame.evaluate("globalThis.attempts")
        stage = await until(lambda: frame.evaluate("globalThis.stage"), what="a request for the stage")

    assert stage == STAGE
    assert attempts == {
        "origin": "null",
        "page": "refused: SecurityError",
        "token": "refused: SecurityError",
        "own storage": "null",
        "elsewhere": "refused: TypeError",
        "api": "401",
        "window": "null",
        "top": "refused: SecurityError",
    }


async def test_without_the_library_it_is_said_what_to_paste(tmp_path: Path, page: Page, browser: Browser) -> None:
    """What the console shows runs as it is in a page that has the library, and so does what Embed shows."""
    async with kit(tmp_path / "stack") as (stack, session_id):
        await open_session(page, stack, session_id)
        code = await page.get_by_test_id("kit-code").inner_text()
        await page.get_by_test_id("kit-again").click()
        await expect(page.get_by_test_id("kit-code")).not_to_have_text(code)
        await page.get_by_test_id("embed").click()
        embedded = await page.get_by_test_id("embed-dialog").get_by_test_id("kit-code").inner_text()
        whep = await page.get_by_test_id("whep-code").count()
        answer = await stack.post(f"/v1/sessions/{session_id}:connect", {})

        assert whep == 0
        given = f"const {{ app_streamer, usd_stage_uri }} = {json.dumps(answer)};\n"
        for program in (code, given + embedded):
            async with _page_with_library(program) as address:
                viewing = await browser.new_page()
                await viewing.goto(address)
                await moves(viewing, "#remote-video")
                assert await viewing.evaluate("globalThis.stage") == STAGE
                await stack.session_in(session_id, "ACTIVE", timeout_s=60)
                await viewing.close()
            await stack.session_in(session_id, "READY", timeout_s=60)


def _page_with_library(program: str) -> AbstractAsyncContextManager[str]:
    """Serve a page of somebody else's, at an origin of its own, that has the library and runs ``program``."""
    imports = {"imports": {"@nvidia/omniverse-webrtc-streaming-library": "/library/dist/stand-in.js"}}
    text = (
        f'<!doctype html><script type="importmap">{json.dumps(imports)}</script>'
        '<video id="remote-video" muted autoplay playsinline></video><audio id="remote-audio" muted></audio>'
        f'<script type="module">{program}</script>'
    )
    return foreign_page(text, library=LIBRARY, at="/library")
