"""What HTTP serves: the gateway, its documents, the front door, the console, health and metrics.

Clients have it all on one origin. Metrics, and why a process is not ready, are for operators: they are on the admin
listener, or, where there is none, on the same one for whom ``inspection`` lets in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from footlights.control.call.registry import role_not_served
from footlights.control.observability.metrics import CONTENT_TYPE, Metrics
from footlights.control.services.kas.paths import KasPaths
from footlights.control.services.nvcf.asked import NVCF_PATHS, is_about_functions
from footlights.errors import Error, Internal, NotFound, Reason, Unimplemented
from footlights.frontdoor import FrontDoor
from footlights.gateway.site import Site
from footlights.http.request_ids import request_id
from footlights.http.scope import header
from footlights.http.status import HTTP_STATUS
from footlights.status import to_json
from footlights.store.cluster.revisions import last_revision

if TYPE_CHECKING:
    from starlette.requests import Request

    from footlights.control.inspection import Inspectors
    from footlights.store import Store
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

ASGIApp = Callable[..., Awaitable[None]]
Check = Callable[[Any], Awaitable[None]]
"""Raises an error of ours unless the caller of an ASGI scope may."""


def _probe(name: str, text: str, answers: dict[str, str], media_type: str = "application/json") -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Health"} if media_type == "application/json" else {"type": "string"}
    responses = {
        status: {"description": said, "content": {media_type: {"schema": schema}}} for status, said in answers.items()
    }
    operation = {"operationId": f"Health_{name}", "tags": ["Health"], "summary": text.rstrip("."), "description": text}
    return {"get": {**operation, "security": [], "responses": responses}}


_READY: Final = {"200": "Requests can be sent to it.", "503": "They should not."}
OPENAPI: Final[dict[str, Any]] = {
    "tags": [{"name": "Health", "description": "Says how this process is. Health needs no token."}],
    "paths": {
        "/livez": _probe("Livez", "Answers while the process runs.", {"200": "It runs."}),
        "/readyz": _probe("Readyz", "Says whether requests should be sent to this process.", _READY),
        "/healthz": _probe("Healthz", "The same as /readyz.", _READY),
        "/metrics": _probe(
            "Metrics",
            "Metrics in Prometheus' text format: for clients on the server's machine, and with an operator's token. "
            "Not here where the server has an admin listener.",
            {"200": "The metrics."},
            "text/plain",
        ),
    },
    "components": {
        "schemas": {
            "Health": {
                "type": "object", "required": ["status"],
                "properties": {
                    "status": {"type": "string", "description": "`SERVING` or `NOT_SERVING`."},
                    "message": {"type": "string", "description": "Why it is not serving; for operators."},
                },
            },
        },
    },
}  # fmt: skip
"""Health and metrics in OpenAPI 3.1, to be merged into the document of the API."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the role ``api`` serves."""

    gateway: ASGIApp
    console: ASGIApp
    docs: Sequence[BaseRoute]
    kas: ASGIApp | None
    """Kit App Streaming, where it is switched on."""
    kas_paths: KasPaths
    nvcf: ASGIApp | None
    """The functions of NVIDIA Cloud Functions, where they are switched on."""


class Readiness:
    """Says whether this process should be sent requests."""

    def __init__(self, store: Store, supervisor: Supervisor) -> None:
        self._store, self._supervisor, self._stopping = store, supervisor, False

    def stop(self) -> None:
        """Say from now on that the process is stopping."""
        self._stopping = True

    async def problem(self) -> str:
        """Return why the process is not ready; empty where it is."""
        if self._stopping:
            return "The server is stopping."
        if failing := self._supervisor.failing:
            return f"These loops fail again and again: {', '.join(failing)}. The log says why."
        try:
            await self._store.read(last_revision)
        except Exception as error:
            log.warning("unhealthy", error=str(error))
            return "The store cannot be read. The log says why."
        return ""


class Probes:
    """Health and metrics, as routes."""

    def __init__(self, metrics: Metrics, readiness: Readiness, *, queued: Callable[[], int]) -> None:
        """Create them; ``queued`` returns how many transactions wait for the store."""
        self._metrics, self._readiness, self._queued = metrics, readiness, queued

    def routes(self, *, check: Check, may: Callable[[Any], Awaitable[bool]]) -> list[BaseRoute]:
        """Return all: metrics for whom ``check`` raises nothing, why it is not ready for whom ``may`` is true."""

        async def show_metrics(request: Request) -> Response:
            await check(request.scope)
            self._metrics.queued(self._queued())
            return Response(self._metrics.text(), media_type=CONTENT_TYPE)

        return [*self.health(may), Route("/metrics", show_metrics)]

    def health(self, may: Callable[[Any], Awaitable[bool]]) -> list[BaseRoute]:
        """Return those of health, with the reason for whom ``may`` is true."""

        async def livez(_: Request) -> Response:
            return JSONResponse({"status": "SERVING"})

        async def readyz(request: Request) -> Response:
            if problem := await self._readiness.problem():
                reason = {"message": problem} if await may(request.scope) else {}
                return JSONResponse({"status": "NOT_SERVING", **reason}, 503)
            return JSONResponse({"status": "SERVING"})

        return [Route("/livez", livez), Route("/readyz", readyz), Route("/healthz", readyz)]


def admin(probes: Probes) -> ASGIApp:
    """Return the application of the admin listener, which shows everything to any client.

    ``/descriptors`` is the descriptor set of the API, as ``grpcurl -protoset`` takes it; gRPC's reflection is at the
    same port.
    """
    descriptors = resources.files("footlights.v1").joinpath("footlights.binpb").read_bytes()

    async def show_descriptors(_: Request) -> Response:
        return Response(descriptors, media_type="application/octet-stream")

    async def check(_: Any) -> None:
        return None

    async def may(_: Any) -> bool:
        return True

    return _site(_not_found, [*probes.routes(check=check, may=may), Route("/descriptors", show_descriptors)])


def web(
    probes: Probes,
    *,
    inspectors: Inspectors | None,
    api: Api | None,
    front_door: FrontDoor | None,
    sign_in: ASGIApp | None = None,
) -> ASGIApp:
    """Return the application that clients use.

    ``inspectors`` is None where an admin listener has the metrics; ``sign_in`` where functions are not served.
    """

    async def home(_: Request) -> Response:
        return RedirectResponse("console/")

    async def never(_: Any) -> bool:
        return False

    routes = probes.health(never) if inspectors is None else probes.routes(check=inspectors.check, may=inspectors.may)
    if api is not None:
        routes += [Route("/", home), Route("/console", home), Mount("/console", app=api.console), *api.docs]
    site = _site(api.gateway if api is not None else _elsewhere("api"), routes)
    kas, paths, nvcf = (None, KasPaths(), None) if api is None else (api.kas, api.kas_paths, api.nvcf)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if sign_in is not None and is_about_functions(scope):
            await sign_in(scope, receive, send)
            return
        # The front door has its own paths, WebSockets included, below those of the gateway.
        if front_door is not None and FrontDoor.owns(scope):
            await front_door(scope, receive, send)
        elif scope["type"] == "http" and FrontDoor.owns(scope):
            await _elsewhere("frontdoor")(scope, receive, send)
        elif kas is not None and (rewritten := paths.rewritten(scope)) is not None:
            await kas(rewritten, receive, send)
        elif nvcf is not None and scope["type"] == "http" and scope["path"].startswith(NVCF_PATHS):
            await nvcf(scope, receive, send)
        else:
            await site(scope, receive, send)

    return app


def _site(rest: ASGIApp, routes: Sequence[BaseRoute]) -> Site:
    async def failed(request: Request, error: Exception) -> Response:
        name = _request_id(request.scope)
        log.error("http_failed", path=request.url.path, request_id=name, exc_info=error)
        return _refusal(_internal(name), 500, name)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        name = _request_id(request.scope)
        return _refusal(_said(error, request, name), error.status_code, name, error.headers)

    async def denied(request: Request, error: Exception) -> Response:
        assert isinstance(error, Error)
        return _refusal(error, HTTP_STATUS[error.code], _request_id(request.scope))

    return Site(rest, routes, exception_handlers={Exception: failed, HTTPException: refused, Error: denied})


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    await _refusal(_nothing_at(scope["path"]), 404, _request_id(scope))(scope, receive, send)


def _elsewhere(role: str) -> ASGIApp:
    """Refuse requests for a role that this process does not have."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await _refusal(role_not_served(role), 501, _request_id(scope))(scope, receive, send)

    return app


def _request_id(scope: Any) -> str:
    return request_id(header(scope, b"x-request-id"))


def _internal(name: str) -> Internal:
    message = f"Something went wrong in the control plane. Its log says what, under request id {name}."
    return Internal(message, metadata={"request_id": name})


def _said(error: HTTPException, request: Request, name: str) -> Error:
    """Return what Starlette's routing refuses, as an error of ours."""
    path = request.url.path
    if error.status_code == 404:
        return _nothing_at(path)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return Unimplemented(
            f"{path} does not support {request.method}; use {allowed}.", reason=Reason.METHOD_NOT_ALLOWED
        )
    return _internal(name)


def _nothing_at(path: str) -> NotFound:
    return NotFound(f"There is nothing at {path}.", reason=Reason.PATH_NOT_FOUND, metadata={"path": path})


def _refusal(error: Error, status: int, name: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(to_json(error), status, {**(headers or {}), "x-request-id": name})
