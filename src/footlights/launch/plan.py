"""From an assignment to a plan: every template filled in, the environment built from empty."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from footlights.errors import InvalidArgument
from footlights.launch import session_state
from footlights.launch.container.recipe import mounts_of
from footlights.launch.launcher import DeviceAccess, LaunchError, LaunchPlan, Ports
from footlights.launch.launchers import traits_of
from footlights.launch.recipe.arguments import as_text, convert_arguments
from footlights.launch.recipe.stages import from_session_file, resolve_stage, without_query
from footlights.launch.recipe.template import TemplateError, parse
from footlights.launch.recipe.whole_command import whole_command
from footlights.protocol import counterparts
from footlights.protocol.times import seconds
from footlights.v1.application_pb2 import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.agent.v1.agent_pb2 import Assignment

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The search path of an application whose version sets none: the same on every node, whatever the agent's is."""
DEFAULT_STOP_GRACE_S = 10.0
OWN_FILES_SESSION_FILE = "/run/footlights/session.json"
"""Where an application that sees a file system of its own finds its session file."""


def render(
    assignment: Assignment,
    *,
    ports: Ports,
    public_address: str,
    device: DeviceAccess,
    directory: Path,
    cluster_id: str,
    own_network: bool = False,
) -> LaunchPlan:
    """Fill in the recipe for one launch. Raises LaunchError ``BAD_RECIPE``.

    Arguments and the stage are converted and checked again, as the control plane did: a node trusts no command line
    that it did not make itself.
    """
    version = counterparts.version(assignment.version)
    try:
        values = _values(assignment, version, ports, public_address, device.index)
        argv = tuple(parse(token.text).render_token(values) for token in whole_command(version))
        mounts = tuple(_mount(mount, values) for mount in mounts_of(version.container))
        own, secret = _environment(version, values)
    except (TemplateError, InvalidArgument) as error:
        raise LaunchError("BAD_RECIPE", str(error)) from None
    own_files = traits_of(version).own_files
    session_file = OWN_FILES_SESSION_FILE if own_files else str(directory / "session.json")
    environment = {
        "FOOTLIGHTS_SESSION_ID": assignment.session_id,
        "FOOTLIGHTS_LAUNCH_ID": assignment.launch_id,
        "FOOTLIGHTS_CLUSTER_ID": cluster_id,
        "FOOTLIGHTS_SESSION_FILE": session_file,
        **({} if own_files else {"PATH": PATH, "LANG": "C.UTF-8", **session_state.variables(directory)}),
        **dict.fromkeys(device.variables, assignment.device_uuid if device.hardware else ""),
        **own,
    }
    if argv and not own_files:
        argv = (resolve_command(argv[0], environment["PATH"]), *argv[1:])
    grace = assignment.limits.stop_grace_period
    return LaunchPlan(
        launch_id=assignment.launch_id,
        session_id=assignment.session_id,
        cluster_id=cluster_id,
        device_uuid=assignment.device_uuid,
        device_index=device.index,
        device_kind=device.kind,
        ports=ports,
        argv=argv,
        environment=tuple(sorted(environment.items())),
        secret_environment=tuple(sorted(secret.items())),
        working_directory=version.working_directory,
        stop_grace_s=(seconds(grace) if assignment.limits.HasField("stop_grace_period") else DEFAULT_STOP_GRACE_S),
        directory=directory,
        version=version,
        mounts=mounts,
        cdi_device=f"{device.cdi_class}={assignment.device_uuid}" if device.cdi_class else "",
        own_network=own_network,
    )


def secret_variables(plan: LaunchPlan, session_file: bytes) -> dict[str, str]:
    """Return the variables of a launch's environment that hold secrets; one whose secrets have no value is left out.

    ``session_file`` is what the session file is to hold. Raises LaunchError ``BAD_RECIPE``.
    """
    if not plan.secret_environment:
        return {}
    known = {name: value for name, value in _secrets(session_file).items() if isinstance(value, str | int | float)}
    values = {name: as_text(value) for name, value in known.items()}
    try:
        templates = {name: parse(text) for name, text in plan.secret_environment}
        return {name: each.render(values) for name, each in templates.items() if each.names <= set(values)}
    except TemplateError:
        # Without its words, which have the value.
        raise LaunchError("BAD_RECIPE", "a secret for the environment holds a NUL or a line break.") from None


def resolve_command(command: str, path: str) -> str:
    """Say which file a process's command means; an unknown name is returned as it is.

    A name without a slash is looked up in the application's own ``path``, then among the console scripts beside the
    agent's interpreter; ``footlights-*`` there first, since the agent's release and theirs belong together.
    """
    if os.sep in command:
        return command
    beside = str(Path(sys.executable).parent)
    places = (beside, path) if command.startswith("footlights-") else (path, beside)
    for place in places:
        found = shutil.which(command, path=place)
        if found is not None:
            return found
    return command


def to_json(plan: LaunchPlan) -> str:
    """Write a plan for the journal; ``from_json`` reads it."""
    value: dict[str, Any] = {field.name: getattr(plan, field.name) for field in fields(plan)}
    value.update(
        # Three and one: an agent of the release before reads the three.
        ports=[plan.ports.signal, plan.ports.media, plan.ports.http],
        splice=plan.ports.splice,
        directory=str(plan.directory),
        version=json_format.MessageToDict(plan.version, preserving_proto_field_name=True),
    )
    return json.dumps(value)


def from_json(text: str) -> LaunchPlan:
    """Read what ``to_json`` wrote; members of a later release are ignored. Raises ValueError where it is not a plan."""
    try:
        given = json.loads(text)
        value = {field.name: given[field.name] for field in fields(LaunchPlan) if field.name in given}
        signal, media, http = value["ports"]
        value.update(
            ports=Ports(signal=signal, media=media, http=http, splice=given.get("splice", 0)),
            argv=tuple(value["argv"]),
            environment=tuple((name, text) for name, text in value["environment"]),
            directory=Path(value["directory"]),
            version=json_format.ParseDict(value["version"], Version(), ignore_unknown_fields=True),
            mounts=tuple(value.get("mounts", ())),
            secret_environment=tuple((name, text) for name, text in value.get("secret_environment", ())),
        )
        return LaunchPlan(**value)
    except (KeyError, TypeError, ValueError, json_format.ParseError) as error:
        raise ValueError(f"not a plan: {type(error).__name__}: {error}") from error


def _environment(version: Version, values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables that a version sets; those with secrets apart, as templates over the secrets."""
    secret = {argument.name for argument in version.arguments if argument.secret}
    plain: dict[str, str] = {}
    sealed: dict[str, str] = {}
    for name, text in version.environment.items():
        template = parse(text)
        if template.names & secret:
            sealed[name] = template.render_except(secret, values)
        else:
            plain[name] = template.render(values)
    return plain, sealed


def _values(
    assignment: Assignment, version: Version, ports: Ports, public_address: str, device_index: int
) -> Mapping[str, str]:
    arguments, secrets = json_format.MessageToDict(assignment.arguments), _secrets(assignment.secrets)
    arguments.update(secrets)
    stage = resolve_stage(version, str(secrets.get("usd_stage_uri", assignment.usd_stage_uri)))
    if from_session_file(version):
        # A command line and the plan are read by others than the application.
        stage = without_query(stage)
    converted, _ = convert_arguments(version, arguments)
    values = {name: as_text(value) for name, value in converted.items()}
    values.update(
        session_id=assignment.session_id,
        signal_port=str(ports.signal),
        media_port=str(ports.media),
        http_port=str(ports.http),
        public_address=public_address,
        usd_stage_uri=stage,
        device_uuid=assignment.device_uuid,
        device_index=str(device_index),
    )
    return values


def _secrets(secrets: bytes) -> dict[str, object]:
    try:
        value = json.loads(secrets or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        # Without its content: it is secret.
        text = "the assignment's secrets are not a JSON object (a fault of the control plane)."
        raise LaunchError("BAD_RECIPE", text)
    return value


def _mount(mount: str, values: Mapping[str, str]) -> str:
    """Render one mount; a value may not add a part to it."""
    template = parse(mount)
    rendered = template.render(values)
    if rendered.count(":") != mount.count(":"):
        raise TemplateError(f"the mount {mount!r} became {rendered!r}: a value with ':' cannot stand in a mount.")
    return rendered
