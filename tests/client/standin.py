"""A stand-in control plane: a real gRPC server whose answers are scripted, method by method, from the descriptors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from footlights.v1 import (
    application_pb2,
    enrollment_pb2,
    node_pb2,
    pool_pb2,
    profile_pb2,
    session_pb2,
    token_pb2,
    viewer_pb2,
)
from google.protobuf import message_factory
from google.protobuf.message import Message
from google.rpc import status_pb2

from footlights.errors import Error
from footlights.status import to_status

FILES = (application_pb2, enrollment_pb2, node_pb2, pool_pb2, profile_pb2, session_pb2, token_pb2, viewer_pb2)
Answer = Callable[[Any], Any]
Frame = session_pb2.FollowSessionsResponse


def frame(session: session_pb2.Session, cursor: str = "") -> Frame:
    """The frame of a watch that tells of a session; its cursor is made from the revision."""
    return Frame(change=Frame.SET, session=session, cursor=cursor or f"c{session.revision}")


def frames(*told: session_pb2.Session | Frame) -> Answer:
    """The answer of FollowSessions that tells of sessions, and ends."""
    return lambda _: iter([each if isinstance(each, Frame) else frame(each) for each in told])


@dataclass
class Call:
    """A call as the server saw it."""

    method: str
    request: Message
    authorization: str
    seconds_left: float | None


@dataclass
class Standin:
    """Answers what it was told to; ``errors.Error`` becomes a status just as the real server's interceptor makes it."""

    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    address: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    def on(self, method: str, answer: Message | Answer | Error) -> None:
        """Answer ``method`` (its bare name) with a message, an error, or what a function makes of the request."""
        if isinstance(answer, Error):
            error = answer

            def fail(_: Any) -> Any:
                raise error

            self.answers[method] = fail
        elif isinstance(answer, Message):
            message = answer
            self.answers[method] = lambda _: message
        else:
            self.answers[method] = answer

    def requests(self, method: str) -> list[Any]:
        """The requests that a method was called with."""
        return [call.request for call in self.calls if call.method == method]

    def serve(self, credentials: grpc.ServerCredentials | None = None) -> Iterator[Standin]:
        """Serve on a free port until the generator is closed (a fixture's body); TLS where credentials are given."""
        pool = ThreadPoolExecutor(8)
        server = grpc.server(pool)
        for file in FILES:
            for service in file.DESCRIPTOR.services_by_name.values():
                handlers = {method.name: self._handler(method) for method in service.methods}
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        if credentials is None:
            self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
        server.start()
        try:
            yield self
        finally:
            self.stopping.set()
            server.stop(0).wait(5)
            pool.shutdown()

    def _handler(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)

        def unary(message: Message, context: grpc.ServicerContext) -> Any:
            return self._answer(method.name, message, context)

        def stream(message: Message, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from self._answer(method.name, message, context)
            except Error as error:
                _abort(context, error)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, request.FromString, response.SerializeToString)
        return grpc.unary_unary_rpc_method_handler(unary, request.FromString, response.SerializeToString)

    def _answer(self, method: str, message: Message, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        authorization = str(metadata.get("authorization", ""))
        self.calls.append(Call(method, message, authorization, context.time_remaining()))
        if method not in self.answers:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} was not scripted")
        try:
            return self.answers[method](message)
        except Error as error:
            _abort(context, error)


@dataclass(frozen=True)
class _Aborted(grpc.Status):
    """What ``abort_with_status`` wants."""

    code: Any
    details: Any
    trailing_metadata: Any


def _abort(context: grpc.ServicerContext, error: Error) -> None:
    status: status_pb2.Status = to_status(error)
    (code,) = [code for code in grpc.StatusCode if code.value[0] == error.code]
    context.abort_with_status(
        _Aborted(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))
    )
