"""A Starlette application around a gateway: pages, health and other mounts beside the API, on one origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send


class Site(Starlette):
    """Serves its routes, and a gateway at every other path.

    A request whose first path segment belongs to no route goes straight to the gateway, past routing and middleware of
    the application. A ``Mount("/")`` would be slower, and would answer a path with a line end by Starlette's plain 404.

    OPTIONS is answered for every route with what it allows.
    """

    def __init__(
        self,
        gateway: ASGIApp,
        routes: Sequence[BaseRoute],
        exception_handlers: Mapping[Any, Callable[..., Any]] | None = None,
    ) -> None:
        handlers = dict(exception_handlers or {})
        self._refused: Callable[..., Any] | None = handlers.get(HTTPException)
        super().__init__(routes=routes, exception_handlers={**handlers, HTTPException: self._not_served})
        # A path that begins like a route and matches none is refused by the gateway.
        self.router.default, self.router.redirect_slashes = gateway, False
        self._gateway = gateway
        self._own = {route.path.split("/")[1] for route in routes if isinstance(route, Route | Mount)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            path = scope["path"]
            if root_path := scope.get("root_path"):
                path = path.removeprefix(root_path)
            if path[1:].partition("/")[0] not in self._own:
                await self._gateway(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def _not_served(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            methods = {name.strip() for name in (error.headers or {}).get("Allow", "").split(",")} - {""}
            allowed = {**(error.headers or {}), "Allow": ", ".join(sorted(methods | {"OPTIONS"}))}
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=allowed)
            error = HTTPException(error.status_code, error.detail, allowed)
        if self._refused is None:
            return PlainTextResponse(error.detail, error.status_code, error.headers)
        answer: Response = await self._refused(request, error)
        return answer
