"""The HTTP port: is it ready, how far is it, who is there (design of the launch contract).

GET /v1/streaming/ready    200 "Ready for connection" after the first frame, else 503 with the step it is at
GET /v1/streaming/startup  the same as facts, always 200
GET /v1/streaming/status   {"viewers": n, "last_input_seconds_ago": s | null, "fps", "frames", "triangles", ...}
POST /v1/streaming/notice  {"reason": "DRAIN", "message": "…", "ends_in_seconds": s | null}: 204, and all viewers are
                           told; an empty reason takes it back
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from footlights.viewer.notice import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.render.render_loop import Progress


class Health:
    """The routes. They answer from the first moment on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = time.monotonic()
        self._ready_after: float | None = None
        self.status: Callable[[], dict[str, Any]] = self._nobody
        self.notice: Callable[[Notice], None] | None = None

    def ready(self) -> None:
        """Answer 200 from now on."""
        self._ready_after = time.monotonic() - self._began

    def application(self) -> web.Application:
        """The aiohttp application for the HTTP port."""
        app = web.Application()
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
        return web.json_response(self.status())

    async def _notice(self, request: web.Request) -> web.Response:
        try:
            notice = Notice.parse(await request.read(), time.monotonic())
        except ValueError as error:
            return web.json_response({"statusMessage": f"Not understood: {error}"}, status=400)
        if self.notice is None:
            return web.json_response({"statusMessage": "Not ready: nobody can be told"}, status=503)
        self.notice(notice)
        return web.Response(status=204)

    def _nobody(self) -> dict[str, Any]:
        progress = self._progress
        return {
            "viewers": 0,
            "last_input_seconds_ago": None,
            "fps": 0.0,
            "frames": progress.frames,
            "triangles": progress.triangles,
        }
