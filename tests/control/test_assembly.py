"""A control plane as a whole: what its parts do together.

Covers ``assembly``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from footlights import errors
from footlights.client.errors import from_rpc
from tests.control.harness import Control, control, declared


async def test_stopping_ends_links_and_watches_and_refuses_what_is_new(plane: Control) -> None:
    """An agent and a watcher are told why and when to come back; the node is recorded as not linked."""
    agent = await plane.agent()
    plane.plane.stop()

    ended = await agent.ended()
    with pytest.raises(errors.Unavailable) as refused:
        await plane.create()

    for error in (ended, refused.value):
        assert (error.reason, error.retry_after_s) == ("SERVER_STOPPING", 1.0)
    await plane.unlinked()
    assert await plane.plane.pipeline.finished(5)


@pytest.mark.parametrize(
    ("roles", "served"),
    [
        (("api",), {"StreamingService", "TokenService", "ReplicaService"}),
        (("hub",), {"AgentService", "ReplicaService"}),
        (("loops",), {"ReplicaService"}),
    ],
)
async def test_a_process_serves_the_services_of_its_roles(
    tmp_path: Path, migrated: Path, roles: tuple[str, ...], served: set[str]
) -> None:
    """And no others."""
    async with control(tmp_path, migrated, roles=roles, database="postgresql://unused@localhost/unused") as running:
        names = {name.rpartition(".")[2] for name in running.plane.registry.services}

    assert names >= served
    assert ("AgentService" in names) == ("hub" in roles)
    assert ("StreamingService" in names) == ("api" in roles)


@pytest.mark.parametrize(
    ("rpc", "role"), [("v1.StreamingService/GetSession", "api"), ("v1.StreamingService/WatchSessions", "api"),
                      ("agent.v1.AgentService/Link", "hub"), ("v1.AgentService/Link", "hub")]
)  # fmt: skip
async def test_an_rpc_of_another_role_is_refused_with_its_name(
    tmp_path: Path, migrated: Path, rpc: str, role: str
) -> None:
    """Over gRPC too, whatever its kind, and before a request was sent."""
    options: dict[str, Any] = {"roles": ("loops",), "database": "postgresql://unused@localhost/unused"}
    async with control(tmp_path, migrated, **options) as running:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(running.plane.grpc_handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_stream(f"/footlights.{rpc}")()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
        await server.stop(None)

    error = declared(from_rpc(caught.value))
    assert (type(error), error.reason, error.metadata) == (errors.Unimplemented, "ROLE_NOT_SERVED", {"role": role})
