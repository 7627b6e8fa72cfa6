"""What HTTP serves: the gateway, its documents, the front door, the console, health and metrics, on one origin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from footlights.control.metrics import CONTENT_TYPE, Metrics
from footlights.frontdoor import FrontDoor
from footlights.gateway.site import Site
from footlights.store import Store
from footlights.store.revisions import last_revision

log = structlog.get_logger(__name__)

ASGIApp = Callable[..., Awaitable[None]]


def web(
    store: Store,
    metrics: Metrics,
    *,
    gateway: ASGIApp,
    front_door: FrontDoor,
    console: ASGIApp,
    docs: Sequence[BaseRoute],
) -> ASGIApp:
    """Return the one ASGI application of a control plane."""

    async def healthz(_: Request) -> Response:
        # Reading the store answers what a probe wants to know: is this process of use to anybody?
        await store.read(last_revision)
        return JSONResponse({"status": "SERVING"})

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    async def unhealthy(_: Request, error: Exception) -> Response:
        log.warning("The health check failed", action="unhealthy", error=str(error))
        return JSONResponse({"status": "NOT_SERVING", "message": "The store cannot be read; the log says why."}, 503)

    async def home(_: Request) -> Response:
        return RedirectResponse("console/")

    site = Site(
        gateway,
        [
            Route("/healthz", healthz),
            Route("/metrics", show_metrics),
            Route("/", home),
            Route("/console", home),
            Mount("/console", app=console),
            *docs,
        ],
        exception_handlers={Exception: unhealthy},
    )

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        # The front door owns its paths exactly, WebSockets included; a pattern says that more plainly than mounts.
        if FrontDoor.owns(scope):
            await front_door(scope, receive, send)
        else:
            await site(scope, receive, send)

    return app
