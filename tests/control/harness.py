"""A whole control plane in the test's own process: no sockets, both ways in, and agents that follow a script."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
from footlights.agent.v1 import agent_pb2
from footlights.agent.v1 import node_pb2 as link_node_pb2
from footlights.v1 import application_pb2, error_reason_pb2, node_pb2, session_pb2, token_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from footlights import errors
from footlights.auth.secrets import ClusterKey
from footlights.control.assembly import REST_SERVICES, Plane, assemble
from footlights.control.grpc_listener import AGENT_SERVICE, CERTIFICATE_SERVICE, REPLICA_SERVICE
from footlights.control.routes import Origin
from footlights.control.services.nvcf.sign_in import Patience
from footlights.control.settings import ServerSettings
from footlights.gateway.upstream import LocalUpstream, OutgoingCall, UpstreamError
from footlights.protocol import handshake
from footlights.protocol.parts import Intake, hello_parts
from footlights.status import CODE_NAMES, from_status
from footlights.store import Store, open_store
from footlights.store.nodes import node_rows

SERVICES = (*REST_SERVICES, AGENT_SERVICE, CERTIFICATE_SERVICE, REPLICA_SERVICE)
"""Those of a process with all roles."""
PUBLIC_URL = "https://streams.example.com"
NODE_NETWORKS = ("10.0.0.0/8", "127.0.0.0/8", "::1/128")
GIB = 1 << 30
_marks = itertools.count()
State = session_pb2.Session.State
Report = agent_pb2.LaunchReport


class Clock:
    """Wall and monotonic time, moved by hand: together, or the wall alone."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.span = 1000.0

    def __call__(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.span

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += timedelta(seconds=seconds)
        self.span += seconds

    def reboot(self) -> None:
        """Start the machine again: the monotonic clock starts again, and only the wall clock goes on."""
        self.span = 7.0

    def jump_s(self, seconds: float) -> None:
        """Set the wall clock, as an operator or NTP does."""
        self.wall += timedelta(seconds=seconds)


def _rpc(service: str, name: str) -> MethodDescriptor:
    [full_name] = [known for known in SERVICES if known.endswith(f".{service}")]
    found: MethodDescriptor = descriptor_pool.Default().FindServiceByName(full_name).methods_by_name[name]
    return found


def seconds(value: float) -> Duration:
    """Return a span as its message."""
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def inventory(*devices: node_pb2.Device) -> agent_pb2.Inventory:
    """Return devices as their agent sends them."""
    return agent_pb2.Inventory(
        devices=[link_node_pb2.Device.FromString(device.SerializeToString()) for device in devices]
    )


def gpu(uuid: str = "GPU-0", **members: Any) -> node_pb2.Device:
    """A whole, well, free GPU of 16 GiB, except where said otherwise."""
    known: dict[str, Any] = {
        "kind": node_pb2.Device.GPU,
        "name": "NVIDIA L40S",
        "memory_total_bytes": 16 * GIB,
        "memory_free_bytes": 16 * GIB,
        "graphics": True,
        "encoder": True,
        "health": node_pb2.Device.OK,
        "slots": 1,
    }
    return node_pb2.Device(uuid=uuid, **(known | members))


class Agent:
    """One agent's link: says what a test tells it to, and keeps what it is told."""

    def __init__(self, plane: Control, node: str, token: str) -> None:
        self.plane, self.node, self.token = plane, node, token
        self.told: asyncio.Queue[agent_pb2.LinkResponse | errors.Error | None] = asyncio.Queue()
        self.assigned: dict[str, agent_pb2.Assignment] = {}
        self.forgotten: list[str] = []
        self.welcome = agent_pb2.Welcome()
        self.received: list[tuple[str, int]] = []
        """What came over the link: kinds of messages and their sizes."""
        self._passed: deque[agent_pb2.LinkResponse] = deque()
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None

    async def open(
        self,
        devices: Sequence[node_pb2.Device] | None = None,
        launches: Sequence[Report] = (),
        *,
        facts: Mapping[str, Any] | None = None,
        hello: Mapping[str, Any] | None = None,
        former: bool = True,
    ) -> Agent:
        """Open the link and wait for the welcome and the full set of assignments.

        ``former`` is whether it speaks as the release before, in one message each: what is sent is seen as it is.
        """
        known: dict[str, Any] = {
            "launchers": ["fake"],
            "public_address": "192.0.2.7",
            "signal_address": "10.0.0.7",
            "port_blocks": 100,
        }
        message: dict[str, Any] = {
            "node": self.node,
            "incarnation": "one",
            "facts": link_node_pb2.NodeFacts(**(known | dict(facts or {}))),
            "inventory": inventory(*([gpu()] if devices is None else devices)),
            "launches": launches,
            **({"protocol_version": 1} if former else {"protocol": handshake.ours()}),
        }
        self.begin()
        said = agent_pb2.Hello(**(message | dict(hello or {})))
        for part in [agent_pb2.LinkRequest(hello=said)] if former else hello_parts(said):
            self._said.put_nowait(part)
        self.welcome.CopyFrom((await self.next()).welcome)
        assert self.welcome.epoch
        for assignment in (await self.until("assignments")).assignments:
            self._take(assignment)
        return self

    def begin(self) -> None:
        """Open the stream and say nothing."""
        self._said = asyncio.Queue[agent_pb2.LinkRequest]()
        self._intake = Intake()
        self.received.clear()
        outgoing = OutgoingCall((("authorization", f"Bearer {self.token}"),))
        self._call = self.plane.upstream.stream(_rpc("AgentService", "Link"))(self._saying(), outgoing)
        self._reader = asyncio.create_task(self._read())

    async def _saying(self) -> AsyncIterator[Message]:
        while True:
            yield await self._said.get()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not None:
                self.received.append((message.WhichOneof("message"), message.ByteSize()))
                if (whole := self._intake.take(message)) is not None:
                    self.told.put_nowait(whole)
        except UpstreamError as error:
            self.told.put_nowait(from_status(error.status))
        else:
            self.told.put_nowait(None)

    async def say(self, **message: Any) -> None:
        """Send one LinkRequest."""
        self._said.put_nowait(agent_pb2.LinkRequest(**message))

    async def next(self) -> agent_pb2.LinkResponse:
        """Return what is said next; raise the error with which the link ended."""
        if self._passed:
            return self._passed.popleft()
        async with asyncio.timeout(30):
            message = await self.told.get()
        if isinstance(message, errors.Error):
            raise message
        assert message is not None, "the link ended"
        return message

    async def until(self, kind: str) -> Any:
        """Return the next message of a kind; assignments and forgets on the way are kept."""
        while True:
            message = await self.next()
            match message.WhichOneof("message"):
                case "assignment":
                    self._take(message.assignment)
                case "forget":
                    self.forgotten.append(message.forget.launch_id)
            if message.WhichOneof("message") == kind:
                return getattr(message, kind)

    def _take(self, assignment: agent_pb2.Assignment) -> None:
        """Keep an assignment, unless its epoch is over, as agents do."""
        before = self.assigned.get(assignment.launch_id)
        if before is None or assignment.epoch >= before.epoch:
            self.assigned[assignment.launch_id] = assignment

    async def assignment(self, session_id: str, desired: str = "RUNNING") -> agent_pb2.Assignment:
        """Wait until a session is assigned so, and return the assignment."""
        wanted = agent_pb2.Assignment.Desired.Value(desired)
        while True:
            for assignment in self.assigned.values():
                if assignment.session_id == session_id and assignment.desired == wanted:
                    return assignment
            await self.until("assignment")

    async def report(self, assignment: agent_pb2.Assignment, state: str, **members: Any) -> None:
        """Report on a launch, and wait until the control plane has taken it in."""
        await self.say(
            report=Report(
                launch_id=assignment.launch_id, epoch=assignment.epoch, state=Report.State.Value(state), **members
            )
        )
        await self.settled()

    async def ready(self, session_id: str, **members: Any) -> agent_pb2.Assignment:
        """Take a session's assignment through its start."""
        assignment = await self.assignment(session_id)
        steps = [
            Report.Step(stage="PROCESS_UP", age=seconds(2)),
            Report.Step(stage="APPLICATION_READY", age=seconds(1)),
        ]
        ports = {"signal_port": 20000, "media_port": 20001, "http_port": 20002}
        await self.report(assignment, "READY", steps=steps, **(ports | members))
        return assignment

    async def settled(self) -> None:
        """Wait until everything said so far has been taken in: the end of a launch that is not known is answered.

        Twice, for what arrives together is recorded together, in an order of the control plane's own.
        """
        for _ in range(2):
            mark = f"mark-{next(_marks)}"
            await self.say(report=Report(launch_id=mark, epoch=1, state=Report.EXITED))
            passed: list[agent_pb2.LinkResponse] = []
            while (message := await self.next()).forget.launch_id != mark:
                passed.append(message)
            self._passed.extend(passed)

    async def ended(self) -> errors.Error:
        """Wait for the end of the link and return the error with which it came."""
        try:
            while True:
                await self.next()
        except errors.Error as error:
            return error

    async def close(self) -> None:
        """Break the link, as a crash or a cut cable does."""
        if self._call is not None:
            self._call.cancel()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader


@dataclass
class Control:
    """A control plane and everything to drive it with."""

    settings: ServerSettings
    store: Store
    clock: Clock
    plane: Plane
    admin: str
    key: ClusterKey
    http: httpx2.AsyncClient
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    agents: list[Agent] = field(default_factory=list)

    @cached_property
    def upstream(self) -> LocalUpstream:
        """Calls without a socket, as the gateway makes them."""
        return LocalUpstream(self.plane.local)

    async def call(self, method: str, request: Message, token: str | None = None, **metadata: str) -> Any:
        """Call ``Service.Method``; raise the error that the server raised.

        ``token`` None is the operator's, empty is none; ``metadata`` has ``_`` for ``-``.
        """
        rpc = _rpc(*method.split("."))
        try:
            given = request.__deepcopy__({})
            return await self.upstream.unary(rpc)(given, OutgoingCall(self._metadata(token, metadata), 20))
        except UpstreamError as error:
            raise declared(from_status(error.status)) from None

    async def stream(self, method: str, request: Message, token: str | None = None) -> AsyncIterator[Any]:
        """Call a server-streaming method."""
        rpc = _rpc(*method.split("."))
        responses = self.upstream.stream(rpc)(request.__deepcopy__({}), OutgoingCall(self._metadata(token, {})))
        try:
            while (message := await responses.read()) is not None:
                yield message
        except UpstreamError as error:
            raise declared(from_status(error.status)) from None
        finally:
            responses.cancel()

    def _metadata(self, token: str | None, more: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        token = self.admin if token is None else token
        found = tuple((key.replace("_", "-"), value) for key, value in more.items())
        return (*found, ("authorization", f"Bearer {token}")) if token else found

    # REST

    async def rest(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx2.Response:
        """Send one request; ``token`` as in ``call``."""
        token = self.admin if token is None else token
        headers = dict(options.pop("headers", {}))
        if token:
            headers["authorization"] = f"Bearer {token}"
        return await self.http.request(method, path, headers=headers, **options)

    # Things to have

    async def token(self, role: str = "DEVELOPER", subject: str = "ann") -> str:
        """Return a token of a role."""
        if (role, subject) not in self.tokens:
            made = await self.call(
                "TokenService.CreateToken",
                token_pb2.CreateTokenRequest(role=token_pb2.Token.Role.Value(role), subject=subject),
            )
            self.tokens[role, subject] = made.secret
        return self.tokens[role, subject]

    async def apply(
        self,
        *versions: application_pb2.Version,
        application: str = "fake",
        releases: Mapping[str, str] | None = None,
    ) -> application_pb2.ApplyApplicationResponse:
        """Register an application; by default one version, 1.0.0, as the release ``default``."""
        versions = versions or (version(),)
        answer: application_pb2.ApplyApplicationResponse = await self.call(
            "ApplicationService.ApplyApplication",
            application_pb2.ApplyApplicationRequest(
                application=application_pb2.Application(application=application),
                versions=versions,
                releases={"default": versions[-1].version} if releases is None else releases,
            ),
        )
        return answer

    async def agent(self, node: str = "node-a", *devices: node_pb2.Device, **options: Any) -> Agent:
        """Return an agent whose link is open."""
        agent = self.new_agent(node, await self.token("NODE", node))
        return await agent.open(devices or None, **options)

    def new_agent(self, node: str, token: str) -> Agent:
        """Return an agent that has not called yet."""
        agent = Agent(self, node, token)
        self.agents.append(agent)
        return agent

    async def create(self, token: str | None = None, **members: Any) -> session_pb2.Session:
        """Create a session."""
        request = session_pb2.CreateSessionRequest(**({"application": "fake"} | members))
        session: session_pb2.Session = await self.call("StreamingService.CreateSession", request, token)
        return session

    async def get(self, session_id: str, token: str | None = None) -> session_pb2.Session:
        """Return a session as it is."""
        request = session_pb2.GetSessionRequest(session_id=session_id)
        session: session_pb2.Session = await self.call("StreamingService.GetSession", request, token)
        return session

    async def terminate(self, session_id: str, token: str | None = None) -> None:
        """Terminate a session."""
        request = session_pb2.TerminateSessionRequest(session_id=session_id)
        await self.call("StreamingService.TerminateSession", request, token)

    async def running(self, agent: Agent, token: str | None = None, **members: Any) -> session_pb2.Session:
        """Create a session, have it placed on the agent's node and started."""
        created = await self.create(token, **members)
        await self.place()
        await agent.ready(created.session_id)
        return await self.get(created.session_id, token)

    async def unlinked(self, node: str = "node-a") -> None:
        """Wait until the end of a node's link is recorded."""
        async with asyncio.timeout(30):
            while True:
                row = await self.store.read(lambda tx: node_rows.get(tx, node))
                if row is not None and not row.connected:
                    return
                await asyncio.sleep(0)

    async def state(self, node: str = "node-a") -> str:
        """Return a node's state."""
        return str((await self.rest("GET", f"/nodes/{node}")).json()["state"])

    async def place(self) -> int:
        """Make one pass of placing."""
        return await self.plane.placing.place_once()

    async def reap(self) -> None:
        """Make one pass of reaping."""
        await self.plane.reaping.expire_once()


def known(assignment: agent_pb2.Assignment, state: str = "READY", **members: Any) -> Report:
    """A report on an assigned launch."""
    return Report(launch_id=assignment.launch_id, epoch=assignment.epoch, state=Report.State.Value(state), **members)


def version(number: str = "1.0.0", **members: Any) -> application_pb2.Version:
    """A version of the fake launcher."""
    known: dict[str, Any] = {
        "version": number,
        "fake": application_pb2.FakeBehavior(),
        "signaling": application_pb2.Signaling(whep_path="/whep", websocket_path="/sign_in"),
    }
    return application_pb2.Version(**(known | members))


def _prepare(directory: Path, template: Path | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if template is not None:
        (directory / template.name).write_bytes(template.read_bytes())


@contextlib.asynccontextmanager
async def control(
    directory: Path,
    template: Path | None = None,
    clock: Clock | None = None,
    *,
    url: str = "",
    key: ClusterKey | None = None,
    patience: Patience | None = None,
    **settings: Any,
) -> AsyncIterator[Control]:
    """Run a control plane without its loops: a test makes their passes itself. ``url`` is empty for a SQLite store.

    Two, one after the other with the same ``clock``, are a restart on the same boot of a machine.
    """
    _prepare(directory, template)
    defaults: dict[str, Any] = {"auto_accept": True, "node_networks": NODE_NETWORKS}
    configured = ServerSettings(directory, **(defaults | settings))
    key = key or ClusterKey(b"k" * 32)
    clock = clock or Clock()
    store = open_store(directory, url)
    try:
        origin = Origin.of(PUBLIC_URL, configured)
        plane = await assemble(
            configured,
            store,
            key,
            origin,
            PUBLIC_URL,
            wall=clock,
            monotonic=clock.monotonic,
            decision_wait_s=0,
            patience=patience,
        )
        admin = (directory / "admin.token").read_text().strip()
        transport = httpx2.ASGITransport(app=plane.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            # What a test would otherwise have to do after every word: everything else that goes on, it does itself.
            sending = asyncio.create_task(plane.sender.run(), name="assignments")
            running = Control(configured, store, clock, plane, admin, key, http)
            try:
                yield running
            finally:
                sending.cancel()
                for agent in running.agents:
                    await agent.close()
                plane.pipeline.stop()
                await plane.pipeline.finished(2)
    finally:
        await store.close()


def declared(error: errors.Error) -> errors.Error:
    """Return an error as it came, if it is as error_reason.proto declares it."""
    _check_declared(error.code, error.reason, error.metadata)
    return error


def _check_declared(code: int, reason: str, metadata: Mapping[str, str]) -> None:
    value = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name[reason]
    info = value.GetOptions().Extensions[error_reason_pb2.reason_info]
    assert (CODE_NAMES[code], set(metadata)) == (info.code, set(info.metadata_keys)), reason


def problem(response: httpx2.Response) -> dict[str, Any]:
    """What an error answer says: code, message, reason, field, metadata; whatever case its details are spelt in."""
    body = response.json()
    found: dict[str, Any] = {
        "code": body["code"],
        "message": body["message"],
        "reason": "",
        "field": "",
        "metadata": {},
    }
    for detail in body["details"]:
        if detail["@type"].endswith("ErrorInfo"):
            assert not found["reason"], "one ErrorInfo exactly"
            found |= {"reason": detail["reason"], "metadata": detail.get("metadata", {})}
        violations = detail.get("field_violations") or detail.get("fieldViolations")
        if violations:
            found["field"] = violations[0]["field"]
    _check_declared(found["code"], found["reason"], found["metadata"])
    return found


def lines(response: httpx2.Response) -> list[dict[str, Any]]:
    """The messages of an NDJSON answer."""
    return [json.loads(line)["result"] for line in response.text.splitlines() if line.strip()]
