"""From an assignment to a plan: every template filled in, the environment built from empty.

The agent renders a plan once, journals it, and from then on acts on the plan alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format

from footlights.errors import InvalidArgument
from footlights.launch.launcher import LaunchError, Plan, Ports
from footlights.launch.recipe.arguments import as_text, convert_arguments
from footlights.launch.recipe.stages import resolve_stage
from footlights.launch.recipe.template import TemplateError, parse
from footlights.v1.application_pb2 import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.v1.agent_pb2 import Assignment

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The search path of an application whose version sets none: the same on every node, whatever the agent's is."""
DEFAULT_STOP_GRACE_S = 10.0
CONTAINER_SESSION_FILE = "/run/footlights/session.json"
"""Where a container finds its session file."""
GPU_KINDS = ("GPU", "MIG")


def render(
    assignment: Assignment,
    *,
    ports: Ports,
    public_address: str,
    device_index: int,
    device_kind: str,
    directory: Path,
    cluster_id: str,
) -> Plan:
    """Fill in the recipe for one launch.

    Arguments and the stage are converted and checked again, as the control plane did: a node trusts no command line
    that it did not make itself.

    Args:
        assignment: What the control plane wants; its secrets are only checked, and are not part of the plan.
        ports: The ports that this launch holds.
        public_address: The address that viewers send media to.
        device_index: The device's place in the driver's list, now. Kit's ``activeGpu`` counts in Vulkan's order.
        device_kind: ``GPU``, ``MIG``, ``SOFTWARE`` or ``FAKE``.
        directory: The launch's own directory.
        cluster_id: The mark on everything that is started.

    Raises:
        LaunchError: ``BAD_RECIPE``, where a template, an argument or the stage will not do.
    """
    version = assignment.version
    try:
        values = _values(assignment, ports, public_address, device_index)
        argv = tuple(parse(token).render_token(values) for token in version.command)
        mounts = tuple(_mount(mount, values) for mount in version.container.mounts)
        own = {name: parse(text).render(values) for name, text in version.environment.items()}
    except (TemplateError, InvalidArgument) as error:
        raise LaunchError("BAD_RECIPE", str(error)) from None
    environment = {**_environment(assignment, device_kind, directory, cluster_id), **own}
    in_container = version.HasField("container")
    if argv and not in_container and not version.HasField("fake"):
        argv = (resolve_command(argv[0], environment["PATH"]), *argv[1:])
    grace = assignment.limits.stop_grace_period
    return Plan(
        launch_id=assignment.launch_id,
        session_id=assignment.session_id,
        cluster_id=cluster_id,
        device_uuid=assignment.device_uuid,
        device_index=device_index,
        device_kind=device_kind,
        ports=ports,
        argv=argv,
        environment=tuple(sorted(environment.items())),
        working_directory=version.working_directory,
        stop_grace_s=(
            grace.ToTimedelta().total_seconds()
            if assignment.limits.HasField("stop_grace_period")
            else DEFAULT_STOP_GRACE_S
        ),
        directory=directory,
        version=version,
        mounts=mounts,
    )


def resolve_command(command: str, path: str) -> str:
    """Say which file a process's command means.

    A name without a slash is looked up in the application's own ``path``, then among the console scripts beside the
    agent's interpreter, so that ``footlights-viewer`` runs from a virtual environment that nobody activated. Our own
    scripts (``footlights-*``) are looked up there first: the agent's release and theirs belong together. A name that
    is in neither place is returned as it is, and the launcher says COMMAND_NOT_FOUND.
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


def to_json(plan: Plan) -> str:
    """Write a plan for the journal; ``from_json`` reads it."""
    return json.dumps(
        {
            "launch_id": plan.launch_id,
            "session_id": plan.session_id,
            "cluster_id": plan.cluster_id,
            "device_uuid": plan.device_uuid,
            "device_index": plan.device_index,
            "device_kind": plan.device_kind,
            "ports": [plan.ports.signal, plan.ports.media, plan.ports.http],
            "argv": plan.argv,
            "environment": plan.environment,
            "working_directory": plan.working_directory,
            "stop_grace_s": plan.stop_grace_s,
            "directory": str(plan.directory),
            "version": json_format.MessageToDict(plan.version, preserving_proto_field_name=True),
            "mounts": plan.mounts,
        }
    )


def from_json(text: str) -> Plan:
    """Read what ``to_json`` wrote.

    Members that a later release added to the version are ignored. Raises ValueError where it is not a plan.
    """
    try:
        value = json.loads(text)
        signal, media, http = value["ports"]
        return Plan(
            launch_id=value["launch_id"],
            session_id=value["session_id"],
            cluster_id=value["cluster_id"],
            device_uuid=value["device_uuid"],
            device_index=value["device_index"],
            device_kind=value["device_kind"],
            ports=Ports(signal=signal, media=media, http=http),
            argv=tuple(value["argv"]),
            environment=tuple((name, text) for name, text in value["environment"]),
            working_directory=value["working_directory"],
            stop_grace_s=value["stop_grace_s"],
            directory=Path(value["directory"]),
            version=json_format.ParseDict(value["version"], Version(), ignore_unknown_fields=True),
            mounts=tuple(value.get("mounts", ())),
        )
    except (KeyError, TypeError, ValueError, json_format.ParseError) as error:
        raise ValueError(f"not a plan: {type(error).__name__}: {error}") from error


def _values(assignment: Assignment, ports: Ports, public_address: str, device_index: int) -> Mapping[str, str]:
    arguments = json_format.MessageToDict(assignment.arguments)
    arguments.update(_secrets(assignment.secrets))
    converted, _ = convert_arguments(assignment.version, arguments)
    values = {name: as_text(value) for name, value in converted.items()}
    values.update(
        session_id=assignment.session_id,
        signal_port=str(ports.signal),
        media_port=str(ports.media),
        http_port=str(ports.http),
        public_address=public_address,
        usd_stage_uri=resolve_stage(assignment.version, assignment.usd_stage_uri),
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
        raise LaunchError("BAD_RECIPE", "the assignment's secrets are no JSON object: the control plane is at fault.")
    return value


def _mount(mount: str, values: Mapping[str, str]) -> str:
    """Render one mount; a value may not add a part to it."""
    template = parse(mount)
    rendered = template.render(values)
    if rendered.count(":") != mount.count(":"):
        raise TemplateError(f"the mount {mount!r} became {rendered!r}: a value with ':' cannot stand in a mount.")
    return rendered


def _environment(assignment: Assignment, device_kind: str, directory: Path, cluster_id: str) -> dict[str, str]:
    environment = {
        "FOOTLIGHTS_SESSION_ID": assignment.session_id,
        "FOOTLIGHTS_LAUNCH_ID": assignment.launch_id,
        "FOOTLIGHTS_CLUSTER_ID": cluster_id,
        "FOOTLIGHTS_SESSION_FILE": str(directory / "session.json"),
    }
    if assignment.version.HasField("container"):
        # PATH, HOME and LANG are the image's own.
        environment["FOOTLIGHTS_SESSION_FILE"] = CONTAINER_SESSION_FILE
    else:
        environment.update(PATH=PATH, HOME=str(directory), LANG="C.UTF-8")
    if device_kind in GPU_KINDS:
        environment.update(NVIDIA_VISIBLE_DEVICES=assignment.device_uuid, CUDA_VISIBLE_DEVICES=assignment.device_uuid)
    return environment
