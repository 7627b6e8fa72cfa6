"""WHEP on the signal port (draft-ietf-wish-whep): an offer in, an answer and a resource out.

    POST   /whep             application/sdp -> 201, Location: /whep/{resource}
    PATCH  /whep/{resource}  trickled candidates -> 204; they are not needed and not read. An ICE restart -> 422, since
                             it is not supported (RFC 9725, section 4.3.1); 404 when it has ended
    DELETE /whep/{resource}  -> 200, also when it has already ended

The application's own state is never a 400, which players take as "try another way": while the stage is opening, an
offer waits and then gets 503 with Retry-After.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from footlights.viewer.access import Handler
    from footlights.viewer.stream.viewers import Viewers

log = logging.getLogger("footlights.viewer.stream.whep")

FRAGMENT = "application/trickle-ice-sdpfrag"
MAX_OFFER_BYTES = 64 * 1024
READY_WAIT = 15.0  # seconds

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Expose-Headers": "Location, Retry-After",
    "Access-Control-Max-Age": "86400",
}


class WhepEndpoint:
    """The routes. Offers wait until `open` is called: the heavy modules are loaded and the stage is open."""

    def __init__(self, check: Middleware) -> None:
        self._check = check
        self._viewers: Viewers | None = None
        self._open = asyncio.Event()

    def open(self, viewers: Viewers) -> None:
        """Answer offers from now on."""
        self._viewers = viewers
        self._open.set()

    def application(self) -> web.Application:
        """The aiohttp application for the signal port."""
        app = web.Application(client_max_size=MAX_OFFER_BYTES, middlewares=[_with_cors, self._check])
        app.router.add_post("/whep", self._create)
        app.router.add_delete("/whep/{resource}", self._delete)
        app.router.add_patch("/whep/{resource}", self._patch)
        app.router.add_route("OPTIONS", "/whep", _options)
        app.router.add_route("OPTIONS", "/whep/{resource}", _options)
        return app

    async def _create(self, request: web.Request) -> web.Response:
        if request.content_type != "application/sdp":
            return _problem(415, f"Content-Type is {request.content_type!r}: send the SDP offer as application/sdp")
        offer = await request.text()
        try:
            await asyncio.wait_for(self._open.wait(), READY_WAIT)
        except TimeoutError:
            return _problem(503, "the stage is not open yet: try again", {"Retry-After": "2"})
        assert self._viewers is not None
        from footlights.viewer.stream.peer import OfferRefused
        from footlights.viewer.stream.viewers import NoPlace

        try:
            resource, answer = await self._viewers.admit(offer)
        except OfferRefused as refusal:
            log.info("offer refused: %s", refusal)
            return _problem(422, str(refusal))
        except NoPlace as full:
            return _problem(503, str(full), {"Retry-After": "5"})
        return web.Response(
            status=201, text=answer, content_type="application/sdp", headers={"Location": f"/whep/{resource}"}
        )

    async def _delete(self, request: web.Request) -> web.Response:
        if self._viewers is not None:
            await self._viewers.dismiss(request.match_info["resource"])
        return web.Response(status=200)

    async def _patch(self, request: web.Request) -> web.Response:
        if request.content_type != FRAGMENT:
            return _problem(415, f"Content-Type is {request.content_type!r}: send candidates as {FRAGMENT}")
        fragment = await request.text()
        restarts = self._viewers and self._viewers.restarts(request.match_info["resource"], fragment)
        if restarts is None:
            return _problem(404, "there is no such viewer, or no more: POST an offer")
        if restarts:
            return _problem(422, "ICE restarts are not supported: DELETE this resource, and POST another offer")
        return web.Response(status=204)


async def _options(request: web.Request) -> web.Response:
    accepts = {"Accept-Patch": FRAGMENT} if "resource" in request.match_info else {"Accept-Post": "application/sdp"}
    return web.Response(status=204, headers=accepts)


@web.middleware
async def _with_cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(CORS)
        raise
    response.headers.update(CORS)
    return response


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"title": "WHEP", "status": status, "detail": detail}
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")
