"""Which sessions may take an instance that was started ahead, for a pool, and with what that is started.

An instance has a *shape*: application, version, profile, needs and launcher. A session of that shape takes it, at any
isolation that it does not lower, with the default arguments; and with any stage that reaches an application which runs
already: by HTTP, or by a message of its client.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.struct_pb2 import Struct

from footlights import errors
from footlights.control import stored
from footlights.control.services.sessions import resolve
from footlights.launch.recipe.arguments import STAGE
from footlights.launch.recipe.limits import limit_s, time_limits
from footlights.protocol.isolation import Isolation
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.auth.secrets import Box
    from footlights.control.services.sessions.resolve import Arguments, Resolved


_LATE: Final = (application_pb2.StageDelivery.HTTP, application_pb2.StageDelivery.MESSAGE)
"""How a stage reaches an application that runs already."""


def shapes(resolved: Resolved) -> tuple[str, ...]:
    """Return the shapes of instances that a session would take, its own first: others are isolated more."""
    least, kept = resolved.needs.isolation or Isolation.NONE, _kept(resolved)
    levels: list[int] = [level for level in Isolation if level >= least]
    return tuple(_shape(resolved.needs, level, kept) for level in levels or (least,))


def takes(resolved: Resolved, given: Arguments, profile_secrets: Mapping[str, str]) -> bool:
    """Return whether a session with these arguments may take an instance that was started with the default ones.

    A secret of its own would not reach an application that runs; those of its profile it has.
    """
    started = default_arguments(resolved, profile_secrets)
    if started is None or given.secrets != started.secrets:
        return False
    stage = given.usd_stage_uri == started.usd_stage_uri or resolved.version.stage_delivery.method in _LATE
    return stage and _beside_stage(given) == _beside_stage(started)


def default_arguments(resolved: Resolved, profile_secrets: Mapping[str, str]) -> Arguments | None:
    """Return what an instance is started with; None where an argument has to be given."""
    try:
        return resolve.arguments(resolved, Struct(), profile_secrets)
    except errors.InvalidArgument:
        return None


def values(resolved: Resolved, pool: str, box: Box) -> dict[str, Any]:
    """Return the columns of an instance that is started ahead for a pool, without its id and its secrets.

    Raises FailedPrecondition where the version needs what only a session can give.
    """
    arguments = default_arguments(resolved, resolve.opened_secrets(resolved, box))
    if arguments is None:
        raise errors.FailedPrecondition(
            f"pool.application_version: {resolved.version.application} {resolved.version.version} needs an argument "
            "that has no default, so no instance of it can be started before there is a session. Give the argument a "
            "default, or choose another.",
            reason=errors.Reason.NOT_STARTED_AHEAD,
            metadata={"field": "pool.application_version"},
        )
    return {
        "application": resolved.version.application,
        "application_version": resolved.version.version,
        "username": "",
        "created_by": "",
        "profile": resolved.profile,
        "arguments": arguments.shown,
        "usd_stage_uri": arguments.usd_stage_uri,
        "needs": resolved.needs.SerializeToString(),
        "limits": stored.packed_limits(resolved.limits),
        "allowed_limits": stored.packed_limits(resolved.limits),
        "max_total_s": time_limits(resolved.limits).max_s,
        "launcher": resolved.launcher,
        "given": arguments.given,
        "environment": resolved.environment,
        "pool": pool,
        "shape": shapes(resolved)[0],
    }


def secrets(resolved: Resolved, session_id: str, box: Box) -> bytes:
    """Return the secrets that an instance is started with, sealed for it: those of its profile."""
    arguments = default_arguments(resolved, resolve.opened_secrets(resolved, box))
    if arguments is None or not arguments.secrets:
        return b""
    return box.seal(json.dumps(arguments.secrets).encode(), session_id.encode())


def _kept(resolved: Resolved) -> tuple[str, ...]:
    """Return what an instance is started with and keeps, beside its needs.

    Also of its profile, which may change: that gives the version its variables and defaults. The grace period is in its
    plan; other limits are the session's own.
    """
    version = resolved.version
    return (
        version.application,
        version.version,
        resolved.profile,
        resolved.launcher,
        repr(limit_s(resolved.limits, "stop_grace_period")),
        hashlib.sha256(version.SerializeToString(deterministic=True)).hexdigest(),
        # As they are sealed: of a profile whose secrets were set again, instances are started again.
        hashlib.sha256(resolved.secrets or b"").hexdigest(),
    )


def _shape(needs: application_pb2.Needs, isolation: int, kept: tuple[str, ...]) -> str:
    isolated = application_pb2.Needs()
    isolated.CopyFrom(needs)
    isolated.isolation = isolation  # type: ignore[assignment]  # the numbers are the same
    parts = (isolated.SerializeToString(deterministic=True).hex(), *kept)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _beside_stage(given: Arguments) -> dict[str, Any]:
    return {name: value for name, value in given.shown.items() if name != STAGE}
