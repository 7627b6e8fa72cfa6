"""One request over REST or gRPC, answered in the same words, and recorded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import httpx2
from footlights.v1 import session_pb2, session_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from tests.faults.history import Operation, Outcome, Recorder

JSON = dict[str, Any]
TIMEOUT_S = 6.0
_AGAIN = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED"}


class Unknown(Exception):
    """No answer that says whether it was done."""


class Refused(Exception):
    """Answered: it was not done, and will not be."""


class Transport(Protocol):
    """How a request travels."""

    name: str

    async def call(self, kind: str, session_id: str, body: JSON) -> JSON: ...

    def watch(self, session_id: str) -> AsyncIterator[JSON]: ...

    async def close(self) -> None: ...


class Rest:
    """Plain HTTP, a connection pool of its own."""

    name = "REST"

    def __init__(self, http: str, token: str) -> None:
        self._http = httpx2.AsyncClient(
            base_url=http, headers={"Authorization": f"Bearer {token}"}, timeout=httpx2.Timeout(TIMEOUT_S)
        )

    async def call(self, kind: str, session_id: str, body: JSON) -> JSON:
        method, path = {
            "create": ("POST", "/stream"),
            "get": ("GET", f"/stream/{session_id}"),
            "list": ("GET", "/stream"),
            "connect": ("POST", f"/stream/{session_id}:connect"),
            "extend": ("POST", f"/stream/{session_id}:extend"),
            "terminate": ("DELETE", f"/stream/{session_id}"),
        }[kind]
        try:
            answer = await self._http.request(method, path, json=body if method == "POST" else None)
        except httpx2.HTTPError as error:
            raise Unknown(f"{type(error).__name__}: {error}") from error
        if answer.status_code in (200, 202):
            return dict(answer.json())
        text = f"{answer.status_code}: {answer.text[:300]}"
        aborted = answer.status_code == 409 and "ALREADY_EXISTS" not in text
        if answer.status_code >= 500 or aborted or answer.status_code in (408, 429, 499):
            raise Unknown(text)
        raise Refused(text)

    async def watch(self, session_id: str) -> AsyncIterator[JSON]:
        try:
            async with self._http.stream("GET", f"/stream/{session_id}:watch") as response:
                if response.status_code != 200:
                    raise Unknown(f"{response.status_code}")
                async for line in response.aiter_lines():
                    if line.strip():
                        yield json.loads(line)["result"]
        except (httpx2.HTTPError, KeyError, ValueError) as error:
            raise Unknown(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._http.aclose()


class Grpc:
    """A channel of its own that dials again soon."""

    name = "gRPC"

    def __init__(self, address: str, token: str) -> None:
        options = (
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.use_local_subchannel_pool", 1),
        )
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = session_pb2_grpc.StreamingServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def call(self, kind: str, session_id: str, body: JSON) -> JSON:
        requests: dict[str, tuple[Callable[..., Awaitable[Message]], Message]] = {
            "create": (self._stub.CreateSession, session_pb2.CreateSessionRequest()),
            "get": (self._stub.GetSession, session_pb2.GetSessionRequest()),
            "list": (self._stub.ListSessions, session_pb2.ListSessionsRequest()),
            "connect": (self._stub.ConnectSession, session_pb2.ConnectSessionRequest()),
            "extend": (self._stub.ExtendSession, session_pb2.ExtendSessionRequest()),
            "terminate": (self._stub.TerminateSession, session_pb2.TerminateSessionRequest()),
        }
        method, request = requests[kind]
        ParseDict({**body, "session_id": session_id} if session_id else body, request)
        try:
            answer = await method(request, metadata=self._metadata, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            text = f"{error.code().name}: {(error.details() or '')[:300]}"
            raise (Unknown(text) if error.code().name in _AGAIN else Refused(text)) from error
        return dict(MessageToDict(answer, preserving_proto_field_name=True))

    async def watch(self, session_id: str) -> AsyncIterator[JSON]:
        request = session_pb2.WatchSessionRequest(session_id=session_id)
        try:
            async for message in self._stub.WatchSession(request, metadata=self._metadata, timeout=30):
                yield dict(MessageToDict(message, preserving_proto_field_name=True))
        except grpc.aio.AioRpcError as error:
            raise Unknown(f"{error.code().name}: {error.details()}") from error

    async def close(self) -> None:
        await self._channel.close()


@dataclass(slots=True)
class Caller:
    """Calls in one client's name and records each call."""

    client: str
    transport: Transport
    recorder: Recorder

    async def call(self, kind: str, session_id: str = "", body: JSON | None = None) -> JSON:
        """Make one call. Raises Unknown, Refused."""
        began = time.monotonic()
        outcome: Outcome = "UNKNOWN"
        answer: JSON = {}
        error = ""
        try:
            answer = await self.transport.call(kind, session_id, body or {})
            outcome = "OK"
        except asyncio.CancelledError:
            error = "the client went away"
            raise
        except Refused as problem:
            outcome, error = "REFUSED", str(problem)
            raise
        except Unknown as problem:
            error = str(problem)
            raise
        finally:
            self._record(kind, began, outcome, session_id, body or {}, answer, error)
        return answer

    def seen(self, session: JSON, began: float) -> None:
        """Record what a watch told."""
        self._record("watch", began, "OK", str(session["session_id"]), {}, session, "")

    def _record(
        self, kind: str, began: float, outcome: Outcome, session_id: str, body: JSON, answer: JSON, error: str
    ) -> None:
        self.recorder.operation(
            Operation(
                client=self.client,
                transport=self.transport.name,
                kind=kind,
                began=began,
                ended=time.monotonic(),
                outcome=outcome,
                session_id=session_id or str(answer.get("session_id", "")),
                request_id=str(body.get("request_id", "")),
                state=str(answer.get("state", "")),
                revision=int(answer.get("revision", 0)),
                error=error,
            )
        )
