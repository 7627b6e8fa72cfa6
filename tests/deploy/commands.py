"""Command lines and environments of deployments, read by the real command line without running anything."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import typer.main

from footlights.agent.config import AgentConfig
from footlights.auth.secrets import ENVIRONMENT as CLUSTER_KEY
from footlights.cli import options
from footlights.cli.app import app
from footlights.control.settings import ServerSettings

_RECORDS: Mapping[str, type] = {"server": ServerSettings, "agent": AgentConfig}
_OTHER_VARIABLES = frozenset({CLUSTER_KEY})


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that the command line takes."""

    name: str
    values: Mapping[str, Any]
    record: Any
    """The settings that ``server`` and ``agent`` would run with; None for other commands."""


def accept(monkeypatch: pytest.MonkeyPatch, argv: Sequence[str], environment: Mapping[str, str | None]) -> Accepted:
    """Parse ``footlights ARGV`` under an environment; fail where an option, a variable or a value is not accepted."""
    command = _root()
    words = list(argv)
    assert words.pop(0).rpartition("/")[2] == "footlights", argv
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]!r}: {argv}"
        command = command.commands[words.pop(0)]
    known = {parameter.envvar for parameter in command.params if getattr(parameter, "envvar", None)}
    ours = {name for name in environment if name.startswith("FOOTLIGHTS_")}
    assert ours <= known | _OTHER_VARIABLES, f"{command.name} does not read {ours - known}"
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value or "")
        given = command.make_context(command.name, words).params
    # As typer hands them on: a repeated option that was not given is None.
    values = {name: None if value in ([], ()) else value for name, value in given.items()}
    record = None
    if command.name in _RECORDS:
        logging = ("log_format", "log_level") if command.name == "agent" else ()
        record = options.fill(
            _RECORDS[command.name], {name: value for name, value in values.items() if name not in logging}
        )
    return Accepted(command.name, values, record)


@functools.cache
def _root() -> Any:
    return typer.main.get_command(app)


def env_file(text: str, *, commented: bool) -> dict[str, str]:
    """Read an environment file as systemd and Compose do; ``commented`` takes what is commented out too."""
    line = re.compile(r"^#?([A-Z][A-Z_]*)=(.*)$" if commented else r"^([A-Z][A-Z_]*)=(.*)$", re.MULTILINE)
    return {name: value.strip() for name, value in line.findall(text)}
