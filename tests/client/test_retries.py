"""What the client does when a server answers UNAVAILABLE: of scripted servers and of our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from footlights.v1 import node_pb2, session_pb2, token_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import MethodOptions

from footlights import errors
from footlights.auth.roles import Caller, Role
from footlights.client import Client
from footlights.client.retries import SERVICE_CONFIG, repeatable, with_request_id
from footlights.control.call.grpc_adapter import MAX_PUSHBACK_S, grpc_handlers
from footlights.control.call.pipeline import Pipeline
from footlights.control.call.registry import Registry, Service
from footlights.control.observability.metrics import Metrics
from tests.client.standin import Standin
from tests.client.test_client import CALLS, METHODS
from tests.contract import descriptors
from tests.protocol.test_former import POOL


@pytest.fixture
def standin() -> Iterator[Standin]:
    yield from Standin().serve()


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[Client]:
    async with Client.connect(standin.address, "fl_secret") as client:
        yield client


def failing(times: int, answer: Any) -> Callable[[Any], Any]:
    """An answer after some failures."""
    left = [times]

    def answered(_: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise errors.Unavailable("no")
        return answer

    return answered


ONCE = {"CreateToken", "CreateVersion", "ExtendSession"}
"""What a server of the release before would do twice."""


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[name for name, _ in CALLS])
async def test_a_call_that_meets_unavailable_is_tried_again(
    standin: Standin, client: Client, method: str, call: Callable[[Client], Any]
) -> None:
    """Reads, and writes with the same request_id in every try: the second one has no second effect."""
    standin.on(method, failing(2, message_factory.GetMessageClass(METHODS[method].output_type)()))
    if method in ONCE:
        with pytest.raises(errors.Unavailable):
            await call(client)
        assert len(standin.requests(method)) == 1
        return

    await call(client)

    requests = standin.requests(method)
    assert len(requests) == 3
    if "request_id" in METHODS[method].input_type.fields_by_name:
        assert len({request.request_id for request in requests}) == 1
        assert len(requests[0].request_id) >= 16


def test_a_write_that_is_not_idempotent_is_repeated_only_if_every_server_recognises_it() -> None:
    """By the descriptors of the release before: no second session is created. Its client repeats drains, too."""
    repeated = {
        method.name
        for method in descriptors.public_methods()
        if method.full_name.startswith("footlights.v1.")
        and method.GetOptions().idempotency_level == MethodOptions.IDEMPOTENCY_UNKNOWN
        and repeatable(method)
    }
    before = {method for method in repeated if _was_there(f"footlights.v1.{method}Request")}
    known = {
        method
        for method in before
        if "request_id" in POOL.FindMessageTypeByName(f"footlights.v1.{method}Request").fields_by_name
    }

    assert before - known == {"DrainNode"}
    assert "CreateSession" in known


def _was_there(message: str) -> bool:
    try:
        POOL.FindMessageTypeByName(message)
    except KeyError:
        return False
    return True


async def test_a_call_is_not_tried_for_ever(standin: Standin, client: Client) -> None:
    """Four times, within a second or two; then the server's own error is raised."""
    standin.on("ListNodes", errors.Unavailable("no", reason=errors.Reason.STORE_UNAVAILABLE))

    with pytest.raises(errors.Unavailable) as caught:
        await client.nodes.list()

    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert len(standin.requests("ListNodes")) == 4


@pytest.mark.parametrize("kind", [errors.Conflict, errors.Exhausted, errors.Internal, errors.FailedPrecondition])
async def test_other_errors_are_raised_at_once(standin: Standin, client: Client, kind: type[errors.Error]) -> None:
    """They do not get better by themselves, or the caller has to read again first."""
    standin.on("ListNodes", kind("no"))

    with pytest.raises(kind):
        await client.nodes.list()

    assert len(standin.requests("ListNodes")) == 1


def test_a_request_keeps_the_id_that_it_has() -> None:
    """The caller's own id is not replaced, and the caller's message is not changed; messages without one pass."""
    mine = session_pb2.CreateSessionRequest(application="a", request_id="mine")
    without = token_pb2.CreateTokenRequest(subject="ada")
    read = node_pb2.GetNodeRequest(node="n")

    assert with_request_id(mine) is mine
    assert with_request_id(read) is read
    assert with_request_id(without).request_id
    assert without.request_id == ""


def test_the_service_config_names_what_may_be_repeated() -> None:
    """Every RPC whose level or request_id makes it safe, by the names that gRPC compares with."""
    (config,) = json.loads(SERVICE_CONFIG)["methodConfig"]
    named = {f"{name['service']}.{name['method']}" for name in config["name"]}

    assert named == {
        method.full_name
        for method in descriptors.public_methods()
        if repeatable(method) and method.full_name.startswith("footlights.v1.")
    }


# The real server


class Nodes:
    """A node service whose calls fail first."""

    def __init__(self) -> None:
        self.failures: list[errors.Error] = []
        self.calls = 0

    async def list_nodes(self, request: node_pb2.ListNodesRequest, call: Any) -> node_pb2.ListNodesResponse:
        self.calls += 1
        if self.failures:
            raise self.failures.pop()
        return node_pb2.ListNodesResponse()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.list_nodes


class Anybody:
    """An authenticator that knows one operator."""

    async def caller(self, authorization: str, certificate: bytes = b"") -> Caller:
        return Caller("ann", Role.OPERATOR, "")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Nodes, Client]]:
    nodes = Nodes()
    service = descriptor_pool.Default().FindServiceByName("footlights.v1.NodeService")
    server = grpc.aio.server()
    registry = Registry([Service(service, nodes)])
    server.add_generic_rpc_handlers(grpc_handlers(registry, Pipeline(Anybody(), Metrics())))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client.connect(f"127.0.0.1:{port}", "t") as client:
            yield nodes, client
    finally:
        await server.stop(0)


async def test_an_error_of_the_real_server_can_be_retried() -> None:
    """It comes as a status alone: after initial metadata gRPC would retry nothing."""
    async with served() as (nodes, client):
        nodes.failures = [errors.Unavailable("no"), errors.Unavailable("no")]
        await client.nodes.list()

        assert nodes.calls == 3


async def test_the_servers_delay_is_waited_for() -> None:
    """A short retry_after comes before the pause of the policy, and is not shortened."""
    async with served() as (nodes, client):
        nodes.failures = [errors.Unavailable("no", retry_after_s=1.2)]
        started = asyncio.get_running_loop().time()
        await client.nodes.list()

        assert nodes.calls == 2
        assert asyncio.get_running_loop().time() - started >= 1.2


@pytest.mark.parametrize(("retry_after_s", "timeout_s"), [(MAX_PUSHBACK_S + 1, 30), (1.5, 1.0)])
async def test_a_delay_that_is_too_long_is_the_callers_to_decide(retry_after_s: float, timeout_s: float) -> None:
    """Longer than gRPC should wait, or than the call may take: the error is raised at once, with the delay."""
    async with served() as (nodes, client):
        nodes.failures = [errors.Unavailable("no", reason=errors.Reason.STORE_UNAVAILABLE, retry_after_s=retry_after_s)]
        with pytest.raises(errors.Unavailable) as caught:
            await client.nodes.list(timeout_s=timeout_s)

        assert nodes.calls == 1
        assert (caught.value.reason, caught.value.retry_after_s) == ("STORE_UNAVAILABLE", retry_after_s)
