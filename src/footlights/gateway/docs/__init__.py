"""The API's pages: ``/openapi.json``, and Swagger UI for it at ``/docs``, with nothing fetched from elsewhere.

``swagger/`` holds swagger-ui-dist 5.35.0 (npm), unchanged except for the references to source maps, with its licence.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript; charset=utf-8",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, tryItOutEnabled: true,
  persistAuthorization: false, defaultModelsExpandDepth: 0, displayRequestDuration: true
});
"""


def routes(document: dict[str, Any]) -> list[Route]:
    """``/openapi.json``, ``/docs`` and what the page needs, as Starlette routes."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    page = _PAGE.format(title=_escaped(str(document["info"]["title"])))

    async def openapi(_: Request) -> Response:
        return Response(body, media_type="application/json", headers={"access-control-allow-origin": "*"})

    async def docs(_: Request) -> Response:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(page, headers=headers)

    async def slash(request: Request) -> Response:
        # Relative addresses on the page are relative to /docs.
        return RedirectResponse(request.scope.get("root_path", "") + "/docs")

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _TYPES:
            raise HTTPException(404)
        headers = {"cache-control": "max-age=3600", "x-content-type-options": "nosniff"}
        return Response(_asset(name), media_type=_TYPES[name], headers=headers)

    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/", slash),
        Route("/docs/{name}", asset),
    ]


@cache
def _asset(name: str) -> bytes:
    if name == "start.js":
        return _START.encode()
    return (files(__name__) / "swagger" / name).read_bytes()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
