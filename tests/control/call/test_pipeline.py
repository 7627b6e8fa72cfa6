"""What a handler and its client rely on, the same over gRPC and in this process.

Covers ``pipeline``, ``context``, ``grpc_adapter`` and ``local``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from footlights.agent.v1 import agent_pb2
from footlights.replica.v1 import replica_pb2
from footlights.v1 import session_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from footlights import errors
from footlights.auth.roles import Caller, Role
from footlights.control.call.context import Call, MessageStream
from footlights.control.call.grpc_adapter import grpc_handlers
from footlights.control.call.local import LocalCalls
from footlights.control.call.pipeline import Pipeline
from footlights.control.call.registry import Registry, Service
from footlights.control.observability.metrics import Metrics
from footlights.gateway.upstream import GrpcUpstream, LocalUpstream, OutgoingCall, Upstream, UpstreamError
from footlights.status import from_status
from tests.control.harness import SERVICES

Stream = MessageStream[agent_pb2.LinkRequest, agent_pb2.LinkResponse]
CALLERS = {
    "replica": Caller("replica", Role.REPLICA, ""),
    "node": Caller("node-a", Role.NODE, ""),
    "ann": Caller("ann", Role.DEVELOPER, ""),
}


def described(name: str) -> ServiceDescriptor:
    [full_name] = [each for each in SERVICES if each.rpartition(".")[2] == name]
    found: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(full_name)
    return found


def rpc(service: str, name: str) -> MethodDescriptor:
    return described(service).methods_by_name[name]


FIND, READ = rpc("ReplicaService", "FindRival"), rpc("ReplicaService", "ReadLog")
LINK = rpc("AgentService", "Link")


class Names:
    """An authenticator whose tokens are names."""

    async def caller(self, authorization: str, certificate: bytes = b"") -> Caller:
        if authorization not in CALLERS:
            raise errors.Unauthenticated("Who are you?", reason=errors.Reason.TOKEN_INVALID)
        return CALLERS[authorization]


class Handlers:
    """One unary call, one server stream and one bidirectional stream, each told what to do by its request."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.requests: list[Any] = []
        self.started, self.ended, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def find_rival(self, request: Any, call: Call) -> replica_pb2.FindRivalResponse:
        self.calls.append(call)
        match request.node:
            case "error":
                raise errors.Unavailable("later", reason=errors.Reason.STORE_OVERLOADED, retry_after_s=2)
            case "bug":
                raise RuntimeError("secret of the house")
            case "wait":
                await self._wait()
        call.initial_metadata.append(("x-extra", "1"))
        call.trailing_metadata.append(("x-trail", "1"))
        return replica_pb2.FindRivalResponse(incarnation=request.incarnation)

    async def read_log(self, request: Any, call: Call) -> AsyncIterator[agent_pb2.LogPart]:
        self.calls.append(call)
        yield agent_pb2.LogPart(lines=["first"])
        if request.follow:
            await self._wait()
        raise errors.NotFound("no more", reason=errors.Reason.LOG_NOT_FOUND)

    async def link(self, stream: Stream, call: Call) -> None:
        self.calls.append(call)
        while (request := await stream.read()) is not None:
            await stream.write(agent_pb2.LinkResponse(welcome=agent_pb2.Welcome(cluster_id=request.hello.node)))
        self.ended.set()

    async def list_sessions(self, request: Any, call: Call) -> session_pb2.ListSessionsResponse:
        self.requests.append(request)
        return session_pb2.ListSessionsResponse()

    async def _wait(self) -> None:
        self.started.set()
        try:
            await self.go.wait()
        finally:
            self.ended.set()

    def __getattr__(self, name: str) -> Any:
        # Of the streaming service one handler is enough here.
        if name.startswith("_"):
            raise AttributeError(name)
        return self.list_sessions


class Served:
    """A pipeline with its handlers, and a client of it."""

    def __init__(self) -> None:
        self.handlers, self.metrics = Handlers(), Metrics()
        names = ("ReplicaService", "AgentService", "StreamingService")
        self.registry = Registry([Service(described(name), self.handlers) for name in names])
        self.pipeline = Pipeline(Names(), self.metrics)
        self.upstream: Upstream = LocalUpstream(LocalCalls(self.registry, self.pipeline))

    async def find(self, node: str = "", token: str = "replica", call: OutgoingCall | None = None) -> Any:
        """Call ``FindRival``; raise what the handler raised."""
        call = call or OutgoingCall((("authorization", token),))
        try:
            return await self.upstream.unary(FIND)(replica_pb2.FindRivalRequest(node=node, incarnation="i"), call)
        except UpstreamError as error:
            raise from_status(error.status) from None

    def follow(self, token: str = "replica") -> Any:
        """Call ``ReadLog``."""
        request = replica_pb2.ReadLogRequest(node="n", launch_id="l", follow=True)
        return self.upstream.stream(READ)(request, OutgoingCall((("authorization", token),)))

    def counted(self, method: str, code: str) -> float:
        """How many calls of a method ended with a code."""
        labels = {"grpc_service": "footlights.replica.v1.ReplicaService", "grpc_method": method, "grpc_code": code}
        return self.metrics.registry.get_sample_value("grpc_server_handled_total", labels) or 0.0


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[Served]:
    served = Served()
    if kind == "local":
        yield served
        return
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(grpc_handlers(served.registry, served.pipeline))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            served.upstream = GrpcUpstream(channel)
            yield served
    finally:
        await server.stop(0)


@pytest.fixture(params=["grpc", "local"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with serving(request.param) as found:
        yield found


async def error_of(responses: Any) -> errors.Error:
    try:
        async with asyncio.timeout(5):
            while await responses.read() is not None:
                pass
    except UpstreamError as error:
        return from_status(error.status)
    raise AssertionError("the stream ended well")


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  a counter has no event
            await asyncio.sleep(0.001)


async def test_a_handler_sees_its_call_and_answers_with_metadata(served: Served) -> None:
    """Method, caller, ids, deadline and metadata go in; the request id and what the handler adds come out."""
    metadata = (("authorization", "replica"), ("x-request-id", "r-1"), ("x-other-bin", b"\1"))
    outgoing = OutgoingCall(metadata, timeout_s=30)

    answer = await served.find(call=outgoing)

    [call] = served.handlers.calls
    assert answer.incarnation == "i"
    assert call.method == "/footlights.replica.v1.ReplicaService/FindRival"
    assert (call.caller.role, call.request_id) == (Role.REPLICA, "r-1")
    assert 0 < (call.time_remaining() or 0) <= 30.5
    assert ("x-other-bin", b"\1") in [tuple(pair) for pair in call.metadata]
    assert {("x-request-id", "r-1"), ("x-extra", "1")} <= set(outgoing.initial)
    assert ("x-trail", "1") in list(outgoing.trailing)


async def test_an_error_arrives_as_it_was_raised(served: Served) -> None:
    """Its class, reason and retry hint, with the request id beside it; of a stream after its messages."""
    outgoing = OutgoingCall((("authorization", "replica"), ("x-request-id", "r-1")))

    with pytest.raises(errors.Unavailable) as caught:
        await served.find("error", call=outgoing)
    served.handlers.go.set()
    error = await error_of(served.follow())

    assert (caught.value.reason, caught.value.retry_after_s) == ("STORE_OVERLOADED", 2)
    assert ("x-request-id", "r-1") in [*outgoing.initial, *outgoing.trailing]
    assert isinstance(error, errors.NotFound)
    assert served.counted("FindRival", "UNAVAILABLE") == served.counted("ReadLog", "NOT_FOUND") == 1


async def test_an_unexpected_exception_is_internal_and_says_only_the_request_id(served: Served) -> None:
    """The log has the rest."""
    with pytest.raises(errors.Internal) as caught:
        await served.find("bug")

    assert "secret" not in caught.value.message
    assert caught.value.metadata["request_id"] == served.handlers.calls[0].request_id
    assert served.counted("FindRival", "INTERNAL") == 1


@pytest.mark.parametrize(("token", "expected"), [("nobody", errors.Unauthenticated), ("ann", errors.PermissionDenied)])
async def test_no_handler_runs_for_a_caller_that_may_not(
    served: Served, token: str, expected: type[errors.Error]
) -> None:
    """Of any kind of call."""
    with pytest.raises(expected):
        await served.find(token=token)
    assert isinstance(await error_of(served.follow(token)), expected)
    link = served.upstream.stream(LINK)(_hellos("a"), OutgoingCall((("authorization", token),)))
    assert isinstance(await error_of(link), expected)
    assert served.handlers.calls == []


async def test_a_call_has_one_credential(served: Served) -> None:
    """Several are refused, equal ones too: a proxy before us may have looked at another one of them."""
    for second in ("replica", "ann"):
        outgoing = OutgoingCall((("authorization", "replica"), ("authorization", second)))
        with pytest.raises(errors.Unauthenticated, match=r"several Authorization headers"):
            await served.find(call=outgoing)

    assert served.handlers.calls == []


async def test_a_request_is_checked_and_filled_before_its_handler(served: Served) -> None:
    """Defaults stand in it, and what breaks a rule never arrives."""
    method = served.upstream.unary(rpc("StreamingService", "ListSessions"))
    call = (("authorization", "ann"),)

    await method(session_pb2.ListSessionsRequest(), OutgoingCall(call))
    with pytest.raises(UpstreamError) as caught:
        await method(session_pb2.ListSessionsRequest(limit=0, offset=-1), OutgoingCall(call))

    assert [request.limit for request in served.handlers.requests] == [50]
    assert caught.value.status.code == errors.InvalidArgument.code


async def _hellos(*nodes: str) -> AsyncIterator[agent_pb2.LinkRequest]:
    for node in nodes:
        yield agent_pb2.LinkRequest(hello=agent_pb2.Hello(node=node))


async def test_a_bidirectional_handler_reads_and_writes(served: Served) -> None:
    """Through one object; it reads None once its client has ended the stream."""
    outgoing = OutgoingCall((("authorization", "node"), ("x-request-id", "r-1")))
    link = served.upstream.stream(LINK)(_hellos("a", "b"), outgoing)

    answers: list[Any] = [await link.read(), await link.read()]

    assert [answer.welcome.cluster_id for answer in answers] == ["a", "b"]
    assert await link.read() is None
    assert ("x-request-id", "r-1") in list(outgoing.initial)
    await until(served.handlers.ended)


# Calls that their client ends


async def test_a_call_that_its_client_ends_is_counted(served: Served) -> None:
    """As CANCELLED, unary or stream; its handler is cancelled."""
    task = asyncio.create_task(served.find("wait"))
    await until(served.handlers.started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(served.handlers.ended)
    await eventually(lambda: served.counted("FindRival", "CANCELLED") == 1)

    served.handlers.started.clear()
    responses = served.follow()
    await until(served.handlers.started)
    responses.cancel()
    await eventually(lambda: served.counted("ReadLog", "CANCELLED") == 1)
    assert served.pipeline.running == 0


async def test_a_call_whose_deadline_passes_is_counted_so(served: Served) -> None:
    """As DEADLINE_EXCEEDED, which is what its client is told."""
    with pytest.raises(errors.Error) as caught:
        await served.find("wait", call=OutgoingCall((("authorization", "replica"),), timeout_s=0.1))

    assert caught.value.reason == "DEADLINE_EXCEEDED"
    await eventually(lambda: served.counted("FindRival", "DEADLINE_EXCEEDED") == 1)


# Stopping


def _is_stopping(error: errors.Error) -> bool:
    return isinstance(error, errors.Unavailable) and error.reason == "SERVER_STOPPING" and error.retry_after_s == 1.0


async def test_stopping_refuses_new_calls_ends_streams_and_lets_unary_calls_finish(served: Served) -> None:
    """With UNAVAILABLE and a retry hint, for any kind of call; the wait for the rest is bounded."""
    unary = asyncio.create_task(served.find("wait"))
    await until(served.handlers.started)
    follow = served.follow()
    assert (await follow.read()).lines == ["first"]
    over = asyncio.Event()

    async def requests() -> AsyncIterator[agent_pb2.LinkRequest]:
        yield agent_pb2.LinkRequest(hello=agent_pb2.Hello(node="a"))
        await over.wait()

    link = served.upstream.stream(LINK)(requests(), OutgoingCall((("authorization", "node"),)))
    answer: Any = await link.read()
    assert answer.welcome.cluster_id == "a"

    served.pipeline.stop()

    assert _is_stopping(await error_of(follow))
    assert _is_stopping(await error_of(link))
    with pytest.raises(errors.Unavailable) as caught:
        await served.find()
    assert _is_stopping(caught.value)
    assert _is_stopping(await error_of(served.follow()))
    assert not await served.pipeline.finished(0.01)
    assert not unary.done()
    served.handlers.go.set()
    assert (await unary).incarnation == "i"
    assert await served.pipeline.finished(5)
    assert served.counted("ReadLog", "UNAVAILABLE") == 2
    assert served.counted("FindRival", "OK") == 1
    over.set()
