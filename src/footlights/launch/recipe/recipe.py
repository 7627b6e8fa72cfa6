"""Whether a version is a recipe that can be launched. Pure; the control plane asks at registration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import semver

from footlights.errors import Reason, Violations
from footlights.launch import caches
from footlights.launch.launchers import LAUNCHERS, traits_of
from footlights.launch.recipe import declarations, limits, program_text
from footlights.launch.recipe.checks import refuse
from footlights.launch.recipe.stages import StageError, delivery_of, parse_root, parse_stage
from footlights.launch.recipe.template import BUILT_IN, TemplateError, parse
from footlights.launch.recipe.whole_command import whole_command
from footlights.protocol.enums import field_name
from footlights.protocol.times import seconds
from footlights.v1.application_pb2 import Readiness, StageDelivery, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_TOKENS = 512
MAX_TOKEN_CHARACTERS = 8192
MAX_VARIABLES = 256
MAX_NAME_CHARACTERS = 256
MAX_RECIPE_BYTES = 256 << 10
RESERVED_PREFIX = "FOOTLIGHTS_"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL_PATH = re.compile(r"/[!-~]*")

_LEAST_OFFER_S, _MOST_OFFER_S = 1, 3600


def validate(version: Version) -> None:
    """Check a version before it is registered. Raises InvalidArgument with all that is wrong."""
    size = version.ByteSize()
    if size > MAX_RECIPE_BYTES:
        raise refuse("version", f"it is {size} bytes: at most {MAX_RECIPE_BYTES} are allowed.")
    violations = Violations()
    with violations:
        _semantic(version.version)
    with violations:
        declarations.validate(version.arguments)
    for check in (_what_runs, _command, _environment, _stages, _stage_delivery, _needs):
        with violations:
            check(version)
    with violations:
        _working_directory(version.working_directory)
    with violations:
        limits.check("version.limits", version.limits, reason=Reason.VERSION_INVALID)
    with violations:
        _readiness(version)
    with violations:
        _forwarded_headers(version.signaling.forwarded_headers)
    for name in ("whep_path", "websocket_path", "relay_path"):
        with violations:
            _url_path(f"version.signaling.{name}", getattr(version.signaling, name))
    violations.refuse()


def _semantic(version: str) -> None:
    if not version:
        raise refuse("version.version", "it is required: give a semantic version, such as 1.4.0.")
    if len(version) > 128 or not semver.Version.is_valid(version):
        raise refuse("version.version", f"{version!r} is not a semantic version: write it as 1.4.0 or 2.0.0-rc.1.")


def _what_runs(version: Version) -> None:
    asked = [name for name, traits in LAUNCHERS.items() if traits.member and version.HasField(traits.member)]  # type: ignore[arg-type]
    if len(asked) > 1:
        names = " or a ".join(asked)
        raise refuse(f"version.{asked[-1]}", f"a version has a {names}, not both: remove one of them.")
    traits = traits_of(version)
    if traits.needs_command and not version.command:
        raise refuse("version.command", "it is empty: give a command, a container or a fake.")
    traits.validate(version)
    caches.validate(version)


def _command(version: Version) -> None:
    tokens = whole_command(version)
    if len(tokens) > MAX_TOKENS:
        raise refuse("version.command", f"it has {len(tokens)} tokens: at most {MAX_TOKENS} are allowed.")
    for token in tokens:
        _template(version, token.field, token.text, environment=False)
    if tokens:
        if not tokens[0].text:
            raise refuse(tokens[0].field, "it is empty: name the program to run.")
        program_text.check_command(version)


def check_variables(field: str, environment: Mapping[str, str]) -> None:
    """Check the names of variables and how long they are; ``field`` is their path. Raises InvalidArgument."""
    if len(environment) > MAX_VARIABLES:
        raise refuse(field, f"it has {len(environment)} variables: at most {MAX_VARIABLES} are allowed.")
    for name, text in sorted(environment.items()):
        one = f"{field}[{name!r}]"
        if _VARIABLE.fullmatch(name) is None or len(name) > MAX_NAME_CHARACTERS:
            raise refuse(one, f"{name[:80]!r} is not the name of a variable: write letters, digits and '_'.")
        if name.startswith(RESERVED_PREFIX):
            raise refuse(one, f"{name!r} is Footlights' own: choose a name that does not begin with FOOTLIGHTS_.")
        if len(text) > MAX_TOKEN_CHARACTERS:
            raise refuse(one, f"it is {len(text)} characters long: at most {MAX_TOKEN_CHARACTERS} are allowed.")


def _environment(version: Version) -> None:
    check_variables("version.environment", version.environment)
    for name, text in sorted(version.environment.items()):
        field = f"version.environment[{name!r}]"
        _template(version, field, text, environment=True)
        program_text.check_variable(version, field, name, text)


def _template(version: Version, field: str, text: str, *, environment: bool) -> None:
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise refuse(field, f"it is {len(text)} characters long: at most {MAX_TOKEN_CHARACTERS} are allowed.")
    declared = {argument.name: argument for argument in version.arguments}
    try:
        names = parse(text).names
        for name in sorted(names & set(declared)):
            declarations.usable_in_template(declared[name], field, environment=environment)
        parse(text, [*BUILT_IN, *declared])
    except TemplateError as error:
        raise refuse(field, str(error)) from None


def _working_directory(directory: str) -> None:
    if directory and (not directory.startswith("/") or ".." in directory.split("/") or "\0" in directory):
        raise refuse("version.working_directory", f"{directory!r} is not an absolute path: write one without '..'.")


def _stages(version: Version) -> None:
    for number, root in enumerate(version.allowed_stage_roots):
        try:
            parse_root(root)
        except StageError as error:
            raise refuse(f"version.allowed_stage_roots[{number}]", str(error)) from None
    if len(version.allowed_stage_roots) > 64:
        raise refuse("version.allowed_stage_roots", "it has more than 64 roots: write fewer, wider ones.")
    if version.default_usd_stage_uri:
        try:
            parse_stage(version.default_usd_stage_uri)
        except StageError as error:
            raise refuse("version.default_usd_stage_uri", str(error)) from None


def _stage_delivery(version: Version) -> None:
    wanted, field = version.stage_delivery, "version.stage_delivery"
    try:
        if (
            wanted.method == StageDelivery.COMMAND
            and delivery_of(Version(command=version.command, environment=version.environment)) != wanted.method
        ):
            raise refuse(f"{field}.method", "COMMAND needs {usd_stage_uri} in the command or the environment: add it.")
    except TemplateError:
        return  # said of the command
    if wanted.method == StageDelivery.HTTP and not wanted.path:
        raise refuse(f"{field}.path", "it is empty: HTTP needs the path that the stage is sent to.")
    if wanted.path and wanted.method != StageDelivery.HTTP:
        raise refuse(f"{field}.path", "it is only for the method HTTP: set method to HTTP or remove it.")
    _url_path(f"{field}.path", wanted.path)


def _needs(version: Version) -> None:
    needs = version.needs
    if not 0 <= needs.slots <= 64:
        raise refuse("version.needs.slots", f"{needs.slots} is not between 0 and 64: give a number of slots.")
    if needs.cleared:
        raise refuse("version.needs.cleared", "it is for profiles: a version leaves out what it does not need.")
    if needs.min_memory_bytes < 0:
        raise refuse("version.needs.min_memory_bytes", f"{needs.min_memory_bytes} is negative: give a size.")
    traits = traits_of(version)
    if needs.isolation > traits.isolation:
        wanted = field_name(needs, "isolation")
        able = " or ".join(name for name, other in LAUNCHERS.items() if other.isolation >= needs.isolation)
        text = f"{wanted} is more than the {traits.name} launcher gives, {traits.isolation.name}: "
        raise refuse("version.needs.isolation", text + (f"use {able}." if able else "no launcher gives it."))


_NOT_FORWARDED = re.compile(
    r"authorization|cookie|connection|upgrade|host|origin|content-.*|transfer-.*|te|trailer|sec-websocket-.*|proxy-.*|"
    r"forwarded|x-forwarded-.*|footlights-.*"
)
_HEADER = re.compile(r"[a-z0-9-]{1,64}")


def _forwarded_headers(names: Iterable[str]) -> None:
    for name in names:
        if _HEADER.fullmatch(name) is None or _NOT_FORWARDED.fullmatch(name):
            text = f"{name!r} cannot be passed on: name a header of the application's own, in lower case."
            raise refuse("version.signaling.forwarded_headers", text)


def _readiness(version: Version) -> None:
    readiness = version.readiness
    _url_path("version.readiness.path", readiness.path)
    if readiness.check == Readiness.LOG and not readiness.log_text:
        raise refuse("version.readiness.log_text", "it is empty: the check LOG needs the text to look for.")
    if readiness.check == Readiness.OFFER and not version.signaling.websocket_path:
        raise refuse("version.signaling.websocket_path", "it is empty: the check OFFER dials it. Write /sign_in.")
    if readiness.log_text and readiness.check != Readiness.LOG:
        raise refuse("version.readiness.log_text", "it is only for the check LOG: set check to LOG or remove it.")
    if not readiness.HasField("offer_timeout"):
        return
    if readiness.check != Readiness.OFFER:
        raise refuse(
            "version.readiness.offer_timeout", "it is only for the check OFFER: set check to OFFER or remove it."
        )
    given_s = seconds(readiness.offer_timeout)
    if not _LEAST_OFFER_S <= given_s <= _MOST_OFFER_S:
        text = f"{given_s:g}s is not between {_LEAST_OFFER_S}s and {_MOST_OFFER_S}s."
        raise refuse("version.readiness.offer_timeout", text)


def _url_path(field: str, path: str) -> None:
    if path and (_URL_PATH.fullmatch(path) is None or "#" in path or len(path) > 1024):
        raise refuse(field, f"{path!r} is not the path of a URL: start it with '/', in ASCII without spaces or '#'.")
