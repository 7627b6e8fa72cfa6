"""Resolves what a request names to what will run: version, profile, needs, limits, arguments."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from footlights import errors
from footlights.control import stored
from footlights.control.dispatch.assignments import Recipe
from footlights.launch.launchers import placed_by
from footlights.launch.recipe import limits as recipe_limits
from footlights.launch.recipe import nucleus, overrides
from footlights.launch.recipe.arguments import NUCLEUS, STAGE, check_secrets, convert_arguments
from footlights.launch.recipe.stages import resolve_stage, without_query
from footlights.protocol.bounds import bound
from footlights.protocol.isolation import Isolation
from footlights.store import Transaction, applications, pools
from footlights.store.cluster.sealed_values import PROFILE_SECRETS
from footlights.v1 import application_pb2, pool_pb2, profile_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.struct_pb2 import Struct

    from footlights.auth.roles import Caller
    from footlights.auth.secrets import Box
    from footlights.control.settings import ServerSettings

DEFAULT_SLOTS = 1
DEFAULT_RELEASE = "default"
CLEARABLE = ("device_names", "node_labels")
"""The needs that have no value by which a profile could relax them."""

REDACTED = "[redacted]"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version with what applies."""

    version: application_pb2.Version
    """As the profile has it: with its variables, and its values as the defaults of arguments."""
    profile: str
    needs: application_pb2.Needs
    limits: application_pb2.Limits
    recipe: Recipe
    """The version as agents are sent it."""
    pooled: bool = False
    """Whether there are pools of the application."""
    environment: bytes | None = None
    """What the profile adds to the version's environment, as a session keeps it; None: nothing."""
    secrets: bytes | None = field(default=None, repr=False)
    """The profile's secrets, sealed."""

    @property
    def launcher(self) -> str:
        """The launcher that a node must offer for it, as `launchers.placed_by` says."""
        return placed_by(self.version)


@dataclass(frozen=True, slots=True)
class Arguments:
    """A session's arguments, converted."""

    shown: dict[str, Any]
    """What callers see. The application gets the same, with its secrets in place of ``REDACTED``."""
    secrets: dict[str, Any]
    usd_stage_uri: str
    environment: bytes = b""

    @property
    def given(self) -> str:
        """Stands for what was given: of two sessions that differ, in more than their secrets, so do these."""
        text = json.dumps([self.shown, self.usd_stage_uri], sort_keys=True) + self.environment.hex()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve(
    tx: Transaction,
    application: str,
    version: str,
    profile: str,
    *,
    installation: recipe_limits.InstallationLimits,
) -> Resolved:
    """Find a version by release or name, and apply a profile.

    Raises NotFound where the application, version or profile is unknown; FailedPrecondition where the profile is not
    for this version, or its needs are more than a node is sent.
    """
    row = applications.get(tx, application)
    if row is None:
        known = ", ".join(found.application for found in applications.page(tx, "", 10).rows) or "none is registered"
        raise errors.NotFound(
            f"application: there is no application {application!r}. Known: {known}.",
            reason=errors.Reason.APPLICATION_NOT_FOUND,
            metadata={"field": "application", "application": application},
        )
    release = applications.release(tx, application, version)
    found = applications.version(tx, application, release.version if release else version)
    if found is None:
        releases = [f"{known.release} (a release)" for known in applications.releases(tx, application)]
        versions = sorted(applications.version_names(tx, application))
        raise errors.NotFound(
            f"application_version: {application} has no version or release {version!r}. "
            f"Known: {', '.join([*releases, *versions][:12]) or 'none is registered'}.",
            reason=errors.Reason.VERSION_NOT_FOUND,
            metadata={"field": "application_version", "application": application, "version": version},
        )
    message = stored.version(application, found.recipe, found.created_time)
    needs, limits = application_pb2.Needs(), application_pb2.Limits()
    needs.CopyFrom(message.needs)
    limits.CopyFrom(message.limits)
    environment = secrets = None
    if profile:
        chosen, secrets = _profile(tx, profile, message)
        _override_needs(needs, chosen.needs)
        recipe_limits.override(limits, chosen.limits)
        if chosen.environment or chosen.secrets or chosen.arguments:
            message = overrides.applied(message, chosen)
        if chosen.environment:
            environment = application_pb2.Version(environment=chosen.environment).SerializeToString(deterministic=True)
    needs.slots = needs.slots or DEFAULT_SLOTS
    installation.complete(limits)
    size, most = needs.ByteSize(), bound("Assignment", "needs").size
    if size > most:
        raise errors.FailedPrecondition(
            f"The needs of {application} {message.version} with the profile are {size} bytes: no node is sent more "
            f"than {most}. Shorten them.",
            reason=errors.Reason.ASSIGNMENT_TOO_LARGE,
            metadata={"fields": "needs"},
        )
    recipe = Recipe.of(stored.version(application, found.recipe, found.created_time), environment)
    pooled = pools.any_of(tx, application)
    return Resolved(message, profile, needs, limits, recipe, pooled=pooled, environment=environment, secrets=secrets)


def resolve_pool(tx: Transaction, pool: pool_pb2.Pool, settings: ServerSettings) -> Resolved:
    """Return what instances of a pool are of, isolated as the sessions of users are. Raises what ``resolve`` does."""
    version, limits = pool.application_version or DEFAULT_RELEASE, settings.installation_limits
    found = resolve(tx, pool.application, version, pool.profile, installation=limits)
    _raise_isolation(found.needs, settings.least_isolation)
    return found


def check_needs(field: str, needs: application_pb2.Needs) -> None:
    """Check the needs of a profile; ``field`` is their path. Raises InvalidArgument."""
    for name in needs.cleared:
        if name not in CLEARABLE:
            raise errors.InvalidArgument(
                f"{field}.cleared",
                f"{name!r} cannot be cleared; choose from {', '.join(CLEARABLE)}. Relax others by their value.",
                reason=errors.Reason.NOT_ALLOWED,
                metadata={"value": name},
            )


def isolate(needs: application_pb2.Needs, caller: Caller, least: Isolation) -> None:
    """Raise the isolation that a session needs to the least one for those of its caller."""
    if least > Isolation.NONE and not caller.may("sessions.any_isolation"):
        _raise_isolation(needs, least)


def _raise_isolation(needs: application_pb2.Needs, least: Isolation) -> None:
    needs.isolation = max(needs.isolation, least)  # type: ignore[assignment]  # the numbers are the same


def _override_needs(needs: application_pb2.Needs, by: application_pb2.Needs) -> None:
    """Replace what ``by`` sets, also by a value that asks for less; the rest stays."""
    for name in by.cleared:
        needs.ClearField(name)  # type: ignore[arg-type]  # names that check_needs has accepted
    if by.device_names:
        needs.ClearField("device_names")
    needs.MergeFrom(by)
    needs.ClearField("cleared")


def opened_secrets(resolved: Resolved, box: Box) -> dict[str, str]:
    """Return the secrets of a profile. Raises Internal where they cannot be opened."""
    if not resolved.secrets:
        return {}
    return overrides.secrets_of(box.open(resolved.secrets, f"{PROFILE_SECRETS}{resolved.profile}".encode()))


def arguments(resolved: Resolved, given: Struct, profile_secrets: Mapping[str, str]) -> Arguments:
    """Convert a session's arguments according to the version's declarations; what it leaves out, the profile gives.

    Raises InvalidArgument where an argument is not as declared.
    """
    version, raw = resolved.version, struct_dict(given)
    declared = {argument.name for argument in version.arguments}
    if nucleus.USER not in raw and nucleus.PASSWORD not in raw:
        # A session's own account goes before its profile's.
        raw |= nucleus.account(version, raw.get(NUCLEUS))
    raw = {name: value for name, value in profile_secrets.items() if name in declared} | raw
    values, secrets = convert_arguments(version, raw)
    secrets.update((name, value) for name, value in profile_secrets.items() if name not in declared)
    check_secrets(secrets)
    uri = resolve_stage(version, str(values.get(STAGE, "")))
    shown: dict[str, Any] = {STAGE: "", NUCLEUS: [], **values}
    shown.update((name, _redacted(name, secret)) for name, secret in secrets.items())
    if (plain := without_query(uri)) != uri:
        # It may be a presigned URL, which is as good as a password.
        secrets[STAGE], uri = uri, plain
        shown[STAGE] = plain
    return Arguments(shown, secrets, uri, resolved.environment or b"")


def _redacted(name: str, secret: Any) -> Any:
    """Hide a secret; the published list of objects stays one, so that who reads it by its type can."""
    return [dict.fromkeys(item, REDACTED) for item in secret] if name == NUCLEUS else REDACTED


def struct_dict(struct: Struct) -> dict[str, Any]:
    """Return a Struct as plain Python, with whole numbers as ints: a Struct has only floats."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return struct_dict(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _profile(tx: Transaction, name: str, version: application_pb2.Version) -> tuple[profile_pb2.Profile, bytes | None]:
    """Return a profile and its secrets, sealed."""
    row = applications.profile(tx, name)
    if row is None:
        known = ", ".join(found.profile for found in applications.profile_page(tx, "", 10).rows) or "none is registered"
        raise errors.NotFound(
            f"profile: there is no profile {name!r}. Known: {known}.",
            reason=errors.Reason.PROFILE_NOT_FOUND,
            metadata={"field": "profile", "profile": name},
        )
    profile = profile_pb2.Profile.FromString(row.definition)
    if not matches(profile, version.application, version.version):
        raise errors.FailedPrecondition(
            f"profile: {name!r} is not for {version.application} {version.version}. Choose another, or leave it out.",
            reason=errors.Reason.PROFILE_DOES_NOT_MATCH,
            metadata={"field": "profile", "profile": name},
        )
    return profile, row.secrets


def matches(profile: profile_pb2.Profile, application: str, version: str = "") -> bool:
    """Return whether a profile may be used with an application, and with a version of it where given."""
    if not profile.matches:
        return True
    for match in profile.matches:
        if fnmatchcase(application, match.application) and (
            not version or not match.versions or any(fnmatchcase(version, pattern) for pattern in match.versions)
        ):
            return True
    return False
