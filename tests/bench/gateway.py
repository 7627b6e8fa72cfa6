"""What a request to the gateway costs, beside a FastAPI application, and beside our own gateway with a socket in it.

The POST of a session: some 90 bytes in, 250 out, ten fields, a map, a timestamp, and no storage. The server is pinned
to one core and wrk to the other; a round is two seconds of every variant, one after the other, so that a neighbour's
load hits them alike. The cost of a request is the processor time of the server process, over the requests answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from google.protobuf import json_format

from footlights.gateway.decode.message_reader import STRICT
from footlights.gateway.decode.names import descriptor_of, own_name
from footlights.gateway.encode.writer import Writer
from tests.bench import gateway_apps
from tests.bench.figures import Bench, Figure

ROUNDS = 6
SECONDS = 2
CONNECTIONS = 16
CODEC_ROUNDS = 7
CODEC_CALLS = 2000
HEADERS = {
    "content-type": "application/json",
    "authorization": f"Bearer {gateway_apps.TOKEN}",
    "x-request-id": "01890000-0000-7000-8000-00000000abcd",
}


@dataclass(frozen=True, slots=True)
class _Sample:
    rps: float
    cpu_us: float
    p99_ms: float


async def measure(directory: Path) -> list[Figure]:
    """Take ``gateway_cpu_vs_fastapi``, ``gateway_rps_vs_loopback`` and what they are made of."""
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is missing: apt-get install wrk")
    script = directory / "post.lua"
    headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in HEADERS.items())
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{gateway_apps.REQUEST}'\n{headers}")
    samples: dict[str, list[_Sample]] = {variant: [] for variant in gateway_apps.VARIANTS}
    async with contextlib.AsyncExitStack() as stack:
        servers = {variant: await stack.enter_async_context(_server(variant)) for variant in samples}
        bodies = [await _answer(port) for port, _ in servers.values()]
        if not all(body == bodies[0] for body in bodies):
            raise AssertionError(f"the variants answer differently: {bodies}")
        for port, process in servers.values():
            await _load(port, process, script, 1)
        for number in range(ROUNDS):
            for variant in list(samples)[:: 1 if number % 2 else -1]:
                samples[variant].append(await _load(*servers[variant], script, SECONDS))
    ours, loopback, fastapi = (samples[variant] for variant in ("local", "loopback", "fastapi"))
    both, wire = list(zip(ours, fastapi, strict=True)), list(zip(ours, loopback, strict=True))
    return [
        Figure("gateway_cpu_vs_fastapi", [a.cpu_us / b.cpu_us for a, b in both], "",
               "processor time of a POST: gateway in process, 3 stages, over FastAPI with none", "<= 0.60"),
        Figure("gateway_rps_vs_loopback", [a.rps / b.rps for a, b in wire], "",
               "requests a second at 16 connections: in process over a loopback channel", ">= 7"),
        Figure("gateway_cpu_us", [a.cpu_us for a in ours], "us", "processor time of that POST"),
        Figure("fastapi_cpu_us", [b.cpu_us for b in fastapi], "us", "the same in FastAPI"),
        Figure("gateway_rps_c16", [a.rps for a in ours], "/s", "requests a second, one core, 16 connections"),
        Figure("gateway_p99_ms_c16", [a.p99_ms for a in ours], "ms", "99th percentile at 16 connections, saturated"),
    ]  # fmt: skip


async def measure_codec(_directory: Path) -> list[Figure]:
    """Take the codec's time over ``json_format``'s, both ways, on the messages of that POST."""
    return await asyncio.to_thread(_codec)


def _codec() -> list[Figure]:
    request_type, answer_type = gateway_apps.classes()
    request = json_format.Parse(gateway_apps.REQUEST, request_type())
    answer = gateway_apps.session(request, answer_type)
    write = Writer(spell=own_name).for_type(descriptor_of(answer))
    text = gateway_apps.REQUEST

    def our_text() -> object:
        return write(answer)

    def their_text() -> object:
        return json_format.MessageToJson(
            answer, always_print_fields_with_no_presence=True, preserving_proto_field_name=True, indent=None
        )

    def our_message() -> object:
        made = request_type()
        STRICT.read_text(text, made)
        return made

    def their_message() -> object:
        return json_format.Parse(text, request_type())

    assert json.loads(str(our_text())) == json.loads(str(their_text()))
    assert our_message() == their_message()
    figures = []
    for name, ours, theirs, what in (
        ("codec_to_json_vs_json_format", our_text, their_text, "message to JSON text"),
        ("codec_from_json_vs_json_format", our_message, their_message, "JSON text to message"),
    ):
        ratios = [_spent(ours) / _spent(theirs) for _ in range(CODEC_ROUNDS)]
        figures.append(Figure(name, ratios, "", f"{what}: the gateway's codec over json_format", "<= 0.35"))
    return figures


def _spent(call: Callable[[], object]) -> float:
    began = time.thread_time()
    for _ in range(CODEC_CALLS):
        call()
    return time.thread_time() - began


@contextlib.asynccontextmanager
async def _server(variant: str) -> AsyncIterator[tuple[int, psutil.Process]]:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.gateway_apps", variant, str(port), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield port, psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answer(port: int) -> dict[str, Any]:
    transport = httpx2.AsyncHTTPTransport()
    async with httpx2.AsyncClient(transport=transport, timeout=10, headers=HEADERS) as client:
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await client.post(f"http://127.0.0.1:{port}/v1/sessions", content=gateway_apps.REQUEST)
                    break
                except httpx2.ConnectError:
                    await asyncio.sleep(0.05)
    if answer.status_code != 200:
        raise AssertionError(f"{answer.status_code}: {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


async def _load(port: int, process: psutil.Process, script: Path, seconds: float) -> _Sample:
    cores = sorted(os.sched_getaffinity(0))
    before = process.cpu_times()
    wrk = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(cores[-1]), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency",
        "-s", str(script), f"http://127.0.0.1:{port}/v1/sessions", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output = (await wrk.communicate())[0].decode()
    after = process.cpu_times()
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", output)
    if found is None or p99 is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk failed: {output}")
    count = int(found.group(1))
    spent = (after.user + after.system) - (before.user + before.system)
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99.group(2)]
    return _Sample(count / float(found.group(2)), 1e6 * spent / count, float(p99.group(1)) * unit)


def _main() -> None:
    """Print a round's medians; for whoever makes it faster."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for figure in [*asyncio.run(measure(Path(directory))), *_codec()]:
            low, high = min(figure.samples), max(figure.samples)
            print(f"{figure.name:34} {statistics.median(figure.samples):8.3f} [{low:.3f}-{high:.3f}] {figure.unit}")


BENCH = Bench(
    ("gateway_cpu_vs_fastapi", "gateway_rps_vs_loopback", "gateway_cpu_us", "fastapi_cpu_us", "gateway_rps_c16",
     "gateway_p99_ms_c16"), measure,
)  # fmt: skip
CODEC = Bench(("codec_to_json_vs_json_format", "codec_from_json_vs_json_format"), measure_codec)

if __name__ == "__main__":
    _main()
