"""The API's pages in a browser: they open, show every call, and ask nobody but their own server for anything."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, expect

from tests.control.harness import control
from tests.gateway.served import served

pytestmark = pytest.mark.slow

LOADED_MS = 30_000
"""The page renders the whole document before it shows anything, which takes seconds on a machine with other work."""


async def test_docs_open_without_an_outside_request(page: Page, tmp_path: Path) -> None:
    """
    /docs shows the API's calls and schemas, and nothing of it comes from elsewhere.
    """
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with control(tmp_path) as plane, served(plane.plane.app) as port:
        await page.goto(f"http://127.0.0.1:{port}/docs")
        await expect(page.get_by_role("heading", name="Footlights", level=1)).to_be_visible(timeout=LOADED_MS)
        call = page.locator("#operations-StreamingService-StreamingService_CreateSession")
        await call.click()
        await expect(call.get_by_text("202", exact=True)).to_be_visible(timeout=LOADED_MS)

    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {f"127.0.0.1:{port}"}
    assert any(url.endswith("/openapi.json") for url in asked)
