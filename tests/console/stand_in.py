"""A server that answers the REST API as the protos describe it, from memory, so that the page can be tested alone.

``python -m tests.console.look`` serves it for looking at the page. Applications decide what happens:
``usd-viewer`` starts and shows a picture, ``crasher`` fails after its process is up, ``huge`` waits in the queue for
ever, ``slow`` starts slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from footlights.console import console
from tests.console.catalogue import APPLICATIONS, POOLS, PROFILES, VERSIONS
from tests.console.state import ENDED, Json, State, seconds, stamp

OPERATOR = "fl_operator_secret"
DEVELOPER = "fl_developer_secret"


class Refusal(Exception):
    """A google.rpc.Status to answer with."""

    def __init__(self, http: int, code: int, message: str, reason: str, *, field: str = "") -> None:
        super().__init__(message)
        details: list[Json] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "footlights.dev",
                "metadata": {"field": field} if field else {},
            }
        ]
        if field:
            violation = {"field": field, "description": message, "reason": reason, "localized_message": None}
            details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "field_violations": [violation]})
            message = f"{field}: {message}"
        self.http = http
        self.body: Json = {"code": code, "message": message, "details": details}


class StandIn(State):
    """The state, with the API over it."""

    def application(self) -> Starlette:
        def answer(handler: Callable[[Request, Json], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def endpoint(request: Request) -> Response:
                query = f"?{request.url.query}" if request.url.query else ""
                self.requests.append((request.method, request.url.path + query))
                try:
                    return await handler(request, self._caller(request))
                except Refusal as refusal:
                    return JSONResponse(refusal.body, refusal.http)

            return endpoint

        def get(path: str, handler: Callable[[Request, Json], Awaitable[Response]]) -> Route:
            return Route(path, answer(handler), methods=["GET"])

        def post(path: str, handler: Callable[[Request, Json], Awaitable[Response]]) -> Route:
            return Route(path, answer(handler), methods=["POST"])

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            for task in list(self._tasks):
                task.cancel()
            await self.whep.close_all()

        async def home(_: Request) -> Response:
            return RedirectResponse("/console/")

        return Starlette(
            lifespan=lifespan,
            routes=[
                Route("/", home),
                Mount("/console", app=console()),
                get("/v1/caller", self.get_caller),
                get("/v1/sessions:watch", self.watch),
                get("/v1/sessions", self.list_sessions),
                post("/v1/sessions:explain", self.explain),
                post("/v1/sessions", self.create),
                post("/v1/sessions/{id}:connect", self.connect),
                post("/v1/sessions/{id}:extend", self.extend),
                get("/v1/sessions/{id}:tailLog", self.tail_log),
                get("/v1/sessions/{id}/log", self.get_log),
                Route("/v1/sessions/{id}/whep", self.offer, methods=["POST"]),
                Route("/v1/sessions/{id}/whep/{resource}", self.hang_up, methods=["DELETE"]),
                Route("/v1/sessions/{id}/whep/{resource}", self.trickle, methods=["PATCH"]),
                get("/v1/sessions/{id}/viewers", self.list_viewers),
                post("/v1/sessions/{id}/viewers/{viewer}:disconnect", self.disconnect_viewer),
                get("/v1/sessions/{id}", self.get_session),
                Route("/v1/sessions/{id}", answer(self.terminate), methods=["DELETE"]),
                get("/v1/applications", self.list_applications),
                get("/v1/applications/{application}", self.get_application),
                get("/v1/applications/{application}/versions", self.list_versions),
                get("/v1/applications/{application}/versions/{version}", self.get_version),
                get("/v1/applications/{application}/releases", self.list_releases),
                get("/v1/profiles", self.list_profiles),
                get("/v1/pools", self.list_pools),
                get("/v1/nodes", self.list_nodes),
                post("/v1/nodes/{node}:{verb}", self.change_node),
                get("/v1/tokens", self.list_tokens),
                post("/v1/tokens", self.create_token),
                Route("/v1/tokens/{id}", answer(self.revoke_token), methods=["DELETE"]),
            ],
        )

    def _caller(self, request: Request) -> Json:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.revoked:
            raise Refusal(401, 16, "the token was revoked; sign in with another", "TOKEN_REVOKED")
        read = ["sessions.read", "sessions.create", "sessions.terminate", "sessions.extend", "sessions.connect"]
        read += ["applications.read", "profiles.read", "pools.read", "caller.read"]
        if token == OPERATOR:
            all_ = [
                *read,
                "nodes.read",
                "nodes.write",
                "sessions.create_for_others",
                "sessions.priority",
                "sessions.any_isolation",
                "tokens.read",
                "tokens.write",
                "applications.write",
            ]
            return {"subject": "ada", "role": "OPERATOR", "permissions": all_, "server_version": "0.1.0"}
        if token == DEVELOPER:
            return {"subject": "grace", "role": "DEVELOPER", "permissions": read, "server_version": "0.1.0"}
        raise Refusal(401, 16, "the token is not known; check it, or ask an operator for one", "TOKEN_UNKNOWN")

    async def get_caller(self, _: Request, caller: Json) -> Response:
        return JSONResponse(caller)

    def _visible(self, caller: Json) -> list[Json]:
        everything = caller["role"] == "OPERATOR"
        return [one for one in self.sessions.values() if everything or one["username"] == caller["subject"]]

    def _session(self, request: Request, caller: Json) -> Json:
        session_id = request.path_params["id"]
        for session in self._visible(caller):
            if session["session_id"] == session_id:
                return session
        raise Refusal(404, 5, f"session {session_id!r} does not exist", "RESOURCE_NOT_FOUND")

    async def list_sessions(self, request: Request, caller: Json) -> Response:
        query = request.query_params
        states = set(query.getlist("state"))
        found = [
            one
            for one in self._visible(caller)
            if (one["state"] in states if states else one["state"] not in ENDED)
            and query.get("application", one["application"]) == one["application"]
            and query.get("username", one["username"]) == one["username"]
        ]
        found.sort(key=lambda one: str(one["created_time"]), reverse=query.get("order_by") == "created_time desc")
        limit, start = int(query.get("limit", 50)), int(query.get("page_token") or 0)
        more = str(start + limit) if start + limit < len(found) else ""
        return JSONResponse(
            {
                "items": found[start : start + limit],
                "count": len(found),
                "count_is_capped": False,
                "limit": limit,
                "offset": 0,
                "next_page_token": more,
            }
        )

    async def watch(self, request: Request, caller: Json) -> Response:
        kind, _, revision = request.query_params.get("cursor", "").partition(":")
        if kind and int(kind) != self._cursors:
            raise Refusal(400, 3, "It cannot be continued there. Start over.", self._refusal, field="cursor")
        kind, after = str(self._cursors), int(revision or 0)

        def frame(change: str, session: Json | None, cursor: int) -> str:
            return json.dumps({"result": {"change": change, "session": session, "cursor": f"{kind}:{cursor}"}}) + "\n"

        async def lines() -> AsyncIterator[str]:
            seen, cut, synced = after, self._cut, False
            while not cut.is_set():
                changed = self._changed
                for session in sorted(self._visible(caller), key=lambda one: int(one["revision"])):
                    if int(session["revision"]) > seen:
                        seen = int(session["revision"])
                        if after or synced or session["state"] not in ENDED:
                            yield frame("SET", session, seen)
                if not synced:
                    synced = True
                    yield frame("SYNCED", None, seen)
                await changed.wait()

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def create(self, request: Request, caller: Json) -> Response:
        body = await request.json()
        self.created.append(body)
        application = body.get("application", "")
        versions = VERSIONS.get(application)
        if versions is None:
            message = f"application {application!r} does not exist; GET /applications lists them"
            raise Refusal(404, 5, message, "RESOURCE_NOT_FOUND", field="application")
        arguments = body.get("application_arguments", {})
        stage = arguments.get("usd_stage_uri", "")
        roots = versions[0]["allowed_stage_roots"]
        if stage and not any(stage.startswith(root) for root in roots):
            message = f"usd_stage_uri {stage!r} is outside of the allowed roots; give one below {', '.join(roots)}"
            raise Refusal(400, 3, message, "STAGE_NOT_ALLOWED", field="application_arguments.usd_stage_uri")
        speed = arguments.get("speed")
        if speed is not None and (not isinstance(speed, int | float) or speed > 10):
            message = f"speed is {speed!r}; give a number from 0 to 10"
            raise Refusal(400, 3, message, "ARGUMENT_OUT_OF_RANGE", field="application_arguments.speed")
        for session in self.sessions.values():
            if body.get("request_id") and session["request_id"] == body["request_id"]:
                return JSONResponse(session, 202)
        members = {"request_id": body.get("request_id", ""), "application_arguments": arguments}
        session = self.add(application, username=caller["subject"], **members)
        self._spawn(self._live(session))
        return JSONResponse(session, 202, {"Location": f"/v1/sessions/{session['session_id']}"})

    async def get_session(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        return JSONResponse(session, 202 if session["state"] in {"PENDING", "STARTING"} else 200)

    async def terminate(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        self._spawn(self._end(session))
        return JSONResponse(session, 202)

    async def extend(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        limits = session["limits"]
        whole = seconds(limits["max_duration"]) + seconds((await request.json())["extend_by"])
        if whole > 28800:
            message = "extend_by would make it 12 h in all; the version allows 8 h"
            raise Refusal(400, 9, message, "MAX_DURATION_EXCEEDED", field="extend_by")
        self.change(session, limits=limits | {"max_duration": f"{whole}s"})
        return JSONResponse(session)

    async def explain(self, request: Request, _: Json) -> Response:
        body = await request.json()
        huge = body.get("application") == "huge"
        nodes = []
        for node in self._nodes[:6]:
            if node["state"] != "READY":
                text = {"CORDONED": "cordoned by an operator", "UNREACHABLE": "silent for 4 min"}
                message = text.get(node["state"], node["state"].lower())
                nodes.append({"node": node["node"], "reason": node["state"], "message": message, "devices": []})
                continue
            devices = []
            for device in node["devices"]:
                reason, message = ("MEMORY", "48 GiB, needs 80 GiB") if huge else ("FITS", "")
                if device["health"] != "OK":
                    reason, message = "UNHEALTHY", device["health_reasons"][0]["reason"]
                elif device["slots_leased"] == device["slots"]:
                    reason, message = "NO_SLOT", "all slots are taken"
                verdict = {"device": device["uuid"], "device_name": device["name"], "reason": reason}
                devices.append(verdict | {"message": message})
            fits = any(device["reason"] == "FITS" for device in devices)
            reason = "FITS" if fits else "NO_DEVICE"
            message = "" if fits else "no device fits"
            nodes.append({"node": node["node"], "reason": reason, "message": message, "devices": devices})
        answer: Json = {"fits": not huge, "node": "" if huge else nodes[0]["node"], "device": "", "nodes": nodes}
        why = {"reason": "MEMORY", "device_count": 2000, "message": "2000 devices: too little memory"}
        waits = {"queue_position": 3, "estimated_wait_duration": "252s", "node_count": 1000, "wait_reasons": [why]}
        return JSONResponse(answer | (waits if huge else {"queue_position": 0}))

    async def connect(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        if session["state"] not in {"READY", "ACTIVE"}:
            raise Refusal(400, 9, f"session is {session['state']}; connect when it is READY", "INVALID_STATE")
        base, grant = f"{self.public or request.base_url}v1/sessions/{session['session_id']}", self.grant(session)
        signaling = VERSIONS[session["application"]][0]["signaling"]
        config = {"signalingServer": request.url.hostname, "signalingPort": request.url.port, "forceWSS": False}
        config |= {"signalingPath": f"/v1/sessions/{session['session_id']}", "sessionId": session["session_id"]}
        config |= {"authenticate": True, "accessToken": grant, "mediaServer": "203.0.113.10", "mediaPort": 31001}
        return JSONResponse(
            {
                "token": grant,
                "whep_url": f"{base}/whep" if "whep_path" in signaling else "",
                "signaling_url": f"ws{base.removeprefix('http')}/sign_in" if "websocket_path" in signaling else "",
                "app_streamer": config if "websocket_path" in signaling else {},
                "ice_servers": [],
                "expire_time": stamp(minutes=5),
            }
        )

    def grant(self, session: Json) -> str:
        """Return a grant that no other one equals."""
        self.grants += 1
        return f"grant-{session['session_id']}-{self.grants}"

    async def offer(self, request: Request) -> Response:
        session = self.sessions[request.path_params["id"]]
        if not request.headers.get("authorization", "").startswith(f"Bearer grant-{session['session_id']}-"):
            return JSONResponse(Refusal(401, 16, "the grant is not good", "GRANT_INVALID").body, 401)
        if self.whep.refuse:
            message = "the application does not answer on its signal port; it may be hanging"
            return JSONResponse(Refusal(503, 14, message, "APPLICATION_SILENT").body, 503)
        answer, resource = await self.whep.answer(session["session_id"], (await request.body()).decode())
        if not any(one["stage"] == "FIRST_VIEWER" for one in session["timeline"]):
            self.reach(session, "FIRST_VIEWER")
        self.change(session, state="ACTIVE", viewers=1)
        location = f"/v1/sessions/{session['session_id']}/whep/{resource}"
        return Response(answer, 201, {"Location": location}, media_type="application/sdp")

    async def hang_up(self, request: Request) -> Response:
        session = self.sessions[request.path_params["id"]]
        self.requests.append(("DELETE", request.url.path))
        await self.whep.close(session["session_id"])
        if session["state"] == "ACTIVE":
            self.change(session, state="READY", viewers=0)
        return Response(status_code=200)

    async def trickle(self, request: Request) -> Response:
        if request.path_params["id"] in self.thrown_out:
            message = "You were disconnected from this session: this grant is refused."
            return JSONResponse(Refusal(403, 7, message, "VIEWER_DISCONNECTED").body, 403)
        return Response(status_code=204)

    async def list_viewers(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        return JSONResponse({"items": self.viewers.get(session["session_id"], []), "next_page_token": ""})

    async def disconnect_viewer(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        for viewer in self.viewers.get(session["session_id"], []):
            if viewer["viewer_id"] == request.path_params["viewer"]:
                viewer |= {"state": "DISCONNECTED", "disconnected_time": stamp(), "removed_time": stamp()}
                return JSONResponse(viewer)
        raise Refusal(404, 5, "there is no such viewer", "VIEWER_NOT_FOUND")

    async def get_log(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        return JSONResponse({"lines": self.logs[session["session_id"]], "truncated": False})

    async def tail_log(self, request: Request, caller: Json) -> Response:
        session = self._session(request, caller)
        log = self.logs[session["session_id"]]

        async def lines() -> AsyncIterator[str]:
            sent = 0
            while session["state"] not in ENDED:
                changed = self._changed
                if len(log) > sent:
                    yield json.dumps({"result": {"lines": log[sent:], "truncated": False}}) + "\n"
                    sent = len(log)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 0.2)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def list_applications(self, _: Request, __: Json) -> Response:
        return JSONResponse({"items": APPLICATIONS, "next_page_token": ""})

    def _application(self, request: Request) -> Json:
        for application in APPLICATIONS:
            if application["application"] == request.path_params["application"]:
                return application
        raise Refusal(404, 5, "application does not exist", "RESOURCE_NOT_FOUND")

    async def get_application(self, request: Request, _: Json) -> Response:
        return JSONResponse(self._application(request))

    async def list_versions(self, request: Request, _: Json) -> Response:
        return JSONResponse({"items": VERSIONS[self._application(request)["application"]]})

    async def get_version(self, request: Request, _: Json) -> Response:
        found = VERSIONS[request.path_params["application"]]
        return JSONResponse(found[0] | {"version": request.path_params["version"]})

    async def list_releases(self, request: Request, _: Json) -> Response:
        releases = self._application(request)["releases"].items()
        return JSONResponse(
            {"items": [{"release": name, "version": to, "updated_time": stamp(minutes=-90)} for name, to in releases]}
        )

    async def list_profiles(self, _: Request, __: Json) -> Response:
        return JSONResponse({"items": PROFILES})

    async def list_pools(self, _: Request, __: Json) -> Response:
        return JSONResponse({"items": POOLS})

    async def list_nodes(self, _: Request, caller: Json) -> Response:
        if "nodes.read" not in caller["permissions"]:
            raise Refusal(403, 7, "a developer may not see nodes", "PERMISSION_DENIED")
        for position, device in enumerate(device for node in self._nodes for device in node["devices"]):
            if "utilization_percent" in device and device["slots_leased"]:
                wave = datetime.now(UTC).timestamp() / 4 + position * 1.7
                device["utilization_percent"] = int(52 + 24 * (wave % 2 - 1) + 15 * ((wave * 2.3) % 1))
        return JSONResponse({"items": self._nodes, "next_page_token": "", "brake": self.brake})

    async def change_node(self, request: Request, _: Json) -> Response:
        states = {"cordon": "CORDONED", "uncordon": "READY", "drain": "DRAINING", "accept": "READY"}
        for node in self._nodes:
            if node["node"] == request.path_params["node"]:
                node["state"] = states[request.path_params["verb"]]
                node.pop("acceptance", None)
                node["scheduling"] = {"cordoned": node["state"] != "READY", "draining": node["state"] == "DRAINING"}
                return JSONResponse(node)
        raise Refusal(404, 5, "node does not exist", "RESOURCE_NOT_FOUND")

    async def list_tokens(self, _: Request, __: Json) -> Response:
        return JSONResponse({"items": self.tokens[::-1]})

    async def create_token(self, request: Request, _: Json) -> Response:
        body = await request.json()
        if " " in body["subject"]:
            message = f"subject {body['subject']!r} has a blank; use letters, digits, '-', '_' and '.'"
            raise Refusal(400, 3, message, "INVALID_SUBJECT", field="subject")
        token = self.token(body["role"], body["subject"], body.get("description", ""))
        self.tokens.append(token)
        return JSONResponse({"secret": f"{token['token_id']}_THE_SECRET", "token": token})

    async def revoke_token(self, request: Request, _: Json) -> Response:
        for token in self.tokens:
            if token["token_id"] == request.path_params["id"]:
                token["revoked_time"] = stamp()
                return JSONResponse(token)
        raise Refusal(404, 5, "token does not exist", "RESOURCE_NOT_FOUND")
