"""Stopping under load: clients are told to come back, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import httpx2
import pytest
from footlights.v1 import session_pb2, session_pb2_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tests.store.databases import postgres
from tests.system.replicas import ReplicaSet
from tests.system.stack import JSON, Process, Stack, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 8
BODY = {"application": "fake"}


class Load:
    """Clients that list and create over kept connections, as fast as they are answered."""

    def __init__(self, token: str, bases: list[str]) -> None:
        self.bases = bases
        self.outcomes: Counter[str] = Counter()
        self.created: list[str] = []
        self.running = True
        self._headers = {"Authorization": f"Bearer {token}"}

    async def run(self, count: int = CLIENTS) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        turn = number
        clients = [httpx2.AsyncClient(base_url=base, headers=self._headers, timeout=30) for base in self.bases]
        try:
            while self.running:
                client = clients[turn % len(clients)]
                if not await self._request(client, turn):
                    # The next one, as a load balancer would, after a moment.
                    await asyncio.sleep(0.01)
                turn += 1
        finally:
            for client in clients:
                await client.aclose()

    async def _request(self, client: httpx2.AsyncClient, turn: int) -> bool:
        """Send one request; say whether it was served."""
        try:
            if turn % 4:
                answer = await client.get("/stream", params={"limit": 5})
            else:
                answer = await client.post("/stream", json=BODY)
        except httpx2.ConnectError:
            self.outcomes["refused"] += 1
            return False
        except httpx2.HTTPError as error:
            self.outcomes[f"{type(error).__name__}: {error}"] += 1
            return False
        self.outcomes[str(answer.status_code)] += 1
        if answer.status_code == 503:
            assert "retry-after" in answer.headers, answer.headers
        if turn % 4 == 0 and answer.status_code in (200, 202):
            self.created.append(answer.json()["session_id"])
        return answer.status_code in (200, 202)


def _no_traceback(process: Process) -> None:
    text = process.log.read_text(errors="replace")
    assert "Traceback" not in text, text[-6000:]


async def _watch_rest(base: str, token: str) -> JSON:
    """Watch sessions until the stream ends; return its last line."""
    last = ""
    async with (
        httpx2.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client,
        client.stream("GET", "/stream:watch") as response,
    ):
        async for line in response.aiter_lines():
            last = line or last
    return dict(json.loads(last))


async def _watch_grpc(address: str, token: str) -> grpc.aio.AioRpcError:
    """Watch sessions over gRPC until the stream fails; return how."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = session_pb2_grpc.StreamingServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),)
        call = stub.WatchSessions(session_pb2.WatchSessionsRequest(), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        return caught.value


async def _health(address: str, seen: list[int]) -> None:
    """Follow the server's health until it is gone."""
    async with grpc.aio.insecure_channel(address) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                seen.append(answer.status)  # noqa: PERF401 - read while it grows


async def test_a_server_that_stops_under_load_breaks_nothing(tmp_path: Path) -> None:
    """SIGTERM: no 500, no reset and no traceback; watches end with UNAVAILABLE and a retry hint; health turns."""
    async with Stack(tmp_path) as stack:
        await stack.start_agent("node-a", "--launchers", "fake", "--software-devices", "8")
        await stack.register_fake()
        load = Load(stack.token, [stack.http])
        health: list[int] = []
        loaded = asyncio.create_task(load.run())
        rest = asyncio.create_task(_watch_rest(stack.http, stack.token))
        over_grpc = asyncio.create_task(_watch_grpc(stack.grpc, stack.token))
        watching = asyncio.create_task(_health(stack.grpc, health))

        async def busy() -> bool:
            return load.outcomes["200"] + load.outcomes["202"] > 200 and bool(health)

        await until(busy, what="the load is under way")
        server = stack.server
        assert server is not None
        server.kill(signal.SIGTERM)
        assert await asyncio.wait_for(server.process.wait(), 30) == 0
        load.running = False
        await loaded

        assert set(load.outcomes) <= {"200", "202", "503", "refused"}, load.outcomes
        last = await asyncio.wait_for(rest, 10)
        assert last["error"]["code"] == 14, last
        assert any("RetryInfo" in detail["@type"] for detail in last["error"]["details"]), last
        failure = await asyncio.wait_for(over_grpc, 10)
        assert failure.code() is grpc.StatusCode.UNAVAILABLE, failure
        status = rpc_status.from_call(failure)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details), status
        await asyncio.wait_for(watching, 10)
        assert health[-1] == health_pb2.HealthCheckResponse.NOT_SERVING, health
        _no_traceback(server)

        # What was answered is there after a start.
        await stack.start_server()
        for session_id in load.created:
            assert (await stack.call("GET", f"/stream/{session_id}")).status_code in (200, 202)
        _no_traceback(stack.agents["node-a"])


async def test_a_rolling_restart_shows_clients_that_retry_on_503_nothing(tmp_path: Path) -> None:
    """Two replicas restarted one after the other under load: only 503 and refused connections, and nothing is lost."""
    with postgres() as database:
        async with ReplicaSet(tmp_path, database.create(), count=2) as fleet:
            assert isinstance(fleet, ReplicaSet)
            await fleet.start_agent("node-a", "--launchers", "fake", "--software-devices", "8")
            await fleet.register_fake()
            load = Load(fleet.token, [replica.http for replica in fleet.replicas.values()])
            loaded = asyncio.create_task(load.run())
            for name in list(fleet.replicas):
                served = load.outcomes["200"]

                async def busy(served: int = served) -> bool:
                    return load.outcomes["200"] > served + 100

                await until(busy, what="the load is served")
                process = fleet.replicas[name].process
                process.kill(signal.SIGTERM)
                assert await asyncio.wait_for(process.process.wait(), 30) == 0
                _no_traceback(process)
                await fleet.start_replica(name)
            load.running = False
            await loaded
            assert set(load.outcomes) <= {"200", "202", "503", "refused"}, load.outcomes
            found = fleet.rows("SELECT session_id FROM session")
            assert set(load.created) <= {row[0] for row in found}
