"""What every call passes, whatever transport carries it.

Request id, caller, permission, rules, handler, errors, metrics, log: one function, because the stages share their state
and their order matters. Whatever fails inside leaves as one `errors.Error`; the transport makes a ``google.rpc.Status``
of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

import structlog
from google.protobuf.message import Message

from footlights import errors, ids
from footlights.auth.roles import ANYONE, is_open
from footlights.control.call.context import Unread
from footlights.control.call.shares import Shares
from footlights.status import CODE_NAMES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from footlights.auth.roles import Caller
    from footlights.control.call.authenticate import Authenticator
    from footlights.control.call.context import Call
    from footlights.control.call.registry import Rpc
    from footlights.control.observability.metrics import Metrics

T = TypeVar("T")
RequestT = TypeVar("RequestT")
log = structlog.get_logger(__name__)

RETRY_AFTER_S = 1.0
"""When a client of a process that stops may try again: another process, or the next one, answers by then."""

MOST_UNKNOWN = 64
"""How many calls that need no token may wait for their message: what has come of it is kept in memory."""

MOST_UNKNOWN_OF_ONE = 16
"""The same from one address."""

_ALMOST_S = 0.01
"""A call that is cancelled this close to its deadline was ended by it: both sides have a timer of their own."""

_SHED = {"QUEUE_FULL": "QUEUE", "STORE_OVERLOADED": "STORE"}
"""Reasons that mean overload, and of what."""


class Pipeline:
    """Runs calls, and ends them in order when the process stops."""

    def __init__(self, authenticator: Authenticator, metrics: Metrics) -> None:
        self._authenticator, self._metrics = authenticator, metrics
        self._stopping = False
        self._unary = 0
        self._unknown = Shares(
            "calls without a token waiting for their message", most=MOST_UNKNOWN, most_of_one=MOST_UNKNOWN_OF_ONE
        )
        self._streams: set[asyncio.Task[object]] = set()
        self._interrupted: set[asyncio.Task[object]] = set()
        self._all_over = asyncio.Event()

    @property
    def running(self) -> int:
        """The number of calls in progress, streams included."""
        return self._unary + len(self._streams)

    async def run(
        self,
        rpc: Rpc,
        request: RequestT | Unread[RequestT],
        call: Call,
        proceed: Callable[[RequestT, Call], Awaitable[T]],
    ) -> T:
        """Run one call.

        Raises Error where the call failed; asyncio.CancelledError where its client has ended it, or its deadline has
        passed.
        """
        started = time.perf_counter()
        code, reason = "OK", ""
        try:
            return await self._admitted(rpc, request, call, proceed)
        except errors.Error as error:
            code, reason = CODE_NAMES[error.code], error.reason
            raise
        except asyncio.CancelledError:
            remaining = call.time_remaining()
            code = "CANCELLED" if remaining is None or remaining > _ALMOST_S else "DEADLINE_EXCEEDED"
            raise
        except Exception:
            log.exception("call_failed", method=rpc.path)
            code, reason = "INTERNAL", errors.Internal.default_reason
            raise errors.Internal(
                f"Something went wrong in the control plane. Its log says what, under request id {call.request_id}.",
                metadata={"request_id": call.request_id},
            ) from None
        finally:
            seconds = time.perf_counter() - started
            self._metrics.call(rpc.path, code, seconds)
            if reason in _SHED:
                self._metrics.shed(_SHED[reason])
            log.debug("call", method=rpc.path, code=code, reason=reason, seconds=round(seconds, 4))

    def stop(self) -> None:
        """Refuse new calls and end running streams, both with UNAVAILABLE; unary calls go on."""
        self._stopping = True
        for task in self._streams - self._interrupted:
            self._interrupted.add(task)
            task.cancel()

    async def finished(self, within_s: float) -> bool:
        """Wait until no call is running; return False where some still are after ``within_s`` seconds."""
        try:
            async with asyncio.timeout(within_s):
                while self.running:
                    self._all_over.clear()
                    await self._all_over.wait()
        except TimeoutError:
            log.warning("calls_still_running", calls=self.running)
            return False
        return True

    async def _admitted(
        self,
        rpc: Rpc,
        request: RequestT | Unread[RequestT],
        call: Call,
        proceed: Callable[[RequestT, Call], Awaitable[T]],
    ) -> T:
        authorization, key = _identify(call)
        if self._stopping:
            raise stopping()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        task: asyncio.Task[object] | None = None
        if rpc.server_streaming:
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
        else:
            self._unary += 1
        try:
            call.caller = await self._caller(rpc, call, authorization)
            structlog.contextvars.bind_contextvars(subject=call.caller.subject)
            call.caller.require(rpc.permission)
            request = await self._whole(request, call)
            if key:
                rpc.take_key(request, key)
            if isinstance(request, Message):
                rpc.check(request)
            if task is not None:
                await call.open()
            return await proceed(request, call)
        except asyncio.CancelledError:
            if task is None or task not in self._interrupted:
                raise
            task.uncancel()
            raise stopping() from None
        finally:
            if task is None:
                self._unary -= 1
            else:
                self._streams.discard(task)
                self._interrupted.discard(task)
            if self._stopping and not self.running:
                self._all_over.set()

    async def _caller(self, rpc: Rpc, call: Call, authorization: str) -> Caller:
        """Return who calls. Raises Unauthenticated where that is not known."""
        if is_open(rpc.permission):
            return ANYONE
        if rpc.anonymous is not None and not authorization and not call.certificate():
            return rpc.anonymous
        return await self._authenticator.caller(authorization, call.certificate())

    async def _whole(self, request: RequestT | Unread[RequestT], call: Call) -> RequestT:
        """Return a request, read if it was not. Raises Unavailable where too many of unknown callers are read."""
        if not isinstance(request, Unread):
            return request
        if call.caller is not ANYONE:
            return await request.read()
        with self._unknown.take(call.peer):
            return await request.read()


def _identify(call: Call) -> tuple[str, str]:
    """Set a call's id from its metadata; return its ``Authorization`` and its ``Idempotency-Key``.

    Raises Unauthenticated where it has several of the first: who is asked about them first may look at another one.
    """
    headers = dict(call.metadata)
    call.request_id = ids.request_id(_text(headers.get("x-request-id", "")))
    call.initial_metadata.append(("x-request-id", call.request_id))
    if len(headers) != len(call.metadata) and sum(name == "authorization" for name, _ in call.metadata) > 1:
        raise errors.Unauthenticated(
            "The request has several Authorization headers. Send one.", reason=errors.Reason.TOKEN_INVALID
        )
    return _text(headers.get("authorization", "")), _text(headers.get("idempotency-key", ""))


def stopping() -> errors.Unavailable:
    """Return what calls are refused and ended with by a process that stops."""
    return errors.Unavailable(
        "This server is stopping. Try again: another one answers, or this one once it has restarted.",
        reason=errors.Reason.SERVER_STOPPING,
        retry_after_s=RETRY_AFTER_S,
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else ""
