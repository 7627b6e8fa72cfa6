"""What a version runs: what it puts in place of its image's entry point, and then its command. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from footlights.v1.application_pb2 import Container, Version

_SCRIPT = re.compile(r".+\.(ba|da|z|k)?sh|(docker-)?entrypoint([._-].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CommandToken:
    """One token, and the field that it is written in."""

    field: str
    text: str


def entry_point_of(container: Container) -> list[str] | None:
    """Return what runs in place of the image's entry point; None where the image's own does."""
    if not container.HasField("entrypoint"):
        return None
    return [value.string_value for value in container.entrypoint.values]


def whole_command(version: Version) -> list[CommandToken]:
    """Return all tokens that the version itself names; an image's own entry point is before them."""
    first = entry_point_of(version.container) or ()
    return [
        *(CommandToken(f"version.container.entrypoint[{number}]", text) for number, text in enumerate(first)),
        *(CommandToken(f"version.command[{number}]", text) for number, text in enumerate(version.command)),
    ]


def foreign_reader(version: Version) -> str:
    """Say what takes the command and may parse it once more, as NVIDIA's images do by ``eval``; empty for nothing.

    It is the image's own entry point, of which nothing is known, or a shell's script that the version names.
    """
    if version.HasField("container") and not version.container.HasField("entrypoint"):
        return "the image's own entry point"
    script = next((token.text for token in whole_command(version) if _is_script(token.text)), "")
    return f"the script {script!r}" if script else ""


def _is_script(text: str) -> bool:
    return not text.startswith("-") and _SCRIPT.fullmatch(posixpath.basename(text)) is not None
