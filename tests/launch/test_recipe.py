"""Versions are checked before they are kept.

Also the tests of ``checks`` and ``declarations``.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from footlights.v1.application_pb2 import Container, StageDelivery, Version
from google.protobuf import json_format

from footlights.errors import InvalidArgument
from footlights.launch.recipe.recipe import validate

GOOD: dict[str, Any] = {
    "version": "1.4.0-rc.1+build.5",
    "command": ["viewer", "--port={signal_port}", "{usd_stage_uri}", "--quality", "{quality}", "{{literal}}"],
    "environment": {"QUALITY": "{quality}", "ADDRESS": "{public_address}"},
    "working_directory": "/srv/app",
    "arguments": [
        {"name": "quality", "type": "STRING", "default_value": "low", "allowed_values": ["low", "high"]},
        {"name": "frames", "type": "INTEGER", "minimum": 1, "maximum": 10, "default_value": 5},
        {"name": "token", "type": "STRING", "secret": True},
    ],
    "default_usd_stage_uri": "/srv/stages/a.usd",
    "allowed_stage_roots": ["/srv/stages", "https://assets.example.com/x/"],
    "needs": {"slots": 1},
    "limits": {"start_timeout": "60s", "stop_grace_period": "5s"},
    "readiness": {"check": "HTTP", "path": "/ready"},
    "signaling": {"whep_path": "/whep", "websocket_path": "/sign_in"},
}
CONTAINER = {
    "volume_mounts": [{"source": "cache", "target": "/d"}],
    "image": "registry:5000/a/b:1@sha256:0f",
    "mounts": ["/srv/a:/a:ro", "cache-{device_uuid}:/c"],
}


def changed(path: str, value: object) -> Version:
    """Return GOOD with one member set; a value of None removes it."""
    content = copy.deepcopy(GOOD)
    content["container"] = CONTAINER if path.startswith("container") else None
    target: Any = content
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        if isinstance(target, dict) and not target.get(part):
            target[part] = {}
        target[part] = copy.deepcopy(target[part])
        target = target[part]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return json_format.ParseDict({k: v for k, v in content.items() if v is not None}, Version())


def test_good() -> None:
    """A whole version passes, as a process, in a container with and without a command, and as a fake."""
    validate(json_format.ParseDict(GOOD, Version()))
    validate(changed("container.image", "a"))
    validate(Version(version="1.0.0", container=Container(image="a")))
    validate(changed("container.entrypoint", []))
    validate(changed("container.entrypoint", ["tini", "--"]))
    validate(json_format.ParseDict({"version": "1.0.0", "fake": {"ready_after": "0s", "viewers": 0}}, Version()))


@pytest.mark.parametrize(
    ("path", "value", "field", "problem"),
    [
        ("version", "1.0", "version.version", "'1.0' is not a semantic version"),
        ("version", "v1.0.0", "version.version", "write it as 1.4.0"),
        ("version", "", "version.version", "it is required"),
        ("command", [], "version.command", "give a command, a container or a fake"),
        ("command.0", "", "version.command[0]", "name the program"),
        (
            "environment",
            {"NVDA_KIT_ARGS": "{token}"},
            "version.environment['NVDA_KIT_ARGS']",
            "a part of a command line",
        ),
        ("environment", {"PWD": "{token}"}, "version.environment['PWD']", "a shell's own variable"),
        ("environment", {"LD_PRELOAD": "{token}"}, "version.environment['LD_PRELOAD']", "lets a session choose it"),
        ("stage_delivery", {"method": "HTTP"}, "version.stage_delivery.path", "HTTP needs the path"),
        ("stage_delivery", {"method": "HTTP", "path": "open"}, "version.stage_delivery.path", "start it with '/'"),
        (
            "stage_delivery",
            {"method": "NONE", "path": "/open"},
            "version.stage_delivery.path",
            "only for the method HTTP",
        ),
        ("command.0", "{quality}", "version.command[0]", "lets a session choose the program"),
        ("command.0", "/bin/{usd_stage_uri}", "version.command[0]", "lets a session choose the program"),
        ("command.2", "{port}", "version.command[2]", "unknown placeholder {port}: the known ones are {device_index}"),
        ("command.2", "a{", "version.command[2]", "lone '{'"),
        ("command.2", "{token}", "version.command[2]", "which is a secret"),
        ("command", ["/bin/sh", "-c", "run {quality}"], "version.command[2]", "where a program may be read"),
        ("command", ["bash", "-ec", "run {usd_stage_uri}"], "version.command[2]", "where a program may be read"),
        ("command.2", "a" * 9000, "version.command[2]", "9000 characters long"),
        ("command", ["a"] * 600, "version.command", "600 tokens"),
        ("container.entrypoint", [""], "version.container.entrypoint[0]", "name the program"),
        ("container.entrypoint", ["a", 7], "version.container.entrypoint[1]", "it is not text"),
        ("container.entrypoint", ["a"] * 600, "version.command", "606 tokens"),
        ("container.entrypoint", ["a", "{port}"], "version.container.entrypoint[1]", "unknown placeholder {port}"),
        ("container.entrypoint", ["{quality}"], "version.container.entrypoint[0]", "choose the program"),
        ("environment", {"A B": "x"}, "version.environment['A B']", "not the name of a variable"),
        ("environment", {"FOOTLIGHTS_X": "x"}, "version.environment['FOOTLIGHTS_X']", "Footlights' own"),
        ("working_directory", "srv", "version.working_directory", "not an absolute path"),
        ("arguments.0.name", "Quality", "version.arguments[0].name", "not a name"),
        ("arguments.0.name", "frames", "version.arguments[1].name", "declared twice"),
        ("arguments.0.name", "usd_stage_uri", "version.arguments[0].name", "taken by Footlights"),
        ("arguments.0.name", "signal_port", "version.arguments[0].name", "taken by Footlights"),
        ("arguments.0.type", "TYPE_UNSPECIFIED", "version.arguments[0].type", "choose STRING"),
        ("arguments.0.default_value", "medium", "version.arguments[0].default_value", "'medium' is not allowed"),
        ("arguments.0.default_value", None, "version.command[4]", "may be without a value"),
        ("arguments.0.pattern", "(?=a)", "version.arguments[0].pattern", "no look-around"),
        ("arguments.0.pattern", r"(a)\1", "version.arguments[0].pattern", "not a regular expression of RE2"),
        ("arguments.0.pattern", "[", "version.arguments[0].pattern", "not a regular expression of RE2"),
        ("arguments.0.pattern", "a" * 600, "version.arguments[0].pattern", "600 characters"),
        ("arguments.0.minimum", 1, "version.arguments[0].minimum", "for INTEGER and NUMBER only"),
        ("arguments.0.max_length", -1, "version.arguments[0].max_length", "-1 is not between"),
        ("arguments.1.default_value", 50, "version.arguments[1].default_value", "50.0 is too large"),
        ("arguments.1.default_value", 1.5, "version.arguments[1].default_value", "1.5 is not a whole number"),
        ("arguments.1.minimum", 11, "version.arguments[1].minimum", "11 is above the maximum 10"),
        ("arguments.1.pattern", "a", "version.arguments[1].pattern", "STRING only"),
        ("arguments.2.default_value", "x", "version.arguments[2].default_value", "a secret has none"),
        ("allowed_stage_roots.1", "https://", "version.allowed_stage_roots[1]", "no valid host"),
        ("allowed_stage_roots.0", "stages", "version.allowed_stage_roots[0]", "neither an absolute path nor a URL"),
        ("default_usd_stage_uri", "../a", "version.default_usd_stage_uri", "neither an absolute path nor a URL"),
        ("needs.isolation", "PROCESS", "version.needs.isolation", "more than the process launcher gives, NONE: use"),
        ("needs.slots", 65, "version.needs.slots", "65 is not between 0 and 64"),
        ("needs.min_memory_bytes", -1, "version.needs.min_memory_bytes", "-1 is negative"),
        ("limits.start_timeout", "0s", "version.limits.start_timeout", "more than 0s (got 0s)"),
        ("limits.idle_timeout", "-5s", "version.limits.idle_timeout", "more than 0s (got -5s)"),
        ("limits.stop_grace_period", "7200s", "version.limits.stop_grace_period", "at most 3600s"),
        ("limits.unlimited", ["stop_grace_period"], "version.limits.unlimited", "choose from never_connected_timeout"),
        ("needs.cleared", ["device_names"], "version.needs.cleared", "for profiles"),
        ("readiness.path", "ready", "version.readiness.path", "start it with '/'"),
        ("readiness.path", "/a b", "version.readiness.path", "not the path of a URL"),
        ("readiness", {"check": "LOG"}, "version.readiness.log_text", "needs the text"),
        ("readiness.log_text", "up", "version.readiness.log_text", "only for the check LOG"),
        ("readiness.offer_timeout", "9s", "version.readiness.offer_timeout", "only for the check OFFER"),
        (
            "readiness",
            {"check": "OFFER", "offer_timeout": "0s"},
            "version.readiness.offer_timeout",
            "0s is not between 1s and 3600s",
        ),
        ("signaling.whep_path", "whep", "version.signaling.whep_path", "start it with '/'"),
        ("container.image", "--privileged", "version.container.image", "is not an image"),
        ("container.pull_policy", "often", "version.container.pull_policy", "missing, always, never"),
        ("container.user", "root", "version.container.user", "uid or uid:gid"),
        ("container.mounts.0", "/a", "version.container.mounts[0]", "SOURCE:TARGET"),
        ("container.mounts.0", "/a:b", "version.container.mounts[0]", "SOURCE:TARGET"),
        ("container.mounts.0", "/a:/b:rw,z", "version.container.mounts[0]", "SOURCE:TARGET"),
        ("container.mounts.0", "{usd_stage_uri}:/b", "version.container.mounts[0]", "choose what is mounted"),
        ("container.mounts.0", "{quality}:/b", "version.container.mounts[0]", "unknown placeholder"),
        ("container.mounts.1", "/b:/a/", "version.container.mounts[1]", "the target of another mount"),
        ("container.volume_mounts.0.target", "c", "version.container.volume_mounts[0].target", "not an absolute path"),
        ("container.volume_mounts.0.target", "/c:ro", "version.container.volume_mounts[0].target", "has ':'"),
        ("container.volume_mounts.0.target", "/a", "version.container.volume_mounts[0].target", "of another mount"),
        ("container.volume_mounts.0.source", "a/b", "version.container.volume_mounts[0].source", "name of a volume"),
        ("container.volume_mounts.0.source", "", "version.container.volume_mounts[0].source", "neither an absolute"),
        ("container.volume_mounts.0.source", "/a/../b", "version.container.volume_mounts[0].source", "'..'"),
        ("container.volume_mounts.0.source", "{usd_stage_uri}", "version.container.volume_mounts[0].source", "choose"),
        ("container.shm_size_bytes", -1, "version.container.shm_size_bytes", "negative"),
        ("fake", {"exit_after": "-1s"}, "version.fake.exit_after", "0 s or more"),
        ("fake.log_lines", ["a\nb"], "version.fake.log_lines[0]", "line break"),
    ],
)
def test_refused(path: str, value: object, field: str, problem: str) -> None:
    """What is wrong is named by its path, with its value and the fix."""
    with pytest.raises(InvalidArgument) as caught:
        validate(changed(path, value))

    assert (caught.value.field, caught.value.reason) == (field, "VERSION_INVALID")
    assert problem in caught.value.problem


def test_shell_with_positional_arguments() -> None:
    """A shell may run a script that takes a session's text as a parameter."""
    validate(changed("command", ["/bin/sh", "-c", 'exec viewer "$1"', "sh", "{quality}"]))


def test_a_stage_that_no_command_takes() -> None:
    """A version may not say that its command is given the stage, where it is not."""
    by_command = StageDelivery(method=StageDelivery.COMMAND)
    validate(Version(version="1.0.0", command=["a"], environment={"S": "{usd_stage_uri}"}, stage_delivery=by_command))

    with pytest.raises(InvalidArgument) as refused:
        validate(Version(version="1.0.0", command=["a", "{{usd_stage_uri}}"], stage_delivery=by_command))

    assert refused.value.field == "version.stage_delivery.method"


def test_a_secret_in_the_environment() -> None:
    """It needs no value: its variable is then not set."""
    validate(changed("environment", {"OMNI_PASS": "{token}", "URL": "https://me:{token}@host/{quality}"}))


def test_something_is_run() -> None:
    """An entry point that is cleared leaves the command, so there must be one."""
    cleared = json_format.ParseDict({"version": "1.0.0", "container": {"image": "a", "entrypoint": []}}, Version())

    with pytest.raises(InvalidArgument, match="and there is no command"):
        validate(cleared)

    cleared.container.entrypoint.extend(["viewer"])
    validate(cleared)
