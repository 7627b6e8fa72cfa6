"""Roles, the permissions that each one holds, and the caller.

A permission is what the ``footlights.v1.permission`` option of an RPC names; the interceptor asks ``Caller.may``. Three
more are asked for by servicers, where it depends on the request: ``sessions.all`` (see and end everybody's sessions),
``sessions.create_for_others`` (``username`` other than one's own), ``sessions.priority`` (``priority`` above 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from footlights.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Mapping


class Role(StrEnum):
    """What a token lets its holder do; the names are ``footlights.v1.Token.Role``'s."""

    DEVELOPER = "DEVELOPER"
    """Creates sessions, and sees and ends its own."""
    SERVICE = "SERVICE"
    """Creates sessions for others, and sees and ends all."""
    OPERATOR = "OPERATOR"
    """Everything that a person or service may do; the only one to register versions and to see nodes."""
    NODE = "NODE"
    """Speaks for one node as its agent, and nothing else."""
    REPLICA = "REPLICA"
    """Another replica of this control plane; proved by the cluster's key, and no token has it."""


_OWN_SESSIONS: Final = frozenset(
    {
        "caller.read",
        "sessions.read",
        "sessions.create",
        "sessions.terminate",
        "sessions.connect",
        "sessions.extend",
        "applications.read",
        "profiles.read",
    }
)
_ALL_SESSIONS: Final = _OWN_SESSIONS | {"sessions.all", "sessions.create_for_others", "sessions.priority"}
_EVERYTHING: Final = _ALL_SESSIONS | {
    "applications.write",
    "profiles.write",
    "nodes.read",
    "nodes.write",
    "tokens.read",
    "tokens.write",
}

PERMISSIONS: Final[Mapping[Role, frozenset[str]]] = MappingProxyType(
    {
        Role.DEVELOPER: _OWN_SESSIONS,
        Role.SERVICE: _ALL_SESSIONS,
        # Not link.open: a link speaks for the one node that its token names, and an operator's names none.
        Role.OPERATOR: _EVERYTHING,
        Role.NODE: frozenset({"link.open"}),
        Role.REPLICA: frozenset({"replicas.call"}),
    }
)
"""Role -> the permissions that it holds."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, once its token is proved."""

    subject: str
    """The name that its sessions carry, or the node's name."""
    role: Role
    token_id: str

    @property
    def permissions(self) -> frozenset[str]:
        """What its role lets it do."""
        return PERMISSIONS[self.role]

    def may(self, permission: str) -> bool:
        """Whether its role holds ``permission``. The empty permission is held by nobody."""
        return permission in self.permissions

    def require(self, permission: str) -> None:
        """Raise ``PermissionDenied`` (reason ``ROLE_LACKS_PERMISSION``) where its role does not hold ``permission``."""
        if self.may(permission):
            return
        holders = [role.value for role, held in PERMISSIONS.items() if permission in held and role is not Role.REPLICA]
        fix = f"use a token with role {' or '.join(holders)}" if holders else "no role may do this"
        raise PermissionDenied(
            f"{self.subject} has role {self.role.value}, which lacks the permission {permission}: {fix}.",
            reason="ROLE_LACKS_PERMISSION",
            metadata={"subject": self.subject, "role": self.role.value, "permission": permission},
        )
