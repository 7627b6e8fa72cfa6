"""``footlights apps test``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from footlights.agent.config import AgentConfig
from footlights.cli import options
from footlights.cli.calls import pairs
from footlights.cli.commands.apps import load
from footlights.cli.durations import duration
from footlights.cli.exits import Failed, exiting
from footlights.cli.output import Output
from footlights.errors import InvalidArgument
from footlights.protocol.output import visible

if TYPE_CHECKING:
    from footlights.certify.findings import Finding
    from footlights.v1.application_pb2 import ApplyApplicationRequest, Version

_OF_THE_NODE: Final = (
    "devices",
    "software_devices",
    "public_address",
    "first_port",
    "last_port",
    "container_engine",
    "container_socket",
    "container_network",
    "container_subnets",
    "allowed_roots",
    "writable_roots",
    "shared_volumes",
    "denied_networks",
)
"""The options of ``footlights agent`` that a trial may need."""

_COLOURS: Final = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}

_OWN: Final = {
    "file": (
        Annotated[str, typer.Argument(metavar="FILE|RECIPE", help="An application's YAML file, or a recipe.")],
        ...,
    ),
    "set_": (
        Annotated[
            list[str] | None, typer.Option("--set", metavar="K=V", help="A value for ${K} in the file; repeatable.")
        ],
        None,
    ),
    "version": (Annotated[str, typer.Option("--version", help="Which version; default: that of its release.")], ""),
    "stage": (Annotated[str, typer.Option("--stage", help="The stage to open; default: the version's own.")], ""),
    "argument": (
        Annotated[
            list[str] | None,
            typer.Option("--argument", metavar="K=V", help="An argument, its value as JSON or text; repeatable."),
        ],
        None,
    ),
    "settle": (
        Annotated[
            float,
            typer.Option("--settle", parser=duration, metavar="DURATION", help="How long to watch it do nothing."),
        ],
        "3s",
    ),
    "output": (Annotated[Output, typer.Option("--output", "-o", help="table or json.")], Output.TABLE),
}


def register(app: typer.Typer) -> None:
    """Add the command to the group ``apps``."""
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in _OWN.items()
    ]
    node = [
        each
        for each in options.parameters(AgentConfig, {"data_dir": Path(), "server": ""})
        if each.name in _OF_THE_NODE
    ]
    options.register(app, "test", _test, [*own, *node])


def _test(**given: Any) -> None:
    """Certify a recipe: launch it on this machine as a session would be, and judge it line by line.

    No control plane is needed. Run it on a node, as the user that its agent runs as, with the agent's options. Each
    line is PASS, WARN, FAIL or SKIP, with what to do; the exit code is 1 if one is FAIL.
    """
    with exiting():
        own = {name: given.pop(name) for name in _OWN}
        if own["output"] not in (Output.TABLE, Output.JSON):
            raise InvalidArgument("--output", f"this is printed as table or json (got {own['output'].value}).")
        # What still writes to it, in threads, is over with the event loop.
        with tempfile.TemporaryDirectory(prefix="footlights-test-", dir=os.environ.get("TMPDIR")) as directory:
            findings = asyncio.run(_certify(own, {**given, "data_dir": Path(directory)}))
        if own["output"] is Output.JSON:
            typer.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
        counts = Counter(finding.verdict.value for finding in findings)
        if counts["FAIL"]:
            raise Failed(f"{counts['FAIL']} of {len(findings)} lines failed.")


async def _certify(own: dict[str, Any], node: dict[str, Any]) -> list[Finding]:
    from footlights.certify.certification import Certification, certify
    from footlights.launch.launchers import traits_of
    from footlights.logging import set_up_logging

    request = load(own["file"], pairs("set", own["set_"] or []))
    version = _version(request, own["version"])
    arguments = {name: _value(text) for name, text in pairs("argument", own["argument"] or []).items()}
    set_up_logging("console", "error")
    findings = []
    config = options.fill(
        AgentConfig,
        {
            **node,
            "server": "unix:/nowhere",
            "launchers": [traits_of(version).name],
            "slots_per_device": max(1, version.needs.slots),
        },
    )
    async for finding in certify(Certification(version, arguments, own["stage"], own["settle"]), config):
        findings.append(finding)
        if own["output"] is not Output.JSON:
            _print(finding)
    return findings


def _version(request: ApplyApplicationRequest, wanted: str) -> Version:
    versions = {version.version: version for version in request.versions}
    name = wanted or request.releases.get("default", "") or next(iter(versions), "")
    if name not in versions:
        known = ", ".join(versions) or "none"
        raise InvalidArgument("--version", f"the file has no version {name!r}: it has {known}.")
    return versions[name]


def _value(text: str) -> object:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


def _print(finding: Finding) -> None:
    verdict = typer.style(finding.verdict.value, fg=_COLOURS.get(finding.verdict.value))
    typer.echo(f"{verdict}  {finding.check:<14}  {visible(finding.detail)}")
    if finding.fix:
        typer.echo(f"{'':<22}{visible(finding.fix)}")
