"""What HTTP serves: the gateway, its documents, the front door, the console, health and metrics, on one origin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from footlights.control.observability.metrics import CONTENT_TYPE, Metrics
from footlights.frontdoor import FrontDoor
from footlights.gateway.site import Site
from footlights.store.cluster.revisions import last_revision

if TYPE_CHECKING:
    from starlette.requests import Request

    from footlights.store import Store

log = structlog.get_logger(__name__)

ASGIApp = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Api:
    """What the role ``api`` serves."""

    gateway: ASGIApp
    console: ASGIApp
    docs: Sequence[BaseRoute]


def web(store: Store, metrics: Metrics, *, api: Api | None, front_door: FrontDoor | None) -> ASGIApp:
    """Return the one ASGI application of a control plane; None is a role that it does not have."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "SERVING"})

    async def readyz(_: Request) -> Response:
        # Reading the store answers what a probe wants to know: is this process of use to anybody?
        await store.read(last_revision)
        return JSONResponse({"status": "SERVING"})

    async def show_metrics(_: Request) -> Response:
        metrics.queued(store.queued)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    async def unhealthy(_: Request, error: Exception) -> Response:
        log.warning("unhealthy", error=str(error))
        return JSONResponse({"status": "NOT_SERVING", "message": "The store cannot be read; the log says why."}, 503)

    async def home(_: Request) -> Response:
        return RedirectResponse("console/")

    routes: list[BaseRoute] = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/healthz", readyz),
        Route("/metrics", show_metrics),
    ]
    if api is not None:
        routes += [Route("/", home), Route("/console", home), Mount("/console", app=api.console), *api.docs]
    site = Site(
        api.gateway if api is not None else _elsewhere("api"), routes, exception_handlers={Exception: unhealthy}
    )

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        # The front door owns its paths exactly, WebSockets included; a pattern says that more plainly than mounts.
        if front_door is not None and FrontDoor.owns(scope):
            await front_door(scope, receive, send)
        elif scope["type"] == "http" and FrontDoor.owns(scope):
            await _elsewhere("frontdoor")(scope, receive, send)
        else:
            await site(scope, receive, send)

    return app


def _elsewhere(role: str) -> ASGIApp:
    """Answer what is another role's."""
    message = f"This process does not have the role {role}: send the request to one that has."
    return JSONResponse({"code": 5, "message": message, "details": []}, 404)
