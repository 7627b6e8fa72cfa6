"""Whether a version's ``systemd`` can be launched. Pure; part of `recipe.validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from footlights.launch.recipe.checks import refuse
from footlights.launch.recipe.stages import StageError, parse_stage

if TYPE_CHECKING:
    from footlights.v1.application_pb2 import Version

MAX_PATHS: Final = 64
MIN_BYTES: Final = 1 << 20
MIN_PROCESSORS: Final = 0.01


def validate(version: Version) -> None:
    """Check the unit of a version. Raises InvalidArgument, as `recipe.validate` does."""
    systemd = version.systemd
    if len(systemd.read_only_paths) > MAX_PATHS:
        count = len(systemd.read_only_paths)
        raise refuse("version.systemd.read_only_paths", f"it has {count} paths: at most {MAX_PATHS} are allowed.")
    for number, path in enumerate(systemd.read_only_paths):
        _check_path(f"version.systemd.read_only_paths[{number}]", path)
    for name in ("memory_bytes", "disk_bytes"):
        size = getattr(systemd, name)
        if size != 0 and size < MIN_BYTES:
            raise refuse(f"version.systemd.{name}", f"{size} is less than {MIN_BYTES}: give at least that, or 0.")
    if systemd.tasks < 0:
        raise refuse("version.systemd.tasks", f"{systemd.tasks} is negative: give a number, or 0.")
    # Also refuses what is not a number.
    if systemd.processors != 0 and not MIN_PROCESSORS <= systemd.processors <= 4096:
        text = f"{systemd.processors:g} is not between {MIN_PROCESSORS} and 4096: give a number of processors, or 0."
        raise refuse("version.systemd.processors", text)


def _check_path(field: str, path: str) -> None:
    try:
        address = parse_stage(path)
    except StageError as error:
        raise refuse(field, str(error)) from None
    if address.scheme or address.text != path:
        raise refuse(
            field, f"{path!r} is not a plain path: write an absolute path without '//' and an end without '/'."
        )
    if not address.segments:
        raise refuse(field, "'/' is the whole node: name the directories that the application reads.")
