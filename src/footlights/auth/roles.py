"""Roles, the permissions of each role, and the caller.

The ``footlights.v1.permission`` option of an RPC names the permission that it requires; the call pipeline checks it
with ``Caller.may``. Handlers check four more, which depend on the request: ``sessions.all`` (see and end all
sessions), ``sessions.create_for_others`` (a ``username`` other than one's own), ``sessions.priority`` (``priority``
above 0) and ``sessions.any_isolation`` (sessions that are isolated less than the server's ``--min-isolation``).
``metrics.read`` is for what HTTP serves beside the API.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from footlights.errors import PermissionDenied, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.auth.authority import CertificateIdentity


class Role(StrEnum):
    """The role of a token's holder; the names are those of ``footlights.v1.Token.Role``."""

    DEVELOPER = "DEVELOPER"
    """Creates sessions, and sees and ends its own."""
    SERVICE = "SERVICE"
    """Creates sessions for others, and sees and ends all."""
    OPERATOR = "OPERATOR"
    """Everything that a person or service may do; only operators register versions and see nodes."""
    NODE = "NODE"
    """Opens the link of one node's agent, and nothing else."""
    REPLICA = "REPLICA"
    """Another replica of this control plane; proved by the cluster key or its certificate, never by a token."""
    ANYONE = "ANYONE"
    """Who shows nothing: an invited agent, which proves in its request that it knows its code."""


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
        "pools.read",
    }
)
_ALL_SESSIONS: Final = _OWN_SESSIONS | {"sessions.all", "sessions.create_for_others", "sessions.priority"}
_EVERYTHING: Final = _ALL_SESSIONS | {
    "sessions.any_isolation",
    "applications.write",
    "profiles.write",
    "pools.write",
    "nodes.read",
    "nodes.write",
    "tokens.read",
    "tokens.write",
    "metrics.read",
}

PERMISSIONS: Final[Mapping[Role, frozenset[str]]] = MappingProxyType(
    {
        Role.DEVELOPER: _OWN_SESSIONS,
        Role.SERVICE: _ALL_SESSIONS,
        # Not link.open: a link belongs to the node that its token names, and an operator's token names none.
        Role.OPERATOR: _EVERYTHING,
        Role.NODE: frozenset({"link.open"}),
        Role.REPLICA: frozenset({"replicas.call"}),
        Role.ANYONE: frozenset({"nodes.enroll"}),
    }
)
"""The permissions of each role."""


def is_open(permission: str) -> bool:
    """Return whether an RPC with this permission is for callers that show nothing."""
    return permission in PERMISSIONS[Role.ANYONE]


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated sender of a request."""

    subject: str
    """The owner of its sessions, or the node's name."""
    role: Role
    token_id: str
    certificate: CertificateIdentity | None = None
    """What it has proved itself with; None where it was not a certificate."""

    @property
    def permissions(self) -> frozenset[str]:
        """The permissions of its role."""
        return PERMISSIONS[self.role]

    def may(self, permission: str) -> bool:
        """Return whether its role holds ``permission``. No role holds the empty permission."""
        return permission in self.permissions

    def require(self, permission: str) -> None:
        """Raise ``PermissionDenied`` (reason ``ROLE_LACKS_PERMISSION``) unless its role holds ``permission``."""
        if self.may(permission):
            return
        unnamed = (Role.REPLICA, Role.ANYONE)
        holders = [role.value for role, held in PERMISSIONS.items() if permission in held and role not in unnamed]
        fix = f"use a token with role {' or '.join(holders)}" if holders else "no role has it"
        raise PermissionDenied(
            f"{self.subject} has role {self.role.value}, which lacks the permission {permission}: {fix}.",
            reason=Reason.ROLE_LACKS_PERMISSION,
            metadata={"subject": self.subject, "role": self.role.value, "permission": permission},
        )


ANYONE: Final = Caller("anyone", Role.ANYONE, "")
"""The caller that shows nothing."""
