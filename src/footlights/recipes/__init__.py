"""Application files: those that ship with Footlights, and how to read any of them.

A file is an ``ApplyApplicationRequest`` in YAML: ``application``, ``versions``, ``releases``. Its texts may contain
variables, which are replaced once, when the file is read, so that one file works on differently installed hosts:

    ${NAME}             required
    ${NAME:-default}    the default if NAME is not given; it may be a placeholder of a launch, ``{public_address}``
    ${NAME:?VALUE}      required, and nothing but VALUE: for what somebody has to agree to
    $${                 a literal ``${``

``FOOTLIGHTS_STAGES`` and ``FOOTLIGHTS_KIT_STAGE`` are always defined: the directory of the sample stages in this
installation, and the file of ``kit_stage``. Variables are not the
placeholders of a launch (``{signal_port}``), which are replaced for each launch.
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

KIT_STAGE = Path(__file__).with_name("kit_stage.py")
"""What Kit runs to open a stage whose address is secret."""
MAX_FILE_BYTES = 4 << 20
RENAMED = {"kit-108": "kit-108-110"}
"""Recipes of releases before, by the names that they had: each is loaded for an application of its old name."""
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])((?:[^{}]|\{[^{}]*\})*))?\}|\$\{")


def names() -> list[str]:
    """Return the names of the recipes that ship with Footlights, for ``load``."""
    folder = resources.files(__name__)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(source: str | Path, variables: Mapping[str, str] | None = None) -> ApplyApplicationRequest:
    """Read an application file.

    Args:
        source: A path, or the name of a recipe that ships with Footlights (``usd-viewer``).
        variables: Values for the file's ``${NAME}``.

    Raises:
        InvalidArgument: the file is missing or not YAML, or has a variable without a value or an unknown member; names
            the file and the member.
    """
    renamed = RENAMED.get(source) if isinstance(source, str) else None
    label, text = _read(renamed or source)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidArgument(label, f"not valid YAML: {error}") from None
    if not isinstance(content, dict) or "application" not in content:
        raise InvalidArgument(label, "not an application file; it must have a member 'application'.")
    given = {"FOOTLIGHTS_STAGES": str(stages()), "FOOTLIGHTS_KIT_STAGE": str(KIT_STAGE), **(variables or {})}
    filled = {str(name): _fill(item, given, label, str(name)) for name, item in content.items()}
    try:
        loaded = json_format.ParseDict(filled, ApplyApplicationRequest())
    except json_format.ParseError as error:
        raise InvalidArgument(label, f"{error}") from None
    if renamed:
        loaded.application.application = str(source)
    return loaded


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
            str(source), f"{error.strerror}; give a file, or one of the recipes {', '.join(known)}."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgument(
            str(source), f"an application file must be at most {MAX_FILE_BYTES} bytes; this file is larger."
        )
    try:
        return str(source), content.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(str(source), "not UTF-8 text; save it in UTF-8.") from None


def _fill(value: object, variables: Mapping[str, str], label: str, member: str) -> object:
    """Replace the variables in every text of a tree."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _value(found, variables, label, member), value)
    if isinstance(value, dict):
        return {str(name): _fill(item, variables, label, f"{member}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, variables, label, f"{member}[{number}]") for number, item in enumerate(value)]
    return value


def _value(found: re.Match[str], variables: Mapping[str, str], label: str, member: str) -> str:
    name: str | None = found.group(1)
    kind: str | None = found.group(2)
    if found.group() == "$${":
        return "${"
    if name is None:
        raise InvalidArgument(
            f"{label}: {member}", "contains '${' without a name; write ${NAME}, or $${ for a literal one."
        )
    value = variables.get(name, found.group(3) if kind == "-" else None)
    if kind == "?" and value != found.group(3):
        text = f"{name} is {value!r}" if value is not None else f"{name} has no value"
        raise InvalidArgument(f"{label}: {member}", f"{text}; set it to {found.group(3)!r} where you agree to it.")
    if value is None:
        raise InvalidArgument(
            f"{label}: {member}", f"${{{name}}} has no value; set {name}, or write ${{{name}:-default}}."
        )
    return value
