"""The servers that ``gateway`` compares, each a process: ``python -m tests.bench.gateway_apps VARIANT PORT``.

All of them answer the same POST with the same JSON and keep nothing. ``inprocess`` and ``loopback`` are our gateway,
inside the Starlette application that Footlights has, over the same handlers and interceptors: called without a socket,
or over grpc.aio on loopback. ``fastapi`` is what one would write without any gRPC.
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
import grpc
import grpc.aio
import grpc_tools  # type: ignore[import-untyped]
import uvicorn
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from grpc_tools import protoc
from starlette.responses import JSONResponse
from starlette.routing import Route

from footlights.gateway import Gateway, Options
from footlights.gateway.inprocess import Channel, Handlers
from footlights.gateway.routing.descriptors import from_set
from footlights.gateway.site import Site

VARIANTS = ("inprocess", "loopback", "fastapi")
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


# Interceptors, as one would write them: each one thing, wrapping a handler once and asking the call for what it needs.

request_id: ContextVar[str] = ContextVar("request_id")
caller: ContextVar[str] = ContextVar("caller")
Unary = Callable[[Any, Any], Awaitable[Any]]


class _Interceptor(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        known = self._wrapped.get(details.method)
        if known is None or known[0] is not handler:
            wrapped = grpc.unary_unary_rpc_method_handler(
                self.wrap(handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
            known = self._wrapped[details.method] = (handler, wrapped)
        return known[1]

    def wrap(self, inner: Unary) -> Unary:
        raise NotImplementedError


class RequestId(_Interceptor):
    """Takes the request id or mints one, for whatever logs, and says it to the client."""

    def wrap(self, inner: Unary) -> Unary:
        async def call(request: Any, context: Any) -> Any:
            found = _entry(context, "x-request-id") or str(uuid4())
            request_id.set(found)
            await context.send_initial_metadata((("x-request-id", found),))
            return await inner(request, context)

        return call


class Errors(_Interceptor):
    """Turns exceptions into statuses."""

    def wrap(self, inner: Unary) -> Unary:
        async def call(request: Any, context: Any) -> Any:
            try:
                return await inner(request, context)
            except grpc.aio.AbortError:
                raise
            except LookupError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Exception:
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")

        return call


class Auth(_Interceptor):
    """Wants a bearer token that is known and has not expired."""

    def __init__(self) -> None:
        super().__init__()
        self._known = {TOKEN: ("ann", time.time() + 3600)}

    def wrap(self, inner: Unary) -> Unary:
        async def call(request: Any, context: Any) -> Any:
            scheme, _, token = _entry(context, "authorization").partition(" ")
            known = self._known.get(token)
            if scheme != "Bearer" or known is None or known[1] < time.time():
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")
            else:
                caller.set(known[0])
            return await inner(request, context)

        return call


def _entry(context: Any, wanted: str) -> str:
    for key, value in context.invocation_metadata():
        if key == wanted:
            return str(value)
    return ""


def _add(server: Any) -> None:
    request, answer = classes()

    async def create_session(request: Any, context: Any) -> Message:
        return session(request, answer)

    async def get_session(found: Any, context: Any) -> Message:
        return session(request(application="usd-viewer", version="default"), answer)

    get = message_factory.GetMessageClass(service().methods_by_name["GetSession"].input_type)
    found = {
        "CreateSession": grpc.unary_unary_rpc_method_handler(
            create_session, request.FromString, answer.SerializeToString
        ),
        "GetSession": grpc.unary_unary_rpc_method_handler(
            get_session, get.FromString, answer.SerializeToString
        ),
    }  # fmt: skip
    if isinstance(server, Handlers):
        server.add_registered_method_handlers(SERVICE, found)
    else:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, found),))


def _site(channel: Any) -> Any:
    options = Options(
        strict=True, use_proto_names=True, forward_headers=("x-request-id",), expose_headers=("x-request-id",),
        default_timeout_s=30.0,
    )  # fmt: skip

    async def healthz(_: Any) -> JSONResponse:
        return JSONResponse({"status": "SERVING"})

    return Site(Gateway(channel, [service()], options), [Route("/healthz", healthz)])


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
    interceptors = [RequestId(), Errors(), Auth()]
    if variant == "fastapi":
        await _http(_fastapi(), port)
    elif variant == "inprocess":
        handlers = Handlers()
        _add(handlers)
        async with Channel(handlers, interceptors) as channel:
            await _http(_site(channel), port)
    else:
        server = grpc.aio.server(interceptors=interceptors)
        _add(server)
        upstream = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{upstream}") as wire:
            await _http(_site(wire), port)
        await server.stop(0)


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
