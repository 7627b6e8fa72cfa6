"""What the REST gateway adds: the latency of GetSession over REST and over gRPC, against the same server process.

Both sides are the leanest blocking client there is, one connection kept open, one call at a time: a socket with a
prepared request for REST, a unary stub of grpcio for gRPC. Blocks of calls alternate, so that both meet the same noise.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from footlights.v1.session_pb2 import GetSessionRequest
from footlights.v1.session_pb2_grpc import StreamingServiceStub

from tests.bench.figures import Bench, Figure
from tests.system.stack import Stack

ROUNDS = 7
CALLS = 300
WARM_UP = 100


async def measure(directory: Path) -> list[Figure]:
    """Take ``rest_vs_grpc_p50`` and the two latencies that it is made of."""
    async with Stack(directory) as stack:
        await stack.start_agent("node-a", "--launchers", "fake", "--devices", "software", "--software-devices", "1")
        await stack.register_fake()
        session_id = str((await stack.post("/stream", {"application": "fake"}))["session_id"])
        await stack.session_in(session_id, "READY")
        return await asyncio.to_thread(_measure, stack, session_id)


def _measure(stack: Stack, session_id: str) -> list[Figure]:
    rest_s: list[float] = []
    grpc_s: list[float] = []
    with _RestCaller(stack.http, stack.token, session_id) as rest, grpc.insecure_channel(stack.grpc) as channel:
        get = StreamingServiceStub(channel).GetSession
        request, metadata = GetSessionRequest(session_id=session_id), (("authorization", f"Bearer {stack.token}"),)

        def over_grpc() -> None:
            get(request, metadata=metadata, timeout=10)

        for call in (rest, over_grpc):
            _p50(call, WARM_UP)
        for number in range(ROUNDS):
            # Who goes first alternates too: what one leaves behind must not always hit the other.
            for call, samples in ((rest, rest_s), (over_grpc, grpc_s))[:: 1 if number % 2 else -1]:
                samples.append(_p50(call, CALLS))
    ratios = [rest / grpc for rest, grpc in zip(rest_s, grpc_s, strict=True)]
    return [
        Figure("rest_vs_grpc_p50", ratios, "", "p50 latency of GetSession, REST over gRPC, same server", "< 1"),
        Figure("rest_get_p50_ms", [1e3 * s for s in rest_s], "ms", "GetSession over REST, one at a time"),
        Figure("grpc_get_p50_ms", [1e3 * s for s in grpc_s], "ms", "GetSession over gRPC, one at a time"),
    ]


def _p50(call: Callable[[], None], count: int) -> float:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


class _RestCaller:
    """GET /stream/{session_id} again and again on one connection."""

    def __init__(self, origin: str, token: str, session_id: str) -> None:
        url = urlsplit(origin)
        assert url.hostname is not None
        self._socket = socket.create_connection((url.hostname, url.port or 80), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = (f"GET /stream/{session_id} HTTP/1.1", f"Host: {url.netloc}", f"Authorization: Bearer {token}", "", "")
        self._request = "\r\n".join(lines).encode()

    def __call__(self) -> None:
        """Make one call; fail unless it is answered with 200 and a whole body."""
        self._socket.sendall(self._request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), received
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self._more()

    def __enter__(self) -> _RestCaller:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        received = self._socket.recv(65536)
        assert received, "the server closed the connection"
        return received


BENCH = Bench(("rest_vs_grpc_p50", "rest_get_p50_ms", "grpc_get_p50_ms"), measure)
