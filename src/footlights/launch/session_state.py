"""What an application keeps of its own: made for one launch, where HOME and its like point, and gone with it.

Standard library only. A launcher whose applications have a file system of their own needs none of this.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STATE: Final = "state"
"""The directory of a launch's own directory that the application may write to."""
HOME: Final = f"{STATE}/home"
"""Also where it starts, unless its version says otherwise."""
_VARIABLES: Final[Mapping[str, str]] = {
    "HOME": HOME,
    "TMPDIR": f"{STATE}/tmp",  # noqa: S108  # the launch's own
    "XDG_CACHE_HOME": f"{HOME}/.cache",
    "XDG_CONFIG_HOME": f"{HOME}/.config",
    "XDG_DATA_HOME": f"{HOME}/.local/share",
    "XDG_STATE_HOME": f"{HOME}/.local/state",
    "XDG_RUNTIME_DIR": f"{STATE}/run",
}


def variables(directory: Path) -> dict[str, str]:
    """Return the variables of the environment that name the state in a launch's directory."""
    return {name: str(directory / place) for name, place in _VARIABLES.items()}


def make(directory: Path) -> None:
    """Make it, empty and private. Raises OSError."""
    for place in _VARIABLES.values():
        path = directory
        for part in place.split("/"):
            path /= part
            path.mkdir(mode=0o700, exist_ok=True)


def link(place: Path, target: str) -> None:
    """Put a link into it, in the place of what was made for every launch, and make the directories above.

    Raises OSError.
    """
    for folder in reversed(place.parents):
        folder.mkdir(mode=0o700, exist_ok=True)
    remove(place)
    place.symlink_to(target)


def remove(path: Path) -> None:
    """Remove a file or a directory with everything in it: on return it is gone.

    An application may have nested directories deeper than a path can be, or have taken every permission from them.
    Each directory is emptied into the first one, so that none is ever more than one level down.

    Raises:
        OSError: something could not be removed; what is left may be removed by another call.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        os.chmod(path, 0o700)
        while entries := [*os.scandir(path)]:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _empty_into(path, entry.path)
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)
        path.rmdir()
    except FileNotFoundError:
        if os.path.lexists(path):
            raise


def _empty_into(first: Path, directory: str) -> None:
    os.chmod(directory, 0o700)
    for entry in [*os.scandir(directory)]:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)  # a directory that is moved is written to
            os.rename(entry.path, first / secrets.token_hex(16))
        else:
            os.unlink(entry.path)
