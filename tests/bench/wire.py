"""Agents' links at the least cost there is: HTTP/2 and gRPC framing by hand, so that the server is what is measured.

A link through grpcio costs its client about a millisecond of processor time to open, as much as it costs the server;
five thousand at once on one core would measure the client. Here a link is one asyncio protocol over one TCP connection:
a preface, a request's headers, and messages. It acknowledges settings and pings, returns flow-control credit, and
answers as a node does that starts nothing.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from footlights.agent.v1 import agent_pb2, node_pb2

from footlights.ids import new_id
from footlights.protocol.handshake import GREATEST, LEAST

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = struct.Struct(">BHBBI")
_CREDIT: Final = 16_384
_GIB: Final = 1 << 30
PROBE: Final = "probe-"
"""How the ids of launches that never were begin: reporting the end of one is answered by a forget."""


@dataclass
class Seen:
    """What all links of a field have seen."""

    welcomed: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Links that ended after it, by how."""
    refused: Counter[str] = field(default_factory=Counter)
    """Links that ended before their welcome, by how."""
    assigned: int = 0
    probes: list[float] = field(default_factory=list)
    """Seconds from a heartbeat with a report to the answer that it is recorded."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class WireLink(asyncio.Protocol):
    """One link; made by ``Links``."""

    def __init__(
        self, hello: bytes, token: str, seen: Seen, ended: Callable[[], None], *, obedient: bool = False
    ) -> None:
        self._hello, self._token, self._seen, self._ended = hello, token, seen, ended
        self._obedient = obedient
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._messages = bytearray()
        self._credit = 0
        self._probes: dict[str, float] = {}
        self.welcomed = False
        self.greeted = asyncio.Event()
        """Set once it is welcomed, or has ended."""
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        block = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/footlights.agent.v1.AgentService/Link"),
                (b":authority", b"localhost"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"bench"),
                (b"authorization", f"Bearer {self._token}".encode()),
            )
        )
        transport.write(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, block)
            + _frame(_DATA, 0, 1, _message(self._hello))
        )

    def send(self, message: bytes) -> None:
        """Send one serialized LinkRequest."""
        if self._transport is not None:
            self._transport.write(_frame(_DATA, 0, 1, _message(message)))

    def beat(self, *, probe: bool) -> None:
        """Send a heartbeat; with ``probe`` one whose answer is timed."""
        heartbeat = agent_pb2.Heartbeat()
        if probe:
            launch_id = f"{PROBE}{new_id()}"
            heartbeat.reports.add(launch_id=launch_id, epoch=1, state=agent_pb2.LaunchReport.REJECTED, reason="PROBE")
            self._probes[launch_id] = time.perf_counter()
        self.send(agent_pb2.LinkRequest(heartbeat=heartbeat).SerializeToString())

    def close(self) -> None:
        """End the link, as a process does that is killed."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(self._buffer, at)
            length = high << 16 | low
            if len(self._buffer) - at - 9 < length:
                break
            self._take(kind, flags, stream & 0x7FFFFFFF, bytes(self._buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        del self._buffer[:at]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        ends = self._seen.lost if self.welcomed else self._seen.refused
        ends[self._why or f"connection: {error or 'closed'}"] += 1
        self._seen.changed.set()
        self.greeted.set()
        self._ended()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._credit += len(payload)
            if self._credit >= _CREDIT:
                credit = struct.pack(">I", self._credit)
                self._transport.write(_frame(_WINDOW, 0, 0, credit) + _frame(_WINDOW, 0, 1, credit))
                self._credit = 0
            self._messages += payload
            self._read_messages()
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST or (kind == _HEADERS and flags & _END_STREAM):
            if kind == _RST:
                self._why = self._why or f"reset {int.from_bytes(payload[:4], 'big')}"
            else:
                self._why = f"the call ended: {_readable(payload)}"
            self._transport.abort()
        elif kind == _GOAWAY:
            self._why = f"goaway: {payload[8:].decode(errors='replace')}"
            self._transport.abort()

    def _read_messages(self) -> None:
        at = 0
        while len(self._messages) - at >= 5:
            length = int.from_bytes(self._messages[at + 1 : at + 5], "big")
            if len(self._messages) - at - 5 < length:
                break
            self._answered(agent_pb2.LinkResponse.FromString(bytes(self._messages[at + 5 : at + 5 + length])))
            at += 5 + length
        del self._messages[:at]

    def _answered(self, answer: agent_pb2.LinkResponse) -> None:
        match answer.WhichOneof("message"):
            case "welcome":
                self.welcomed = True
                self.greeted.set()
                self._seen.welcomed += 1
                self._seen.changed.set()
            case "assignments":
                for each in answer.assignments.assignments:
                    self._obey(each)
            case "assignment":
                self._seen.assigned += 1
                self._obey(answer.assignment)
            case "forget":
                sent = self._probes.pop(answer.forget.launch_id, None)
                if sent is not None:
                    self._seen.probes.append(time.perf_counter() - sent)
                    self._seen.changed.set()

    def _obey(self, assignment: agent_pb2.Assignment) -> None:
        """Be ready, or gone, at once."""
        if not self._obedient:
            return
        stopped = assignment.desired == agent_pb2.Assignment.STOPPED
        report = agent_pb2.LaunchReport(
            launch_id=assignment.launch_id,
            epoch=assignment.epoch,
            state=agent_pb2.LaunchReport.EXITED if stopped else agent_pb2.LaunchReport.READY,
        )
        self.send(agent_pb2.LinkRequest(report=report).SerializeToString())


class Links:
    """Many of them, each for a node of its own."""

    def __init__(
        self, address: str, tokens: dict[str, str], *, devices: int, heartbeat_s: float, obedient: bool = False
    ) -> None:
        """Take the server, and the token of each node.

        Args:
            address: Where the server's gRPC listens.
            tokens: Each node's.
            devices: How many each has.
            heartbeat_s: How often each is to be heard: as the server is told to want it.
            obedient: Whether they say that what is wanted is done.
        """
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self.seen = Seen()
        self.probe_every = 0
        """Of how many heartbeats one is timed; 0 is none."""
        self._heartbeat_s, self._obedient = heartbeat_s, obedient
        self._pulse: asyncio.Task[None] | None = None
        self._open: dict[str, WireLink] = {}
        self._nodes = [(node, token, _hello(node, devices)) for node, token in tokens.items()]

    async def __aenter__(self) -> Links:
        self._pulse = asyncio.create_task(self._beat(), name="heartbeats")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        for link in list(self._open.values()):
            link.close()
        await asyncio.sleep(0)

    @property
    def open(self) -> Sequence[WireLink]:
        """Those that were welcomed and have not ended."""
        return [link for link in self._open.values() if link.welcomed]

    async def dial(self) -> None:
        """Dial for every node that has no link, all at once; return when they are connected."""
        await asyncio.gather(*(self._dial(*each) for each in self._nodes if each[0] not in self._open))

    async def open_all(self, timeout_s: float, *, at_once: int = 32) -> None:
        """Open every link, so many at a time; one that fails is tried again. Raises TimeoutError."""
        room = asyncio.Semaphore(at_once)

        async def one(node: str, token: str, hello: bytes) -> None:
            async with room:
                while not (node in self._open and self._open[node].welcomed):
                    await self._dial(node, token, hello)
                    if link := self._open.get(node):
                        await link.greeted.wait()

        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(one(*each) for each in self._nodes))

    async def until_gone(self, timeout_s: float) -> None:
        """Wait until no link is left."""
        async with asyncio.timeout(timeout_s):
            while self._open:
                self.seen.changed.clear()
                await self.seen.changed.wait()

    async def _dial(self, node: str, token: str, hello: bytes) -> None:
        loop = asyncio.get_running_loop()

        def ended() -> None:
            del self._open[node]

        link = self._open[node] = WireLink(hello, token, self.seen, ended, obedient=self._obedient)
        try:
            await loop.create_connection(lambda: link, self._host, self._port)
        except OSError as error:
            del self._open[node]
            self.seen.refused[f"dial: {error.strerror}"] += 1

    async def _beat(self) -> None:
        """Beat for every open link in turn, spread evenly over the interval."""
        loop = asyncio.get_running_loop()
        due, sent, before = 0.0, 0, loop.time()
        turn: list[WireLink] = []
        while True:
            await asyncio.sleep(0.002)
            now = loop.time()
            due += (now - before) * len(self._open) / self._heartbeat_s
            before = now
            while due >= 1:
                due -= 1
                turn = turn or list(self.open)
                if turn:
                    sent += 1
                    turn.pop().beat(probe=self.probe_every > 0 and sent % self.probe_every == 0)


def _hello(node: str, devices: int) -> bytes:
    facts = node_pb2.NodeFacts(
        hostname=node, os="Debian", agent_version="0", public_address="127.0.0.1", launchers=["fake"], port_blocks=3000
    )
    inventory = agent_pb2.Inventory(facts=facts)
    for index in range(devices):
        inventory.devices.add(
            uuid=f"FAKE-{node}-{index}",
            kind=node_pb2.Device.FAKE,
            name="NVIDIA L40S",
            index=index,
            memory_total_bytes=48 * _GIB,
            memory_free_bytes=48 * _GIB,
            utilization_percent=0,
            graphics=True,
            encoder=True,
            health=node_pb2.Device.OK,
            slots=1,
            processes_known=True,
        )
    hello = agent_pb2.Hello(
        node=node,
        incarnation=new_id(),
        facts=facts,
        inventory=inventory,
        protocol=agent_pb2.Protocol(least=LEAST, greatest=GREATEST),
    )
    return agent_pb2.LinkRequest(hello=hello).SerializeToString()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _message(serialized: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(serialized)) + serialized


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and without Huffman coding (RFC 7541, 6.2.2)."""
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def _readable(block: bytes) -> str:
    """Show what of a header block can be read without its dynamic table: gRPC's status and message are plain there."""
    return b" ".join(re.findall(rb"[ -~]{3,}", block)).decode()


def _length(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    rest, out = value - 127, bytearray([127])
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)
