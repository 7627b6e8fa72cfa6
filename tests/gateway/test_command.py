"""The gateway alone, as a process, in front of servers that are not ours.

Covers `gateway.command` and `gateway.health`.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.longrunning import operations_pb2, operations_pb2_grpc  # type: ignore[import-untyped]
from google.protobuf import empty_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from footlights.gateway.command import parser, settings
from tests.conformance.echo import Echo, descriptor_set, service
from tests.gateway.handlers import grpc_handler


class Operations(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # untyped
    """google.longrunning.Operations in a few lines."""

    async def GetOperation(self, request: Any, context: Any) -> Any:
        """The first."""
        if request.name != "operations/1":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no operation {request.name}")
        found = operations_pb2.Operation(name=request.name, done=True)
        found.response.Pack(empty_pb2.Empty())
        return found

    async def CancelOperation(self, request: Any, context: Any) -> Any:
        """Nothing."""
        return empty_pb2.Empty()


@contextmanager
def upstream(certificate: Path | None = None) -> Iterator[int]:
    """A server with operations, reflection, health and the scratch service, in a thread; by TLS with a certificate."""
    ready, ports = threading.Event(), []
    pair = (certificate.with_suffix(".key").read_bytes(), certificate.read_bytes()) if certificate else None
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        operations_pb2_grpc.add_OperationsServicer_to_server(Operations(), server)
        server.add_generic_rpc_handlers((grpc_handler(service(), Echo().functions()),))
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        await status.set("", health_pb2.HealthCheckResponse.SERVING)
        await status.set("ill", health_pb2.HealthCheckResponse.NOT_SERVING)
        reflection.enable_server_reflection(["google.longrunning.Operations", reflection.SERVICE_NAME], server)
        if pair is None:
            ports.append(server.add_insecure_port("127.0.0.1:0"))
        else:
            ports.append(server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair])))
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@contextmanager
def process_and_url(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process; gives it and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "footlights", "gateway", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+$", line)
        assert found is not None, line + process.stdout.read()
        yield process, found.group()
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def command(*arguments: str) -> Iterator[str]:
    """The process; gives its URL."""
    with process_and_url(*arguments) as (_, url):
        yield url


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The upstream's port."""
    with upstream() as found:
        yield found


def get(url: str) -> httpx2.Response:
    """An answer, once the listener is there."""
    transport = httpx2.HTTPTransport(retries=5)
    with httpx2.Client(transport=transport, timeout=10) as client:
        return client.get(url)


def test_reflection(port: int) -> None:
    """
    By reflection it serves a googleapis service that it has never seen, with its pages.
    """
    with command("--reflection", "--upstream", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0", "--docs") as url:
        found = get(f"{url}/v1/operations/1")
        cancelled = httpx2.post(f"{url}/v1/operations/1:cancel", timeout=10)
        missing = get(f"{url}/v1/operations/2")
        described = get(f"{url}/openapi.json")

        assert found.json()["response"]["@type"] == "type.googleapis.com/google.protobuf.Empty"
        assert (cancelled.status_code, cancelled.json()) == (200, {})
        assert (missing.status_code, missing.json()["message"]) == (404, "no operation operations/2")
        assert "/v1/operations/{name}" in described.json()["paths"]


def test_descriptor_set(port: int, tmp_path: Path) -> None:
    """
    From a descriptor set it serves the services that are named, in the dialect that is asked for.
    """
    (tmp_path / "set.binpb").write_bytes(descriptor_set())
    arguments = [
        "--descriptor-set",
        str(tmp_path / "set.binpb"),
        "--upstream",
        f"127.0.0.1:{port}",
        "--listen",
        "127.0.0.1:0",
    ]
    with command(*arguments, "--service", "gatewaytest.v1.GatewayTest", "--strict", "--use-proto-names") as url:
        assert get(f"{url}/v1/things?num32=x").json()["details"]
        assert "update_mask" in get(f"{url}/v1/things").json()["request"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, its key beside it."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.with_suffix(".key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return path


def test_tls(certificate: Path) -> None:
    """
    It speaks TLS to both sides, and believes only the authority that it was told of.
    """
    with upstream(certificate) as port:
        arguments = ["--reflection", "--upstream", f"localhost:{port}", "--listen", "localhost:0", "--upstream-tls"]
        serve = ["--tls-certificate", str(certificate), "--tls-key", str(certificate.with_suffix(".key"))]
        with command(*arguments, *serve, "--upstream-ca", str(certificate)) as url:
            trusting = ssl.create_default_context(cafile=str(certificate))
            with httpx2.Client(verify=trusting, timeout=10) as client:
                assert url.startswith("https://localhost:")
                assert client.get(f"{url}/v1/operations/1").json()["done"] is True
            with pytest.raises(httpx2.ConnectError), httpx2.Client(timeout=10) as client:
                client.get(f"{url}/v1/operations/1")
        ended = subprocess.run(
            [sys.executable, "-m", "footlights", "gateway", *arguments], capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip

    assert (ended.returncode, f"localhost:{port}: UNAVAILABLE" in ended.stderr) == (2, True)


def test_healthz(port: int) -> None:
    """
    The upstream's health is what /healthz says: 200 serving, 503 not, 404 for a service it does not know.
    """
    with command("--reflection", "--upstream", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0") as url:
        serving, ill, unknown = (get(f"{url}/healthz{query}") for query in ("", "?service=ill", "?service=nope"))
        elsewhere = get(f"{url}/nope%0A")

    assert (serving.status_code, serving.json()) == (200, {"status": "SERVING"})
    assert (ill.status_code, ill.json()["message"]) == (503, "status:NOT_SERVING")
    assert (unknown.status_code, unknown.json()["code"]) == (404, 5)
    assert elsewhere.json()["code"] == 5


def test_an_upstream_here_is_reached_without_a_proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    gRPC would ask the proxy of the environment for it.
    """
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with command("--reflection", "--upstream", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0") as url:
        assert httpx2.get(f"{url}/v1/operations/1", trust_env=False).status_code == 200


def test_it_stops_at_once_and_says_so(port: int, tmp_path: Path) -> None:
    """
    SIGTERM: what streams ends whole, with its own last line, without an error in the log.
    """
    (tmp_path / "echo.binpb").write_bytes(descriptor_set())
    arguments = ["--descriptor-set", str(tmp_path / "echo.binpb"), "--service", service().full_name]
    with process_and_url(*arguments, "--upstream", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0") as (process, url):
        with httpx2.stream("GET", f"{url}/v1/things:watch?num32=1&flag=true", timeout=10) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.terminate()
            last = list(lines)[-1]
        output, _ = process.communicate(timeout=10)

    assert json.loads(last)["error"]["code"] == 14
    assert output == ""


def test_services_by_reflection(port: int) -> None:
    """
    Of a server's services only those that are named are served.
    """
    arguments = ["--reflection", "--upstream", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0"]
    with command(*arguments, "--service", "google.longrunning.Operations") as url:
        assert get(f"{url}/v1/operations/1").status_code == 200
    ended = subprocess.run(
        [sys.executable, "-m", "footlights.gateway", *arguments, "--service", "a.Nope"], capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip

    assert ended.returncode == 2
    assert "a.Nope" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reflection", "--upstream", "127.0.0.1:1"], "127.0.0.1:1: UNAVAILABLE"),
        (["--descriptor-set", "/nope", "--upstream", "x:1"], "/nope"),
        (["--reflection", "--upstream", "127.0.0.1:1", "--tls-key", "k"], "or neither"),
        (["--reflection", "--upstream", "127.0.0.1:1", "--listen", "here"], "HOST:PORT"),
    ],
)
def test_failures(arguments: list[str], said: str) -> None:
    """
    What is wrong is said in one line, with exit status 2.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "footlights.gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_settings() -> None:
    """
    Arguments become options.
    """
    options = settings(
        parser().parse_args(
            [
                "--reflection",
                "--upstream",
                "h:1",
                "--strict",
                "--cors-origin",
                "*",
                "--forward-header",
                "X-A",
                "--timeout",
                "3",
            ]
        )
    )

    assert options.strict
    assert options.cors_origins == ("*",)
    assert options.forward_headers == ("x-a",)
    assert options.default_timeout_s == 3
