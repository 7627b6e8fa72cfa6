"""A player that knows nothing of Footlights plays a session through the front door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.pages import foreign_page
from tests.browser.video import look
from tests.system.stack import Stack, until

pytestmark = pytest.mark.slow

VENDOR = Path(__file__).parent / "vendor"

_PAGE = """<!doctype html><video muted autoplay playsinline></video>
<script>
  // A CommonJS loader in five lines. The two modules that only other adapters and adverts need are empty.
  const sources = {}, loaded = {'@eyevinn/csai-manager': {}, '@eyevinn/whpp-client': {}};
  window.require = name => loaded[name] ??= (() => {
    const module = {exports: {}};
    new Function('module', 'exports', 'require', sources[name])(module, module.exports, require);
    return module.exports;
  })();
  window.play = async (url, authorization) => {
    for (const [name, file] of [['events', 'events.js'], ['player', 'webrtc-player.js']])
      sources[name] = await (await fetch('/player/' + file)).text();
    const {WebRTCPlayer} = require('player');
    window.player = new WebRTCPlayer({video: document.querySelector('video'), type: 'whep'});
    await window.player.load(new URL(url), authorization);
  };
</script>"""


async def test_a_standard_whep_player_plays_it_unmodified(viewer: Stack, page: Page) -> None:
    """@eyevinn/webrtc-player, unmodified, shows moving frames at 1280x720 with nothing but a URL and a grant."""
    session_id = (await viewer.post("/stream", {"application": "usd-viewer"}))["session_id"]
    await viewer.session_in(session_id, "READY", timeout_s=30)
    way = await viewer.post(f"/stream/{session_id}:connect", {})

    # Another origin than the control plane's: CORS is part of what a player relies on.
    async with foreign_page(_PAGE, library=VENDOR, at="/player") as address:
        await page.goto(address)
        await _play(viewer, page, session_id, way)


async def _play(viewer: Stack, page: Page, session_id: str, way: dict[str, Any]) -> None:
    await page.evaluate("([url, key]) => play(url, key)", [way["whep_url"], f"Bearer {way['token']}"])

    first = await until(lambda: look(page, "video"), what="the first frame")

    async def thirty_more() -> bool:
        seen = await look(page, "video")
        return seen is not None and seen.frames - first.frames >= 30 and seen.contrast > 10

    await until(thirty_more, what="thirty more frames")
    assert (first.width, first.height) == (1280, 720)
    assert (await viewer.get(f"/stream/{session_id}"))["state"] == "ACTIVE"
