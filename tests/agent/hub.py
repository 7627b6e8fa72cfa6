"""A control plane of the tests' own: the link's other end, on a real gRPC server, that does as it is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from footlights.agent.v1.agent_pb2 import (
    Assignment,
    Assignments,
    CarriedRecipe,
    Forget,
    Hello,
    Inventory,
    LaunchReport,
    LinkRequest,
    LinkResponse,
    LogPart,
    LogRequest,
    Part,
    Relay,
    Welcome,
)
from footlights.agent.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from grpc import aio
from grpc_status import rpc_status

from footlights.errors import Error
from footlights.protocol import former, handshake
from footlights.status import to_status

TOKEN = "node-token"
WAIT_S = 15.0
"""How long a test waits for what must happen; a machine under load is slow, not wrong."""


@dataclass
class Connection:
    """One link, as the hub sees it."""

    hello: Hello
    outgoing: asyncio.Queue[LinkResponse | None]
    reports: list[LaunchReport] = field(default_factory=list)
    heartbeats: int = 0


class Hub(AgentServiceServicer):
    """Keeps the protocol of `AgentService.Link`; what it wants and refuses is set by the test."""

    def __init__(self, *, former: bool = False) -> None:
        """Make it; ``former`` is one of the release before, which knows the link by its former name only."""
        self.former = former
        self.in_parts = False
        """Whether each assignment is a part of the set, and names its recipe."""
        self.goodbyes: list[str] = []
        self.assignments: dict[str, Assignment] = {}
        self.reports: dict[str, LaunchReport] = {}
        self.history: list[LaunchReport] = []
        self.inventories: list[Inventory] = []
        self.parts: list[LogPart] = []
        self.relays: list[str] = []
        """The launches whose relay was asked for."""
        self.relay: Callable[[int], Relay | None] = lambda _: None
        """What is answered, by how often it was asked."""
        self.features: tuple[str, ...] = handshake.FEATURES
        self.connections: list[Connection] = []
        self.dials = 0
        self.epoch = 0
        self.heartbeat_s = 0.3
        self.abandon_s = 3600.0
        self.cluster_id = f"cluster-{uuid.uuid4()}"  # its mark finds processes on the whole machine
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.error: Error | None = None
        """With what it refuses each link, as a control plane says it."""
        self.forgets = True
        self.address = ""
        self._changed = asyncio.Condition()
        self._server: aio.Server | None = None

    # For tests

    async def start(self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> None:
        self._server = aio.server(options=[("grpc.http2.min_recv_ping_interval_without_data_ms", 1000)])
        if self.former:
            link = grpc.stream_stream_rpc_method_handler(
                self.Link, LinkRequest.FromString, LinkResponse.SerializeToString
            )
            name = former.NAMES["footlights.agent.v1.AgentService"]
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"Link": link})])
        else:
            add_AgentServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    @property
    def link(self) -> Connection:
        """The newest link."""
        return self.connections[-1]

    async def want(self, assignment: Assignment) -> None:
        """Have a launch run, or be gone."""
        self.assignments[assignment.launch_id] = assignment
        await self.say(LinkResponse(assignment=assignment))

    async def say(self, message: LinkResponse) -> None:
        if self.connections:
            await self.link.outgoing.put(message)

    async def hang_up(self) -> None:
        """Break the newest link."""
        await self.link.outgoing.put(None)

    async def until(self, condition: Callable[[], Any], timeout: float = WAIT_S) -> None:
        """Wait until something is so."""
        async with self._changed:
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait_for(lambda: bool(condition()))
            except TimeoutError:
                states = {k: LaunchReport.State.Name(v.state) + " " + v.message for k, v in self.reports.items()}
                raise AssertionError(f"not so within {timeout} s; launches {states}, links {self.dials}") from None

    async def until_links(self, count: int) -> None:
        await self.until(lambda: len(self.connections) == count)

    async def until_state(self, launch_id: str, state: LaunchReport.State.ValueType) -> LaunchReport:
        await self.until(lambda: launch_id in self.reports and self.reports[launch_id].state == state)
        return self.reports[launch_id]

    async def tail(self, launch_id: str, request_id: str, *, lines: int = 100, follow: bool = False) -> None:
        request = LogRequest(request_id=request_id, launch_id=launch_id, tail_lines=lines, follow=follow)
        await self.say(LinkResponse(log_request=request))

    def lines(self, request_id: str) -> list[str]:
        return [line for part in self.parts if part.request_id == request_id for line in part.lines]

    def done(self, request_id: str) -> bool:
        return any(part.last for part in self.parts if part.request_id == request_id)

    def states(self, launch_id: str) -> list[str]:
        """The states that a launch was reported in, without repetitions."""
        seen: list[str] = []
        for report in self.history:
            name = LaunchReport.State.Name(report.state)
            if report.launch_id == launch_id and (not seen or seen[-1] != name):
                seen.append(name)
        return seen

    # The protocol

    async def Link(self, request_iterator: Any, context: Any) -> AsyncIterator[LinkResponse]:
        self.dials += 1
        await self._notify()
        metadata = dict(context.invocation_metadata())
        if metadata.get("authorization") != f"Bearer {TOKEN}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")
        if self.refusal is not None:
            await context.abort(*self.refusal)
        if self.error is not None:
            status = rpc_status.to_status(to_status(self.error))
            await context.abort(status.code, status.details, status.trailing_metadata)
        first: LinkRequest = await anext(aiter(request_iterator))
        assert first.WhichOneof("message") == "hello"
        whole = not first.hello.HasField("part") or first.hello.part.last
        while not whole:
            more = (await anext(aiter(request_iterator))).launches
            first.hello.launches.extend(more.launches)
            whole = more.part.last
        connection = Connection(first.hello, asyncio.Queue())
        self.epoch += 1
        welcome = Welcome(epoch=self.epoch, cluster_id=self.cluster_id)
        welcome.heartbeat_interval.FromMilliseconds(round(self.heartbeat_s * 1000))
        welcome.abandon_after.FromMilliseconds(round(self.abandon_s * 1000))
        if not self.former:
            welcome.protocol.CopyFrom(handshake.ours())
            welcome.protocol.features[:] = self.features
        yield LinkResponse(welcome=welcome)
        for part in self._full_set():
            yield part
        self.connections.append(connection)
        self.inventories.append(first.hello.inventory)
        for report in first.hello.launches:
            await self._take(connection, report)
        await self._notify()
        reading = asyncio.create_task(self._read(connection, request_iterator))
        try:
            while (message := await connection.outgoing.get()) is not None:
                yield message
        finally:
            reading.cancel()

    def _full_set(self) -> Iterator[LinkResponse]:
        if not self.in_parts:
            yield LinkResponse(assignments=Assignments(assignments=self.assignments.values()))
            return
        for launch_id, assignment in self.assignments.items():
            digest = launch_id.encode()
            yield LinkResponse(recipe=CarriedRecipe(digest=digest, recipe=assignment.version))
            named = Assignment()
            named.CopyFrom(assignment)
            named.ClearField("version")
            named.recipe_digest = digest
            yield LinkResponse(assignments=Assignments(assignments=[named], part=Part(last=False)))
        yield LinkResponse(assignments=Assignments(part=Part(last=True)))

    async def _read(self, connection: Connection, requests: AsyncIterator[LinkRequest]) -> None:
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "report":
                await self._take(connection, request.report)
            elif kind == "heartbeat":
                connection.heartbeats += 1
                for report in request.heartbeat.reports:
                    await self._take(connection, report)
            elif kind == "inventory":
                self.inventories.append(request.inventory)
            elif kind == "log_part":
                self.parts.append(request.log_part)
            elif kind == "relay_request":
                launch_id = request.relay_request.launch_id
                self.relays.append(launch_id)
                if (answer := self.relay(len(self.relays))) is not None:
                    answer.launch_id = launch_id
                    await connection.outgoing.put(LinkResponse(relay=answer))
            elif kind == "goodbye":
                self.goodbyes.append(request.goodbye.reason)
            await self._notify()
        await connection.outgoing.put(None)

    async def _take(self, connection: Connection, report: LaunchReport) -> None:
        connection.reports.append(report)
        self.history.append(report)
        self.reports[report.launch_id] = report
        if report.state >= LaunchReport.EXITED and self.forgets:
            self.assignments.pop(report.launch_id, None)
            await connection.outgoing.put(LinkResponse(forget=Forget(launch_id=report.launch_id)))
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
