"""The HTTP port: readiness, start-up progress, presence and notices (the launch contract).

GET /v1/streaming/ready    200 "Ready for connection" after the first frame, before it 503 with the current step
GET /v1/streaming/startup  the same as facts, always 200
GET /v1/streaming/status   {"viewers": n, "last_input_seconds_ago": s | null, "fps", "frames", "triangles", ...,
                           "left_out": what of the stage is not shown as authored, [{"what", "count", "first"}]}
POST /v1/streaming/notice  {"reason": "DRAIN", "message": "…", "ends_in_seconds": s | null}: 204; it is sent to
                           all viewers; an empty reason withdraws it
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from footlights.viewer.notice import StreamNotice

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Middleware

    from footlights.viewer.render.render_loop import StageProgress


class HealthEndpoint:
    """The routes. They answer from the start, before the stage is open."""

    def __init__(self, progress: StageProgress, check: Middleware) -> None:
        self._progress, self._check = progress, check
        self._began = time.monotonic()
        self._ready_after: float | None = None
        self._viewers_status: Callable[[], dict[str, Any]] = self._status_without_viewers
        self._notify: Callable[[StreamNotice], None] | None = None

    def ready(self, status: Callable[[], dict[str, Any]], notify: Callable[[StreamNotice], None]) -> None:
        """Report ready from now on."""
        self._viewers_status, self._notify = status, notify
        self._ready_after = time.monotonic() - self._began

    def application(self) -> web.Application:
        """The aiohttp application for the HTTP port."""
        app = web.Application(middlewares=[self._check])
        app.router.add_get("/v1/streaming/ready", self._ready)
        app.router.add_get("/v1/streaming/startup", self._startup)
        app.router.add_get("/v1/streaming/status", self._status)
        app.router.add_post("/v1/streaming/notice", self._notice)
        return app

    async def _ready(self, _request: web.Request) -> web.Response:
        if self._ready_after is None:
            return web.json_response({"statusMessage": f"Not ready: {self._progress.step}"}, status=503)
        return web.json_response({"statusMessage": "Status: Ready for connection"})

    async def _startup(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "ready": self._ready_after is not None,
                "step": self._progress.step,
                "seconds": round(self._ready_after or time.monotonic() - self._began, 3),
                "stage": self._progress.stage,
                "triangles": self._progress.triangles,
            }
        )

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._viewers_status())

    async def _notice(self, request: web.Request) -> web.Response:
        try:
            notice = StreamNotice.parse(await request.read(), time.monotonic())
        except ValueError as error:
            return web.json_response({"statusMessage": f"invalid notice: {error}"}, status=400)
        if self._notify is None:
            return web.json_response({"statusMessage": "Not ready: there are no viewers yet"}, status=503)
        self._notify(notice)
        return web.Response(status=204)

    def _status_without_viewers(self) -> dict[str, Any]:
        progress = self._progress
        return {
            "viewers": 0,
            "last_input_seconds_ago": None,
            "fps": 0.0,
            "frames": progress.frames,
            "triangles": progress.triangles,
            "left_out": progress.left_out,
        }
