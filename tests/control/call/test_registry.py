"""Every RPC is resolved at start, or the process does not start."""

from __future__ import annotations

import pytest
from footlights.replica.v1 import replica_pb2
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2

from footlights.control.call.registry import Registry, Service, handler_name
from tests.control.harness import SERVICES

REPLICA = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"]


class Anything:
    """Has every handler."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


class Half:
    """Lacks ``find_rival``."""

    def read_log(self) -> None:
        """Do nothing."""


def test_an_rpcs_handler_has_its_name_in_snake_case() -> None:
    """Whatever is capitalised in it."""
    assert [handler_name(name) for name in ("Link", "CreateSession", "GetSessionLog")] == [
        "link", "create_session", "get_session_log",
    ]  # fmt: skip


def test_every_rpc_of_ours_has_its_permission_kind_and_types() -> None:
    """By its path."""
    descriptors = [descriptor_pool.Default().FindServiceByName(name) for name in SERVICES]
    registry = Registry([Service(descriptor, Anything()) for descriptor in descriptors])

    assert registry.services == SERVICES
    assert len(registry.rpcs) == sum(len(descriptor.methods) for descriptor in descriptors)
    link = registry.rpcs["/footlights.agent.v1.AgentService/Link"]
    assert (link.client_streaming, link.server_streaming, link.permission) == (True, True, "link.open")
    assert link.request_type.DESCRIPTOR.name == "LinkRequest"


def test_a_service_is_also_served_by_its_former_name() -> None:
    """To the release before, by the same handlers; clients are told the present name only."""
    registry = Registry([Service(REPLICA, Anything(), former_name="footlights.v1.ReplicaService")])
    present = registry.rpcs["/footlights.replica.v1.ReplicaService/FindRival"]
    former = registry.rpcs["/footlights.v1.ReplicaService/FindRival"]

    assert registry.services == ("footlights.replica.v1.ReplicaService",)
    assert (former.handler, former.request_type, former.permission) == (
        present.handler, present.request_type, present.permission,
    )  # fmt: skip


def test_an_object_that_lacks_a_handler_is_refused() -> None:
    """By the names of both."""
    with pytest.raises(
        LookupError, match=r"Half lacks the handler find_rival of footlights\.replica\.v1\.ReplicaService"
    ):
        Registry([Service(REPLICA, Half())])


def test_an_rpc_without_a_permission_is_refused() -> None:
    """It would be open to everyone."""
    health = health_pb2.DESCRIPTOR.services_by_name["Health"]
    with pytest.raises(LookupError, match=r"Health\.\w+ lacks the option footlights\.v1\.permission"):
        Registry([Service(health, Anything())])
