"""A real Chromium, and a whole Footlights with the reference application for it to look at."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from playwright.async_api import Browser, Page, async_playwright

from footlights.recipes import load
from tests.system.stack import Stack

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, headless."""
    executable = shutil.which("chromium")
    assert executable, "chromium is missing: make test installs it as root, or says what to type"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page whose errors fail the test that opened it."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    await context.close()
    assert not problems, problems


@pytest.fixture
async def viewer(tmp_path: Path) -> AsyncIterator[Stack]:
    """A server and a node, with the reference application registered."""
    async with Stack(tmp_path / "stack") as stack:
        await stack.start_agent()
        manifest = MessageToDict(load("usd-viewer"), preserving_proto_field_name=True)
        await stack.put("/applications/usd-viewer", manifest)
        yield stack
