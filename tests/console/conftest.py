"""The stand-in server on a free port, and Debian's Chromium in front of it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.console.stand_in import OPERATOR, StandIn

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Server:
    """A stand-in that runs in a thread of its own."""

    url: str
    stand_in: StandIn
    loop: asyncio.AbstractEventLoop

    def do(self, action: Callable[[], Result]) -> Result:
        """Run ``action`` in the server's thread, where alone its state may be changed."""

        async def run() -> Result:
            return action()

        return self.wait(run())

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run ``work`` in the server's loop, to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=10)

    def page(self, view: str = "", token: str = OPERATOR) -> str:
        return f"{self.url}/console/#token={token}" if not view else f"{self.url}/console/#/{view}"


@pytest.fixture
def server() -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    started: list[Any] = []
    ready = threading.Event()

    async def serve() -> None:
        stand_in = StandIn()
        config = uvicorn.Config(stand_in.application(), log_level="error", timeout_graceful_shutdown=1)
        own = uvicorn.Server(config)
        started.extend([own, stand_in, asyncio.get_running_loop()])
        ready.set()
        await own.serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="stand-in")
    thread.start()
    assert ready.wait(10)
    own, stand_in, loop = started
    yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", stand_in, loop)
    own.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    # Of this package only: the synchronous driver occupies the thread's event loop while it is open.
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"no browser: install it with `apt-get install chromium` ({CHROMIUM})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of its own; the test fails for any script error, refused inline script or style, or foreign request."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(15_000)
    page = context.new_page()
    wrong: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # The browser itself reports every 4xx as an error; those are what the tests provoke.
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(server.url) else wrong.append(request.url))
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def opened(page: Page, server: Server) -> Page:
    """The page, signed in as an operator."""
    page.goto(server.page())
    page.get_by_test_id("nav-sessions").wait_for()
    return page
