"""The servers that ``gateway`` compares, each a process: ``python -m tests.bench.gateway_apps VARIANT PORT``.

All of them answer the same POST with the same JSON and keep nothing. ``local`` and ``loopback`` are our gateway, inside
the Starlette application that Footlights has, over the same handlers behind the same three stages: called without a
socket, or over grpc.aio on loopback. ``fastapi`` is what one would write without any gRPC.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import google.api
import grpc_tools  # type: ignore[import-untyped]
import uvicorn
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from grpc_tools import protoc
from starlette.responses import JSONResponse
from starlette.routing import Route

from footlights.gateway import Gateway, Options
from footlights.gateway.routing.descriptors import from_set
from footlights.gateway.site import Site
from footlights.gateway.upstream import Upstream, UpstreamError
from tests.gateway.handlers import HandlerCall, fail, upstream_to

VARIANTS = ("local", "loopback", "fastapi")
SERVICE = "bench.v1.SessionService"
TOKEN = "fl_0123456789abcdef0123456789abcdef"
CREATED = 1_767_225_600
PROTO = """
syntax = "proto3";
package bench.v1;
import "google/api/annotations.proto";
import "google/protobuf/timestamp.proto";

service SessionService {
  rpc CreateSession(CreateSessionRequest) returns (Session) {
    option (google.api.http) = {post: "/v1/sessions" body: "*"};
  }
  rpc GetSession(GetSessionRequest) returns (Session) {
    option (google.api.http) = {get: "/v1/sessions/{session_id}"};
  }
}
message CreateSessionRequest {
  string application = 1;
  string version = 2;
  map<string, string> labels = 3;
  int32 priority = 4;
}
message GetSessionRequest { string session_id = 1; }
message Session {
  enum State { STATE_UNSPECIFIED = 0; PENDING = 1; READY = 2; }
  string session_id = 1;
  string application = 2;
  string version = 3;
  string username = 4;
  State state = 5;
  int32 priority = 6;
  bool warm = 7;
  double wait_seconds = 8;
  map<string, string> labels = 9;
  google.protobuf.Timestamp created_time = 10;
}
"""
REQUEST = '{"application":"usd-viewer","version":"default","labels":{"team":"render"},"priority":3}'


@cache
def service() -> ServiceDescriptor:
    """The service, compiled now."""
    includes = [Path(next(iter(google.api.__path__))).parent.parent, Path(grpc_tools.__file__).parent / "_proto"]
    with TemporaryDirectory() as folder:
        (Path(folder) / "bench.proto").write_text(PROTO)
        out = Path(folder) / "out"
        arguments = ["protoc", f"-I{folder}", *(f"-I{path}" for path in includes), "--include_imports"]
        if protoc.main([*arguments, f"--descriptor_set_out={out}", "bench.proto"]) != 0:
            raise RuntimeError("protoc failed")
        return from_set(out.read_bytes(), [SERVICE])[0]


def classes() -> tuple[type[Message], type[Message]]:
    """CreateSessionRequest and Session."""
    rpc = service().methods_by_name["CreateSession"]
    return message_factory.GetMessageClass(rpc.input_type), message_factory.GetMessageClass(rpc.output_type)


def session(request: Any, make: Any) -> Message:
    """What is answered, by the class Session."""
    made: Message = make(
        session_id="01890000-0000-7000-8000-000000000000", application=request.application, version=request.version,
        username="ann", state=1, priority=request.priority, warm=True, wait_seconds=1.5, labels=request.labels,
    )  # fmt: skip
    made.created_time.seconds = CREATED  # type: ignore[attr-defined]  # the class is made at run time
    return made


# What every call passes, as one would write it: each stage one thing, calling the next one.

Next = Callable[[Any, HandlerCall], Awaitable[Message]]


class Stages:
    """Takes or makes a request id, maps errors to statuses, and wants a bearer token that is known and valid."""

    def __init__(self, handler: Next) -> None:
        self._handler = handler
        self._known = {TOKEN: ("ann", time.time() + 3600)}

    async def request_id(self, request: Any, call: HandlerCall) -> Message:
        """Say the request id to the client, then go on."""
        found = _entry(call, "x-request-id") or str(uuid4())
        request_id.set(found)
        await call.open((("x-request-id", found),))
        return await self.errors(request, call)

    async def errors(self, request: Any, call: HandlerCall) -> Message:
        """Turn exceptions into statuses."""
        try:
            return await self.authenticate(request, call)
        except UpstreamError:
            raise
        except LookupError as error:
            raise fail(5, str(error)) from None
        except ValueError as error:
            raise fail(3, str(error)) from None
        except Exception:
            raise fail(13, "internal error") from None

    async def authenticate(self, request: Any, call: HandlerCall) -> Message:
        """Refuse who has no token that is known and has not expired."""
        scheme, _, token = _entry(call, "authorization").partition(" ")
        known = self._known.get(token)
        if scheme != "Bearer" or known is None or known[1] < time.time():
            raise fail(16, "no valid token")
        caller.set(known[0])
        return await self._handler(request, call)


request_id: ContextVar[str] = ContextVar("request_id")
caller: ContextVar[str] = ContextVar("caller")


def _entry(call: HandlerCall, wanted: str) -> str:
    for key, value in call.metadata:
        if key == wanted:
            return str(value)
    return ""


def _functions() -> dict[str, Any]:
    request, answer = classes()

    async def create_session(given: Any, call: HandlerCall) -> Message:
        return session(given, answer)

    async def get_session(given: Any, call: HandlerCall) -> Message:
        return session(request(application="usd-viewer", version="default"), answer)

    found: dict[str, Next] = {"CreateSession": create_session, "GetSession": get_session}
    return {name: Stages(handler).request_id for name, handler in found.items()}


def _site(upstream: Upstream) -> Any:
    options = Options(
        strict=True, use_proto_names=True, forward_headers=("x-request-id",), expose_headers=("x-request-id",),
        default_timeout_s=30.0,
    )  # fmt: skip

    async def healthz(_: Any) -> JSONResponse:
        return JSONResponse({"status": "SERVING"})

    return Site(Gateway(upstream, [service()], options), [Route("/healthz", healthz)])


def _fastapi() -> Any:
    from datetime import UTC, datetime
    from enum import StrEnum

    from fastapi import FastAPI
    from pydantic import BaseModel, Field

    class State(StrEnum):
        PENDING = "PENDING"
        READY = "READY"

    class CreateSessionRequest(BaseModel):
        application: str = ""
        version: str = ""
        labels: dict[str, str] = Field(default_factory=dict)
        priority: int = 0

    class Session(BaseModel):
        session_id: str
        application: str
        version: str
        username: str
        state: State
        priority: int
        warm: bool
        wait_seconds: float
        labels: dict[str, str]
        created_time: datetime

    # The types are local, so the annotations of the endpoint must not be strings.
    async def create_session(body):  # type: ignore[no-untyped-def]
        return Session(
            session_id="01890000-0000-7000-8000-000000000000", application=body.application, version=body.version,
            username="ann", state=State.PENDING, priority=body.priority, warm=True, wait_seconds=1.5,
            labels=body.labels, created_time=datetime.fromtimestamp(CREATED, UTC),
        )  # fmt: skip

    create_session.__annotations__ = {"body": CreateSessionRequest, "return": Session}
    app = FastAPI()
    app.post("/v1/sessions")(create_session)
    return app


async def _serve(variant: str, port: int) -> None:
    if variant == "fastapi":
        await _http(_fastapi(), port)
        return
    async with upstream_to("grpc" if variant == "loopback" else "local", service(), _functions()) as upstream:
        await _http(_site(upstream), port)


async def _http(app: Any, port: int) -> None:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", access_log=False, proxy_headers=False,
        server_header=False, lifespan="off", ws="none", http="httptools",
    )  # fmt: skip
    await uvicorn.Server(config).serve()


def main() -> None:
    """Serve one variant on core 0 until terminated."""
    import uvloop

    variant, port = sys.argv[1], int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    gc.collect()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(variant, port))


if __name__ == "__main__":
    main()
