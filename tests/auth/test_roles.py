"""Roles and permissions."""

from __future__ import annotations

import pytest
from footlights.agent.v1 import agent_pb2, certificate_pb2
from footlights.replica.v1 import replica_pb2
from footlights.v1 import (
    application_pb2,
    enrollment_pb2,
    node_pb2,
    permission_pb2,
    pool_pb2,
    profile_pb2,
    session_pb2,
    token_pb2,
)
from google.protobuf.descriptor import MethodDescriptor

from footlights.auth.roles import PERMISSIONS, Caller, Role, is_open
from footlights.errors import PermissionDenied

METHODS: list[MethodDescriptor] = [
    method
    for module in (
        agent_pb2,
        application_pb2,
        certificate_pb2,
        enrollment_pb2,
        node_pb2,
        pool_pb2,
        profile_pb2,
        replica_pb2,
        session_pb2,
        token_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
SERVICER_SCOPES = {
    "sessions.all",
    "sessions.create_for_others",
    "sessions.priority",
    "sessions.any_isolation",
    "metrics.read",
}


def permission_of(method: MethodDescriptor) -> str:
    return str(method.GetOptions().Extensions[permission_pb2.permission])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_names_a_permission_that_some_role_holds(method: MethodDescriptor) -> None:
    """No RPC is open to everybody, and none is closed to everybody."""
    permission = permission_of(method)

    assert permission
    assert any(permission in held for held in PERMISSIONS.values())


def test_what_is_open_to_anybody_is_enrolling_alone() -> None:
    """Who enrolls has nothing to show yet, and proves in its request that it knows a code, or is in a pod."""
    assert [method.full_name for method in METHODS if is_open(permission_of(method))] == [
        "footlights.agent.v1.CertificateService.Enroll",
        "footlights.agent.v1.CertificateService.EnrollPod",
    ]


def test_every_permission_is_asked_for_by_something() -> None:
    """No role holds a permission that no RPC and no servicer asks for: a typo would hide there."""
    asked = {permission_of(method) for method in METHODS} | SERVICER_SCOPES

    assert set().union(*PERMISSIONS.values()) == asked


def test_roles_are_the_protos() -> None:
    """The enum has exactly the names of footlights.v1.Token.Role, and those that no token can have."""
    names = set(token_pb2.Token.Role.keys()) - {"ROLE_UNSPECIFIED"}

    assert {role.value for role in Role} == names | {"REPLICA", "ANYONE"} == {role.value for role in PERMISSIONS}


def test_developers_see_no_nodes_and_no_other_users_sessions() -> None:
    """A developer may not see nodes, tokens or other people's sessions, nor jump the queue."""
    developer = Caller("ada", Role.DEVELOPER, "t1")

    refused = ["nodes.read", "tokens.read", "applications.write", *SERVICER_SCOPES]
    assert [developer.may(permission) for permission in refused] == [False] * len(refused)


def test_a_node_may_open_its_link_and_nothing_else() -> None:
    """An agent's token opens no session and reads nothing; and no person's token opens a link."""
    assert Caller("node-1", Role.NODE, "t").permissions == {"link.open"}
    assert [role for role in Role if Caller("x", role, "t").may("link.open")] == [Role.NODE]


def test_the_empty_permission_is_held_by_no_role() -> None:
    """An RPC without the option is refused to everybody, operators too."""
    assert not Caller("root", Role.OPERATOR, "t").may("")


def test_require_says_who_lacks_what_and_which_role_would_do() -> None:
    """The refusal names subject, role, permission and the fix."""
    with pytest.raises(PermissionDenied) as caught:
        Caller("ada", Role.DEVELOPER, "t").require("nodes.write")

    assert caught.value.reason == "ROLE_LACKS_PERMISSION"
    assert caught.value.metadata == {"subject": "ada", "role": "DEVELOPER", "permission": "nodes.write"}
    assert "OPERATOR" in caught.value.message
