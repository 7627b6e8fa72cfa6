"""Secrets that are given by file: ``FOOTLIGHTS_DATABASE_FILE`` is the file with what ``FOOTLIGHTS_DATABASE`` would be.

The environment with which a process was started can be read by other processes of its user for as long as it runs, and
is shown by container engines; a file has an owner and a mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import MutableMapping

BY_FILE: Final = ("FOOTLIGHTS_DATABASE", "FOOTLIGHTS_CLUSTER_KEY")
"""The variables that may be given by file. Those of tokens have options of their own."""


def read_secret_files(environ: MutableMapping[str, str]) -> None:
    """Replace each ``NAME_FILE`` by ``NAME`` with the file's content.

    Raises InvalidArgument where both are set, or where the file is empty or cannot be read.
    """
    for name in BY_FILE:
        path = environ.pop(f"{name}_FILE", "")
        if not path:
            continue
        if environ.get(name):
            raise InvalidArgument(f"{name}_FILE", f"{name} is set too. Unset one of them.")
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{name}_FILE", f"{path} cannot be read: {error}") from error
        if not text:
            raise InvalidArgument(f"{name}_FILE", f"{path} is empty. Put the value of {name} into it.")
        environ[name] = text
