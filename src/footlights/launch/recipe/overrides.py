"""What a profile changes of a version: variables of its environment, values of its arguments, and secrets. Pure.

A profile is written before the versions that it will be used with, so it is checked twice: alone when it is set, and
with a version when a session names both. What it changes then passes the checks of a version.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from footlights.errors import FailedPrecondition, InvalidArgument, Reason, Violations
from footlights.launch.recipe import read_again, recipe
from footlights.launch.recipe.arguments import MAX_VARIABLE_BYTES, NUCLEUS, PUBLISHED, STAGE, convert_value
from footlights.launch.recipe.stages import parse_stage, resolve_stage, without_query
from footlights.launch.recipe.template import BUILT_IN, NAME, TemplateError, parse
from footlights.v1.application_pb2 import Argument, Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.v1.profile_pb2 import Profile

MAX_ARGUMENT_BYTES = 16 << 10
"""Of all arguments of a profile together, as JSON."""


def check(profile: Profile) -> None:
    """Check what a profile changes, as far as that needs no version. Raises InvalidArgument with all that is wrong."""
    violations = Violations()
    with violations:
        recipe.check_variables("profile.environment", profile.environment)
    used: set[str] = set()
    for name, text in sorted(profile.environment.items()):
        with violations:
            try:
                used |= parse(text).names
            except TemplateError as error:
                raise InvalidArgument(f"profile.environment[{name!r}]", str(error)) from None
    for name, value in json_format.MessageToDict(profile.arguments).items():
        with violations:
            _check_argument(f"profile.arguments.{name}", name, value)
    if (size := len(json_format.MessageToJson(profile.arguments, indent=None).encode())) > MAX_ARGUMENT_BYTES:
        with violations:
            raise InvalidArgument("profile.arguments", f"they are {size} bytes: give at most {MAX_ARGUMENT_BYTES}.")
    for name, value in sorted(profile.secrets.items()):
        with violations:
            _check_secret(f"profile.secrets[{name!r}]", name, value, in_environment=name in used)
            if name in profile.arguments:
                text = "it is in arguments as well, which are shown: remove it there."
                raise InvalidArgument(f"profile.secrets[{name!r}]", text)
    violations.refuse()


def applied(version: Version, profile: Profile) -> Version:
    """Return a version as a profile has it for a session. Raises FailedPrecondition where the profile is not for it."""
    declared = {argument.name: argument for argument in version.arguments}
    changed = Version()
    changed.CopyFrom(version)
    try:
        for name, value in json_format.MessageToDict(profile.arguments).items():
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # noqa: PLW2901  # a Struct has only floats
            _set_default(changed, name, value)
        used = {name for text in profile.environment.values() for name in parse(text).names}
        for name in sorted(used - {*BUILT_IN, *declared, *profile.secrets}):
            known = ", ".join(f"{{{each}}}" for each in sorted({*BUILT_IN, *declared, *profile.secrets}))
            raise InvalidArgument(
                "environment", f"it uses the unknown placeholder {{{name}}}: the known ones are {known}."
            )
        for name in sorted(profile.secrets):
            argument = declared.get(name)
            if argument is None and name not in used:
                raise InvalidArgument(
                    f"secrets[{name!r}]", "the version has no such argument, and no variable of the profile uses it."
                )
            if argument is not None and not (argument.secret and argument.type == Argument.STRING):
                raise InvalidArgument(f"secrets[{name!r}]", "the version's argument of this name is no secret text.")
        _check_together(version, with_environment(changed, profile.environment))
        changed.environment.update(profile.environment)
    except InvalidArgument as error:
        raise FailedPrecondition(
            f"profile: {profile.profile!r} cannot be used with {version.application} {version.version}: "
            f"{error.field}: {error.problem}",
            reason=Reason.PROFILE_NOT_APPLICABLE,
            metadata={"field": "profile", "profile": profile.profile},
        ) from None
    return changed


def with_environment(version: Version, environment: Mapping[str, str]) -> Version:
    """Return a version with the variables of a session's profile, as a node is sent it."""
    changed = Version()
    changed.CopyFrom(version)
    changed.environment.update(environment)
    _declare_secrets(changed)
    return changed


def _declare_secrets(version: Version) -> None:
    """Declare all that a version's environment uses: what it does not declare itself are a profile's secrets."""
    known = {*BUILT_IN, *(argument.name for argument in version.arguments)}
    used = {name for text in version.environment.values() for name in parse(text).names}
    for name in sorted(used - known):
        version.arguments.add(name=name, type=Argument.STRING, secret=True, max_length=MAX_VARIABLE_BYTES)


def _check_argument(field: str, name: str, value: object) -> None:
    if NAME.fullmatch(name) is None or name == NUCLEUS or (name in BUILT_IN and name != STAGE):
        raise InvalidArgument(field, f"{name!r} is not the name of an argument that a version may declare.")
    if not isinstance(value, str | int | float | bool):
        raise InvalidArgument(field, "it is neither text, a number, true nor false.")
    if name == STAGE and without_query(str(value)) != value:
        raise InvalidArgument(field, "it has a query, which may be a signature, and profiles are shown: remove it.")


def _check_secret(field: str, name: str, value: str, *, in_environment: bool) -> None:
    if NAME.fullmatch(name) is None or name in BUILT_IN or name in PUBLISHED:
        text = "is not the name of a secret: use a-z, 0-9 and '_', a letter first, and none of Footlights' own"
        raise InvalidArgument(field, f"{name!r} {text}. A variable of the environment names it: {{{{omni_pass}}}}.")
    size = len(value.encode("utf-8", "surrogateescape"))
    if not 0 < size <= MAX_VARIABLE_BYTES:
        raise InvalidArgument(field, f"it is {size} bytes: give 1 to {MAX_VARIABLE_BYTES}.")
    if "\0" in value or (in_environment and ("\n" in value or "\r" in value)):
        raise InvalidArgument(field, "it holds a NUL or a line break, which no variable of the environment can.")


def _set_default(version: Version, name: str, value: object) -> None:
    """Have a version's argument, or its stage, be a profile's unless a session gives it. Raises InvalidArgument."""
    field = f"arguments.{name}"
    if name == STAGE:
        version.default_usd_stage_uri = parse_stage(resolve_stage(version, str(value))).text
        return
    argument = next((each for each in version.arguments if each.name == name), None)
    if argument is None:
        known = ", ".join(sorted(each.name for each in version.arguments)) or "none"
        raise InvalidArgument(field, f"the version declares no such argument; it has {known}.")
    if argument.secret:
        raise InvalidArgument(field, "it is a secret, and profiles are shown: give it in secrets.")
    converted = convert_value(argument, value, field=field)
    if isinstance(converted, str):
        # A node does not know whose it is, and checks it as a session's.
        read_again.check(version, name, converted)
    struct = Struct()
    struct.update({name: converted})
    argument.default_value.CopyFrom(struct.fields[name])


def _check_together(version: Version, changed: Version) -> None:
    """Check a changed version as one that is registered; what was wrong before is not the profile's fault."""
    try:
        recipe.validate(changed)
    except InvalidArgument as error:
        try:
            recipe.validate(version)
        except InvalidArgument:
            return
        raise InvalidArgument(error.field.removeprefix("version."), error.problem) from None


def secrets_of(text: bytes) -> dict[str, str]:
    """Return a profile's secrets from their stored form, as it is when it is opened."""
    return {str(name): str(value) for name, value in json.loads(text or b"{}").items()}
