"""What every call goes through: request id, caller, permission, rules, errors, metrics, log.

One interceptor, because the parts share their state and their order matters: whatever goes wrong inside, also while
the caller is being proved, leaves as one ``google.rpc.Status`` with one ``ErrorInfo`` (AIP-193).
"""

from __future__ import annotations

import contextlib
import inspect
import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc_status import rpc_status

from footlights import errors, ids
from footlights.control.call import context, validate
from footlights.status import CODE_NAMES, to_status
from footlights.v1 import permission_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from footlights.control.call.authenticate import Authentication
    from footlights.control.observability.metrics import Metrics

log = structlog.get_logger(__name__)

Handler = Any
"""A grpc.RpcMethodHandler: the library's own type has no public constructor to type against."""

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")

_SHED = {"QUEUE_FULL": "QUEUE", "STORE_OVERLOADED": "STORE"}
"""Refusals that say that there is too much of something, and what."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of our services."""

    def __init__(self, authentication: Authentication, metrics: Metrics) -> None:
        """Take how callers are proved, and where calls are counted."""
        self._authentication, self._metrics = authentication, metrics
        self._permissions: dict[str, str] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler, wrapped."""
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(_OPEN):
            return handler
        metadata = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        if handler.request_streaming:
            hold = inspect.iscoroutinefunction(handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(
                (self._awaited if hold else self._streaming)(method, metadata, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, metadata, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._awaited(method, metadata, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _awaited(self, method: str, metadata: dict[str, str], inner: Callable[..., Awaitable[Any]]) -> Any:
        """Wrap a handler that is awaited: of one answer, or of streams that it reads and writes through its context."""

        async def call(request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            head = _Head(servicer_context, request_id := ids.request_id(metadata.get("x-request-id", "")))
            try:
                await self._enter(method, metadata, request_id)
                if isinstance(request, Message):
                    validate.apply(request)
                await head.send()
                answer = await inner(request, servicer_context)
            except Exception as error:
                await head.send()
                await self._fail(method, request_id, started, error, servicer_context)
            else:
                self._finish(method, request_id, started, "OK")
                return answer

        return call

    def _streaming(self, method: str, metadata: dict[str, str], inner: Callable[..., AsyncGenerator[Any, None]]) -> Any:
        async def call(request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = time.perf_counter()
            head = _Head(servicer_context, request_id := ids.request_id(metadata.get("x-request-id", "")))
            try:
                await self._enter(method, metadata, request_id)
                if isinstance(request, Message):
                    validate.apply(request)
                await head.send()
                async with contextlib.aclosing(inner(request, servicer_context)) as answers:
                    async for answer in answers:
                        yield answer
            except Exception as error:
                await head.send()
                await self._fail(method, request_id, started, error, servicer_context)
            else:
                self._finish(method, request_id, started, "OK")

        return call

    async def _enter(self, method: str, metadata: dict[str, str], request_id: str) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        caller = await self._authentication.caller(metadata.get("authorization", ""))
        structlog.contextvars.bind_contextvars(subject=caller.subject)
        caller.require(self._permission(method))
        context.enter(context.Call(caller, request_id, metadata.get("idempotency-key", "")))

    def _permission(self, method: str) -> str:
        known = self._permissions.get(method)
        if known is None:
            service, _, name = method.removeprefix("/").partition("/")
            descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
            known = self._permissions[method] = descriptor.GetOptions().Extensions[permission_pb2.permission]
        return known

    async def _fail(
        self,
        method: str,
        request_id: str,
        started: float,
        error: Exception,
        servicer_context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if not isinstance(error, errors.Error):
            log.exception("call_failed", method=method)
            error = errors.Internal(
                f"Something went wrong in the control plane. Its log says what, under request id {request_id}.",
                metadata={"request_id": request_id},
            )
        self._finish(method, request_id, started, CODE_NAMES[error.code], reason=error.reason)
        await servicer_context.abort_with_status(rpc_status.to_status(to_status(error)))

    def _finish(self, method: str, request_id: str, started: float, code: str, reason: str = "") -> None:
        seconds = time.perf_counter() - started
        self._metrics.call(method, code, seconds)
        if reason in _SHED:
            self._metrics.shed(_SHED[reason])
        log.debug("call", method=method, code=code, reason=reason, seconds=round(seconds, 4))


class _Head:
    """The initial metadata of a call, sent once: when the call is accepted, or else right before it fails.

    A client takes them for the server's word that the call is under way: a watch that has nothing to tell yet is
    opened by them over HTTP, after which no failure can have a status of its own.
    """

    __slots__ = ("_context", "_request_id", "_sent")

    def __init__(self, servicer_context: grpc.aio.ServicerContext[Any, Any], request_id: str) -> None:
        self._context, self._request_id, self._sent = servicer_context, request_id, False

    async def send(self) -> None:
        if not self._sent:
            self._sent = True
            await self._context.send_initial_metadata((("x-request-id", self._request_id),))
