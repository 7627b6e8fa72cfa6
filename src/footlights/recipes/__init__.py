"""Applications as files: the ones that ship with Footlights, and how any such file is read.

A file is YAML in the form of ``ApplyApplicationRequest``: ``application``, ``versions``, ``releases``. Texts in it may
hold variables, filled in once when the file is read, so that one file serves hosts that are laid out differently:

    ${NAME}             must be given
    ${NAME:-default}    the default where it is not given
    $${                 a plain ``${``

``FOOTLIGHTS_STAGES`` is always there: the directory of the sample stages in this installation. Variables are not the
placeholders of a launch (``{signal_port}``), which are filled in again for each one.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from google.protobuf import json_format

import footlights
from footlights.errors import InvalidArgument
from footlights.v1.application_pb2 import ApplyApplicationRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE_BYTES = 4 << 20
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


def names() -> list[str]:
    """List the recipes that ship with Footlights, by the names that ``load`` takes."""
    folder = resources.files(__name__)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(source: str | Path, variables: Mapping[str, str] | None = None) -> ApplyApplicationRequest:
    """Read an application's file.

    Args:
        source: A path, or the name of a recipe that ships with Footlights (``usd-viewer``).
        variables: Values for the file's ``${NAME}``.

    Raises:
        InvalidArgument: the file is not there, is no YAML, holds a variable without a value, or a member that the API
            does not have; names the file and the member.
    """
    label, text = _read(source)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidArgument(label, f"it is no YAML: {error}") from None
    if not isinstance(content, dict) or "application" not in content:
        raise InvalidArgument(label, "it is no application file: begin it with 'application:'.")
    given = {"FOOTLIGHTS_STAGES": str(stages()), **(variables or {})}
    filled = {str(name): _fill(item, given, label, str(name)) for name, item in content.items()}
    try:
        return json_format.ParseDict(filled, ApplyApplicationRequest())
    except json_format.ParseError as error:
        raise InvalidArgument(label, f"{error}") from None


def stages() -> Path:
    """Return the directory of the sample stages in this installation."""
    return Path(footlights.__file__).parent / "viewer" / "stages"


def _read(source: str | Path) -> tuple[str, str]:
    if isinstance(source, str) and source in (known := names()):
        return f"{source}.yaml", (resources.files(__name__) / f"{source}.yaml").read_text(encoding="utf-8")
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        known = names()
        raise InvalidArgument(
            str(source), f"{error.strerror}: give a file, or one of the recipes {', '.join(known)}."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgument(str(source), f"it is larger than {MAX_FILE_BYTES} bytes: it is no application file.")
    try:
        return str(source), content.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(str(source), "it is no UTF-8 text: save it as such.") from None


def _fill(value: object, variables: Mapping[str, str], label: str, member: str) -> object:
    """Fill variables into every text of a tree."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _value(found, variables, label, member), value)
    if isinstance(value, dict):
        return {str(name): _fill(item, variables, label, f"{member}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, variables, label, f"{member}[{number}]") for number, item in enumerate(value)]
    return value


def _value(found: re.Match[str], variables: Mapping[str, str], label: str, member: str) -> str:
    name: str | None = found.group(1)
    default: str | None = found.group(2)
    if found.group() == "$${":
        return "${"
    if name is None:
        raise InvalidArgument(f"{label}: {member}", "it has a lone '${': write ${NAME}, or $${ for itself.")
    value = variables.get(name, default)
    if value is None:
        raise InvalidArgument(
            f"{label}: {member}", f"${{{name}}} has no value: give {name}, or write ${{{name}:-default}}."
        )
    return value
