"""The scratch service behind the recording: echoes what arrives, fails and streams on demand.

It is built from ``gatewaytest.proto`` in a descriptor pool of its own, so that nothing generated is imported and
nothing enters the default pool.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import google.api
import grpc_tools  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_tools import protoc

from tests.gateway.handlers import HandlerCall, fail

HERE = Path(__file__).parent
SERVICE = "gatewaytest.v1.GatewayTest"


@cache
def descriptor_set() -> bytes:
    """The compiled descriptor set of gatewaytest.proto with its imports."""
    includes = [HERE, Path(next(iter(google.api.__path__))).parent.parent, Path(grpc_tools.__file__).parent / "_proto"]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        arguments = ["protoc", *(f"-I{path}" for path in includes), "--include_imports", f"--descriptor_set_out={out}"]
        assert protoc.main([*arguments, "gatewaytest.proto"]) == 0
        return out.read_bytes()


@cache
def service() -> ServiceDescriptor:
    """The service's descriptor, in a pool of its own."""
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(SERVICE)


def message(name: str) -> Any:
    """A message class of gatewaytest.v1, or HttpBody of the same pool."""
    pool = service().file.pool
    full_name = name if "." in name else f"gatewaytest.v1.{name}"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name))


def metadata(call: HandlerCall) -> dict[str, str]:
    """What a handler sees: each key's values sorted, JSON-quoted, joined by ' | '."""
    seen: dict[str, list[str]] = {}
    for key, value in call.metadata:
        if key not in ("user-agent", "content-type", ":authority") and not key.startswith("grpc-accept"):
            seen.setdefault(key, []).append(value.decode("latin1") if isinstance(value, bytes) else value)
    shown = {key: " | ".join(json.dumps(value) for value in sorted(values)) for key, values in seen.items()}
    remaining = call.time_remaining()
    if remaining is not None and remaining < 1e8:
        shown["(deadline)"] = "set"
    return shown


class Echo:
    """The service's methods by name; what is not here echoes."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.running: list[str] = []
        self.sent = 0

    def functions(self) -> dict[str, Any]:
        """The handlers by name."""
        return {rpc.name: getattr(self, rpc.name, None) or self._echo(rpc.name) for rpc in service().methods}

    def _echo(self, name: str, head: tuple[tuple[str, Any], ...] = (("x-head", "h1"), ("x-head", "h2"))) -> Any:
        async def method(request: Any, call: HandlerCall) -> Any:
            await call.open(head)
            call.trailing = (("x-tail", "t"),)
            answer = message("Echo")(method=name, request=request, metadata=metadata(call), tags=request.tags)
            if request.HasField("thing"):
                answer.thing.CopyFrom(request.thing)
            return answer

        return method

    @property
    def Panic(self) -> Any:
        """Echoes with metadata that has no place in HTTP."""
        extra = (("location", "/else"), ("x-request-id", "rid"), ("x-bin-bin", b"\0\1"))
        return self._echo("Panic", (*extra, ("x-head", "h1"), ("x-head", "h2")))

    async def Empty(self, request: Any, call: HandlerCall) -> Any:
        """Nothing set."""
        return message("Everything")()

    async def Values(self, request: Any, call: HandlerCall) -> Any:
        """The request itself."""
        return request

    async def Raw(self, request: Any, call: HandlerCall) -> Any:
        """A body that is not JSON."""
        return message("google.api.HttpBody")(content_type="text/csv", data=b"a,b\n1,2\n")

    async def PutRaw(self, request: Any, call: HandlerCall) -> Any:
        """What was uploaded."""
        return message("Echo")(method="PutRaw", upload=request)

    async def Fail(self, request: Any, call: HandlerCall) -> Any:
        """num32 is the status code, name the message, flag adds details."""
        await call.open((("x-head", "h"),))
        call.trailing = (("x-tail", "t"),)
        if request.num32 == 0:
            return message("Echo")()
        code = request.num32 if request.num32 in range(17) else 2
        info = error_details_pb2.ErrorInfo(reason="R", domain="d.example", metadata={"k": "v"})
        raise fail(code, request.name, *((info, message("Thing")(name="n")) if request.flag else ()))

    async def Slow(self, request: Any, call: HandlerCall) -> Any:
        """Two seconds; or until it is cancelled, which is noted."""
        self.running.append("Slow")
        try:
            await asyncio.sleep(request.double_num or 2)
        except asyncio.CancelledError:
            self.cancelled.append("Slow")
            raise
        return message("Echo")(method="Slow")

    async def Watch(self, request: Any, call: HandlerCall) -> AsyncIterator[Any]:
        """num32 messages, then status unum32 if it is set; flag keeps the stream open, parent pads each message."""
        await call.open((("x-head", "h"),))
        try:
            for seq in range(request.num32):
                yield message("Tick")(seq=seq, label="l" + request.parent)
                self.sent = seq + 1
            if request.flag:
                self.running.append("Watch")
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.append("Watch")
            raise
        if request.unum32:
            raise fail(request.unum32, "stream broke")

    async def WatchBody(self, request: Any, call: HandlerCall) -> AsyncIterator[Any]:
        """num32 messages."""
        for seq in range(request.num32):
            yield message("Tick")(seq=seq, label="l")

    async def WatchRaw(self, request: Any, call: HandlerCall) -> AsyncIterator[Any]:
        """num32 bodies that are not JSON, then status unum32 if it is set."""
        for seq in range(request.num32):
            yield message("google.api.HttpBody")(content_type="text/plain", data=b"line %d" % seq)
        if request.unum32:
            raise fail(request.unum32, "stream broke")

    async def Upload(self, requests: Any, call: HandlerCall) -> Any:
        """How many messages came, and the last."""
        received, last = 0, None
        while (request := await requests.read()) is not None:
            received, last = received + 1, request
        return message("Echo")(method="Upload", received=received, request=last)

    async def Chat(self, requests: Any, call: HandlerCall) -> AsyncIterator[Any]:
        """A message back for each."""
        seq = 0
        while (request := await requests.read()) is not None:
            yield message("Tick")(seq=seq, label=request.name)
            seq += 1
