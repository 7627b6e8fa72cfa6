"""A Starlette application around a gateway: pages, health and other mounts beside the API, on one origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send


class Site(Starlette):
    """Serves its routes, and a gateway at every other path.

    A request whose first path segment belongs to no route goes straight to the gateway, past routing and middleware of
    the application. A ``Mount("/")`` would be slower, and would answer a path with a line end by Starlette's plain 404.
    """

    def __init__(
        self,
        gateway: ASGIApp,
        routes: Sequence[BaseRoute],
        exception_handlers: Mapping[Any, Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__(routes=routes, exception_handlers=exception_handlers)
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
