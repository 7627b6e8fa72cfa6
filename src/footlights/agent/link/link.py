"""The agent's link: dials out, says hello, keeps both sides in agreement, and dials again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc
import structlog
from grpc import aio

from footlights.agent.v1.agent_pb2 import Goodbye, Heartbeat, LinkRequest, LinkResponse, Welcome
from footlights.agent.v1.agent_pb2_grpc import AgentServiceStub
from footlights.errors import InvalidArgument, Reason
from footlights.protocol import bounds, handshake
from footlights.protocol.bounds import MAX_MESSAGE_BYTES
from footlights.protocol.dialing.proxies import channel_options, proxy_hint
from footlights.protocol.dialing.tls_hints import is_other_certificate, tls_hint
from footlights.protocol.former import FormerNames
from footlights.protocol.parts import Intake, NotUnderstood, hello_parts
from footlights.protocol.times import seconds
from footlights.status import from_trailing

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from footlights.agent.config import AgentConfig
    from footlights.agent.link.identity import LinkIdentity
    from footlights.agent.link.log_tails import LogTails
    from footlights.agent.link.outbox import Outbox
    from footlights.agent.link.protocol import LinkHandler
    from footlights.agent.v1.agent_pb2 import Hello

_WELCOME_TIMEOUT_S: Final = 20.0
_REDIRECTED_TIMEOUT_S: Final = 5.0
"""At an address that a server named: it may not be reached from here."""
_WRITE_TIMEOUT_S: Final = 30.0
_GOODBYE_S: Final = 3.0
_DEFAULT_HEARTBEAT_S: Final = 5.0
_RENEWAL_PAUSE_S: Final = 60.0
"""Between two requests for a certificate that are not answered."""
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    # A channel is made for each dial; sharing a broken connection of the one before would be its back-off too.
    ("grpc.use_local_subchannel_pool", 1),
)
_REFUSALS: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "the control plane does not accept this agent's certificate or token",
    grpc.StatusCode.PERMISSION_DENIED: "the node is revoked, or the certificate or token is not for it",
    grpc.StatusCode.ALREADY_EXISTS: "another agent is linked under this node's name",
    grpc.StatusCode.INVALID_ARGUMENT: "the control plane does not accept this agent's hello",
    grpc.StatusCode.FAILED_PRECONDITION: "the control plane does not take this agent now",
    grpc.StatusCode.UNIMPLEMENTED: "the server is not a control plane that agents can link to",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the control plane does not take a message of this size",
}
_SERVER_STOPPING: Final = "SERVER_STOPPING"
_INDEX: Final = re.compile(r"\[\d+\]")
_log = structlog.get_logger(__name__)

Call: TypeAlias = "aio.StreamStreamCall[LinkRequest, LinkResponse]"


class Broken(Exception):
    """The link is over; the message says why."""

    def __init__(self, code: grpc.StatusCode | None, details: str, reason: str = "") -> None:
        super().__init__(f"{code.name if code else 'ENDED'}: {details}")
        self.code = code
        self.details = details
        self.reason = reason
        """The server's; empty where it says none."""

    @classmethod
    async def of(cls, call: Call, otherwise: str) -> Broken:
        """Return with what a call has ended; ``otherwise`` is said where it says nothing."""
        code, details = await call.code(), await call.details() or otherwise
        error = from_trailing(await call.trailing_metadata())
        return cls(code, details, "" if error is None else error.reason)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between dials."""

    first_s: float = 0.2
    last_s: float = 5.0
    refused_s: float = 30.0
    """After a refusal: an operator has to act, and retrying often does not help."""


@dataclass(slots=True)
class Backoff:
    """Grows from the first to the last pause, with jitter: a thousand agents do not come back in one instant."""

    pace: Pace = field(default_factory=Pace)
    dice: random.Random = field(default_factory=random.Random)
    _tries: int = 0

    def welcomed(self) -> None:
        """There was a link: start again with the first pause."""
        self._tries = 0

    def next(self, *, refused: bool) -> float:
        """Seconds to wait now: between half and all of the pause that is due."""
        pause = min(self.pace.last_s, self.pace.first_s * 2 ** min(self._tries, 30))
        self._tries += 1
        return (self.pace.refused_s if refused else pause) * self.dice.uniform(0.5, 1.0)


class Link:
    """One agent's link."""

    def __init__(
        self,
        config: AgentConfig,
        handler: LinkHandler,
        outbox: Outbox,
        logs: LogTails,
        *,
        identity: LinkIdentity | None = None,
        pace: Pace | None = None,
    ) -> None:
        """``identity`` is what the node proves itself with; None: its token."""
        self._config, self._identity = config, identity
        self._asked_at = 0.0
        """When a certificate was asked for last, on the loop's clock."""
        self._backoff = Backoff(pace or Pace())
        self._handler = handler
        self._outbox = outbox
        self._logs = logs
        self._said = ""
        self._welcomed = False
        self._refusals = 0
        # Agents spread over the replicas, each always in the same way.
        self._next = zlib.crc32(config.node.encode()) % len(config.servers)
        self._redirects: deque[str] = deque()
        """Addresses that a server named, for one try each."""
        self._redirected = ""
        """That of them which is dialled now; empty where it is one of those that are configured."""
        self._parted = ""
        """The reason with which the server ended the link in order; empty where it did not."""
        self._shared: frozenset[str] = frozenset()
        self._cut: set[str] = set()
        self._closing = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.connected = asyncio.Event()
        """Set while there is a link that was welcomed."""
        self.epoch = 0

    @property
    def server(self) -> str:
        """The server that it has its link to, or dials next."""
        return self._redirected or self._config.servers[self._next]

    async def hold(self) -> None:
        """Dial once, hold the link until it breaks, and wait until it is time to dial again."""
        if self._closing.is_set():
            await asyncio.Event().wait()
        self._welcomed = False
        self._parted = ""
        refused = False
        self._idle.clear()
        try:
            await self._hold()
        except InvalidArgument as error:
            refused = True
            self._say("the agent cannot dial", error.message)
        except Broken as error:
            meaning = _REFUSALS.get(error.code) if error.code else None
            refused = meaning is not None
            if self._closing.is_set() or self._parted == _SERVER_STOPPING:
                _log.info("link_closed", server=self.server, code=error.code.name if error.code else "")
            else:
                self._say(meaning or await self._hint(error) or "the link is broken", str(error))
        finally:
            self._idle.set()
        if self._welcomed:
            self._backoff.welcomed()
        self._refusals = self._refusals + 1 if refused else 0
        self._turn()
        # What one server refuses another one may take: it has no part in links, or is not up to date.
        everywhere = self._refusals >= len(self._config.servers)
        pause_s = self._backoff.next(refused=everywhere)
        # Also after a server that stops: thousands of agents leave it in one instant.
        await asyncio.sleep(pause_s)

    def _turn(self) -> None:
        """Go on to the next address: one that a server named, or the next of those that are configured."""
        if not self._redirected:
            self._next = (self._next + 1) % len(self._config.servers)
        self._redirected = self._redirects.popleft() if self._redirects else ""

    async def close(self) -> None:
        """Send what waits, end the stream in order, and dial no more. Takes a few seconds at most."""
        self._closing.set()
        if not self.connected.is_set():
            return
        self._outbox.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._idle.wait()

    async def _hold(self) -> None:
        async with self._channel() as channel:
            try:
                await self._link(channel, hello_parts)
            except Broken as error:
                unknown = error.code is grpc.StatusCode.UNIMPLEMENTED and error.reason != Reason.ROLE_NOT_SERVED
                if not unknown or self._welcomed:
                    raise
                # A server of the release before, or none that agents can link to.
                await self._link(FormerNames(channel), _former_hello)

    async def _link(self, channel: aio.Channel | FormerNames, in_parts: Callable[[Hello], list[LinkRequest]]) -> None:
        metadata = () if self._is_proven else (("authorization", f"Bearer {self._config.read_token()}"),)
        call: Call = AgentServiceStub(channel).Link(metadata=metadata)  # type: ignore[arg-type]
        try:
            welcome = await self._greet(call, in_parts)
            await self._converse(call, welcome)
        except NotUnderstood as error:
            raise Broken(None, str(error)) from error
        except (aio.AioRpcError, asyncio.InvalidStateError, aio.UsageError) as error:
            raise await Broken.of(call, "the stream is closed") from error
        finally:
            self.connected.clear()
            self._logs.cancel_all()
            call.cancel()

    async def _greet(self, call: Call, in_parts: Callable[[Hello], list[LinkRequest]]) -> Welcome:
        self._outbox.clear()  # the hello says it all
        hello = self._handler.hello()
        hello.protocol.CopyFrom(handshake.ours())
        self._bounded(hello)
        timeout_s = _REDIRECTED_TIMEOUT_S if self._redirected else _WELCOME_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s):
                for message in in_parts(hello):
                    await call.write(message)
                answer = await call.read()
        except TimeoutError as error:
            raise Broken(None, f"no welcome within {timeout_s:g} s") from error
        if answer is aio.EOF:
            raise await Broken.of(call, "closed before the welcome")
        if not isinstance(answer, LinkResponse) or answer.WhichOneof("message") != "welcome":
            raise Broken(None, "the first answer is not a welcome")
        self._welcomed = True
        self._said = ""
        self._shared = handshake.shared(answer.welcome.protocol)
        self._outbox.welcomed(self._shared)
        self.epoch = answer.welcome.epoch
        self._handler.welcomed(answer.welcome)
        for launch_id in self._handler.left_out():
            self._outbox.changed(launch_id)
        self.connected.set()
        _log.info("linked", server=self.server, epoch=self.epoch)
        return answer.welcome

    async def _converse(self, call: Call, welcome: Welcome) -> None:
        interval = seconds(welcome.heartbeat_interval) or _DEFAULT_HEARTBEAT_S
        reading = asyncio.create_task(self._read(call))
        writing = asyncio.create_task(self._write(call, interval))
        try:
            done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._closing.is_set():
                await reading  # the control plane ends the stream when it has read everything
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
        raise await Broken.of(call, "the control plane closed the link")

    async def _read(self, call: Call) -> None:
        intake = Intake()
        while True:
            answer = await call.read()
            if not isinstance(answer, LinkResponse):  # aio.EOF
                return
            self._bounded(answer)
            whole = intake.take(answer)
            if whole is None:
                continue
            match whole.WhichOneof("message"):
                case "log_request":
                    self._logs.request(whole.log_request)
                case "certificate" if self._identity is not None:
                    await asyncio.to_thread(self._identity.take, whole.certificate)
                case "redirect":
                    self._redirects = deque(whole.redirect.addresses)
                case "goodbye":
                    self._parted = whole.goodbye.reason
                    _log.info("link_goodbye", reason=whole.goodbye.reason, message=whole.goodbye.message)
                case _:
                    self._handler.received(whole)

    async def _write(self, call: Call, interval: float) -> None:
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + interval
        while True:
            message = await self._outbox.next(max(0.0, beat_at - loop.time()))
            if message is None and self._closing.is_set():
                if handshake.GOODBYE in self._shared:
                    goodbye = Goodbye(reason="AGENT_STOPPING", message="The agent stops; its applications may go on.")
                    await call.write(LinkRequest(goodbye=goodbye))
                await call.done_writing()
                return
            if message is None:
                message = LinkRequest(heartbeat=Heartbeat(reports=self._handler.reports()))
                beat_at = loop.time() + interval
                await self._renew(call)
            self._bounded(message)
            try:
                async with asyncio.timeout(_WRITE_TIMEOUT_S):
                    await call.write(message)
            except TimeoutError as error:
                raise Broken(None, f"nothing could be sent for {_WRITE_TIMEOUT_S:g} s") from error

    async def _renew(self, call: Call) -> None:
        """Ask for another certificate where that of this link is due."""
        identity, now = self._identity, asyncio.get_running_loop().time()
        if self._is_proven and identity is not None and identity.is_due and now - self._asked_at > _RENEWAL_PAUSE_S:
            self._asked_at = now
            await call.write(LinkRequest(certificate_request=identity.request()))

    async def _hint(self, error: Broken) -> str:
        """Return what TLS or a proxy has to do with a dial that failed; empty where it is something else."""
        if self._welcomed or error.code is not grpc.StatusCode.UNAVAILABLE:
            return ""
        if not self._is_proven:
            hint = await tls_hint(error.details, self.server, tls=self._config.uses_tls(self.server))
            return hint or proxy_hint(self.server)
        if not is_other_certificate(error.details):
            return proxy_hint(self.server)
        return (
            "what answers there does not prove itself by the authority that this node was enrolled with; if that was "
            f"replaced: footlights nodes invite {self._config.node}"
        )

    @property
    def _is_proven(self) -> bool:
        return self._identity is not None and self._identity.credentials() is not None

    def _channel(self) -> aio.Channel:
        config = self._config
        options = (*_OPTIONS, *channel_options(self.server))
        if self._identity is not None and (proven := self._identity.credentials()) is not None:
            credentials, name = proven
            options = (*options, ("grpc.ssl_target_name_override", name))
            return aio.secure_channel(self._identity.target(self.server), credentials, options=options)
        if not config.uses_tls(self.server):
            return aio.insecure_channel(self.server, options=options)
        try:
            roots = None if config.ca_file is None else config.ca_file.read_bytes()
        except OSError as error:
            raise InvalidArgument("ca_file", f"{config.ca_file} cannot be read: {error}") from error
        return aio.secure_channel(self.server, grpc.ssl_channel_credentials(roots), options=options)

    def _bounded(self, message: Message) -> None:
        """Cut a message to its bounds; each kind of field is logged once."""
        for what in bounds.cut(message):
            field = _INDEX.sub("", what.partition(":")[0])
            if field not in self._cut:
                self._cut.add(field)
                _log.warning("link_message_cut", kind=message.DESCRIPTOR.name, left_out=what)

    def _say(self, what: str, detail: str) -> None:
        """Say it once; the tenth refusal is no news."""
        if self._said == what:
            _log.debug("link_retry", problem=what, detail=detail)
            return
        self._said = what
        _log.warning("not_linked", problem=what, detail=detail, server=self.server, node=self._config.node)


def _former_hello(hello: Hello) -> list[LinkRequest]:
    """Return a hello as a server of the release before takes it: one message, one version."""
    hello.ClearField("protocol")
    hello.protocol_version = 1
    return [LinkRequest(hello=hello)]
