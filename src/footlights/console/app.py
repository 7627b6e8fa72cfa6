"""The console's ASGI application, at ``/console/``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response

from footlights.console.assets import FRAME, PAGE, Asset, Assets, load
from footlights.errors import NotFound, Reason, Unimplemented
from footlights.status import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from footlights.console.kit_library import KitLibrary

PREFIX = "/console"

_IMMUTABLE = "public, max-age=31536000, immutable"
_REVALIDATE = "no-cache"


def console(*, connect_sources: Iterable[str] = (), kit_library: KitLibrary | None = None) -> ASGIApp:
    """Return the console's ASGI application.

    It answers below its mount point (``Mount("/console", app=console())``) and, if it receives whole paths, below
    ``/console``. ``GET /console`` redirects to ``/console/``, the page; all other files are below
    ``/console/assets/<digest of all files>/`` and may be cached indefinitely. A request with the digest of another
    version gets the current file, not to be cached: a rolling upgrade breaks no open page.

    With ``kit_library`` the page also plays sessions of applications that speak NVIDIA's signalling, in a frame at
    ``/console/kit/<digest>/frame.html``. Because the code there is not ours, that frame has no origin and a policy of
    its own: it cannot read the page or its token, and sends requests to this server only.

    Args:
        connect_sources: Additional origins that the page may connect to, such as a separate front door
            (``https://media.example.com``); they are added to the policy's ``connect-src``.
        kit_library: NVIDIA's streaming library, where the operator provides it.

    Raises:
        ValueError: A connect source contains whitespace, ``;`` or ``,``, which would change the policy.
    """
    sources = tuple(connect_sources)
    assets = load(kit_library.page if kit_library else "")
    return _Console(assets, kit_library, _headers(sources), _frame_headers(sources))


class _Console:
    def __init__(
        self,
        assets: Assets,
        kit_library: KitLibrary | None,
        headers: dict[str, str],
        frame_headers: dict[str, str],
    ) -> None:
        self._assets, self._kit = assets, kit_library
        self._headers, self._frame_headers = headers, frame_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the console serves http only, not {scope['type']}")
        response = self._answer(scope)
        in_frame = _below_mount(scope).startswith(f"/{FRAME}")
        for name, value in (self._frame_headers if in_frame else self._headers).items():
            response.headers[name] = value
        await response(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            text = f"{scope['path']} does not support {scope['method']}; use GET or HEAD."
            not_allowed = Unimplemented(text, reason=Reason.METHOD_NOT_ALLOWED)
            return JSONResponse(to_json(not_allowed), 405, {"Allow": "GET, HEAD"})
        path = _below_mount(scope)
        if path == "":
            # Relative, so that it works behind a proxy that adds a prefix.
            return RedirectResponse(f"{PREFIX[1:]}/", 308, {"Cache-Control": _REVALIDATE})
        asset, cache_control = self._find(path[1:])
        if asset is None:
            missing = NotFound(
                f"There is nothing at {scope['path']}.", reason=Reason.PATH_NOT_FOUND, metadata={"path": scope["path"]}
            )
            return JSONResponse(to_json(missing), 404, {"Cache-Control": "no-store"})
        return _file(asset, cache_control, Headers(scope=scope))

    def _find(self, path: str) -> tuple[Asset | None, str]:
        if path in ("", PAGE):
            return self._assets.files[PAGE], _REVALIDATE
        root, _, rest = path.partition("/")
        digest, _, name = rest.partition("/")
        if root == FRAME[:-1] and self._kit is not None:
            return self._kit.files.get(name), _IMMUTABLE if digest == self._kit.digest else _REVALIDATE
        if root != "assets" or name == PAGE or name.startswith(FRAME):
            return None, ""
        return self._assets.files.get(name), _IMMUTABLE if digest == self._assets.digest else _REVALIDATE


def _below_mount(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    if path == PREFIX or path.startswith(PREFIX + "/"):
        path = path[len(PREFIX) :]
    return path


def _file(asset: Asset, cache_control: str, request: Headers) -> Response:
    headers = {"ETag": asset.etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding"}
    body = asset.body
    if asset.gzipped is not None and _takes_gzip(request.get("accept-encoding", "")):
        body = asset.gzipped
        # A strong tag identifies the bytes that are sent (RFC 9110 §8.8.1).
        headers |= {"Content-Encoding": "gzip", "ETag": f'{asset.etag[:-1]}-gzip"'}
    if _names(request.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers | {"Content-Type": asset.media_type})


def _names(if_none_match: str, etag: str) -> bool:
    """RFC 9110 §13.1.2: a list of tags, compared weakly, or ``*``."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _takes_gzip(accept_encoding: str) -> bool:
    for item in accept_encoding.lower().split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip() == "gzip":
            return parameters.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _headers(connect_sources: tuple[str, ...]) -> dict[str, str]:
    for source in connect_sources:
        if not source or any(character in source for character in " \t\r\n;,'\""):
            raise ValueError(f"connect source {source!r} is not an origin; write it as https://media.example.com:8443")
    policy = (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        " ".join(("connect-src 'self'", *connect_sources)),
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), fullscreen=(self)",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _frame_headers(connect_sources: tuple[str, ...]) -> dict[str, str]:
    """Return those of the frame around NVIDIA's library: ``sandbox`` takes its origin away, also from who opens it."""
    sockets = tuple(source.replace("http", "ws", 1) for source in connect_sources if source.startswith("http"))
    policy = (
        "default-src 'none'",
        # Eval gives code there nothing that it does not have, and early releases of the library are said to need it.
        "script-src 'self' 'unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        " ".join(("connect-src 'self'", *connect_sources, *sockets)),
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "sandbox allow-scripts allow-pointer-lock",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        # Its modules are loaded by a document without an origin. They are no secret.
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), display-capture=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }
