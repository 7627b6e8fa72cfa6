"""A real upstream (aiohttp) and a real server (uvicorn) for the front door's tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from aiohttp import WSMsgType, web
from starlette.types import ASGIApp

from footlights.protocol.launch_secrets import CHALLENGE, PROOF

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """A request as the application saw it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Application:
    """What a launch's signal port speaks: WHEP at ``/whep``, a WebSocket at ``/sign_in``."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    location: str = "/whep/r-1"
    answer: Handler | None = None
    challenge: str = "prove-this"
    """What a request without a proof, and not for a WebSocket, is refused with; empty: it is not refused."""
    close_code: asyncio.Future[int | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    proofs: list[tuple[str, str, str]] = field(default_factory=list)
    """The proof of each request that had one, with its method and target."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if PROOF in request.headers:
            self.proofs.append((request.headers[PROOF], request.method, request.raw_path))
        elif request.method == "GET" and "upgrade" not in request.headers and self.challenge:
            return web.Response(status=401, headers={CHALLENGE: self.challenge})
        self.seen.append(
            Seen(
                request.method,
                request.path,
                request.rel_url.raw_query_string,
                dict(request.headers),
                await request.read(),
            )
        )
        if self.answer is not None:
            return await self.answer(request)
        if request.path == "/sign_in":
            return await self._socket(request)
        if request.method == "POST":
            headers = {
                "Location": self.location,
                "ETag": '"e1"',
                "Link": '<stun:stun.example:3478>; rel="ice-server", </whep/ext>; rel="urn:ext"',
                "X-Node": "inner",
            }
            return web.Response(status=201, text="v=0 answer", content_type="application/sdp", headers=headers)
        return web.Response(status=200 if request.method == "DELETE" else 204)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=("app.v1",), max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.type == WSMsgType.BINARY:
                await ws.send_bytes(message.data)
            elif message.data.startswith("close "):
                await ws.close(code=int(message.data.split()[1]), message=b"as asked")
            elif message.data == "abort":
                assert request.transport is not None
                request.transport.abort()
            elif message.data.startswith("send "):
                await ws.send_str("x" * int(message.data.split()[1]))
            else:
                await ws.send_str(message.data)
        if not self.close_code.done():
            self.close_code.set_result(ws.close_code)
        return ws


@asynccontextmanager
async def running(application: Application) -> AsyncIterator[Application]:
    """Serve the application on a free port of 127.0.0.1."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", application.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    listener = listening()
    application.port = listener.getsockname()[1]
    await web.SockSite(runner, listener).start()
    try:
        yield application
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an ASGI application with uvicorn; gives its host and port."""
    config = uvicorn.Config(app, log_level="info", log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listener = listening()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task


async def until(condition: Callable[[], bool], deadline_s: float = 10) -> None:
    """Wait for a condition that nothing announces."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener
