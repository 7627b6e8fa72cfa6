"""Whether a version's ``container`` can be launched. Pure; part of `recipe.validate`."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from footlights.launch.recipe.checks import refuse
from footlights.launch.recipe.template import BUILT_IN, TemplateError, parse
from footlights.launch.recipe.whole_command import whole_command

if TYPE_CHECKING:
    from footlights.v1.application_pb2 import Container, Version

MAX_MOUNTS = 64
PULL_POLICIES = ("missing", "always", "never")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")
_USER = re.compile(r"\d{1,10}(:\d{1,10})?")


def validate(version: Version) -> None:
    """Check the container of a version. Raises InvalidArgument, as `recipe.validate` does."""
    container = version.container
    if _IMAGE.fullmatch(container.image) is None:
        text = f"{container.image!r} is not an image: write it as registry/name:tag or name@sha256:…."
        raise refuse("version.container.image", text)
    if container.pull_policy and container.pull_policy not in PULL_POLICIES:
        choices = ", ".join(PULL_POLICIES)
        raise refuse("version.container.pull_policy", f"{container.pull_policy!r} is unknown: choose one of {choices}.")
    if container.user and _USER.fullmatch(container.user) is None:
        raise refuse("version.container.user", f"{container.user!r} is not a user: write uid or uid:gid in digits.")
    _check_entry_point(version)
    if container.shm_size_bytes < 0:
        raise refuse("version.container.shm_size_bytes", f"{container.shm_size_bytes} is negative: give a size.")
    if len(mounts_of(container)) > MAX_MOUNTS:
        count = len(mounts_of(container))
        raise refuse("version.container.volume_mounts", f"it has {count} mounts: at most {MAX_MOUNTS} are allowed.")
    targets: set[str] = set()
    for number, mount in enumerate(container.mounts):
        field = f"version.container.mounts[{number}]"
        _check_mount(field, mount)
        _check_target(field, mount.split(":")[1], targets)
    for number, volume in enumerate(container.volume_mounts):
        field = f"version.container.volume_mounts[{number}]"
        _check_volume(field, volume)
        _check_target(f"{field}.target", volume.target, targets)


def _check_entry_point(version: Version) -> None:
    if not version.container.HasField("entrypoint"):
        return
    for number, value in enumerate(version.container.entrypoint.values):
        if value.WhichOneof("kind") != "string_value":
            field = f"version.container.entrypoint[{number}]"
            raise refuse(field, "it is not text: write each token in quotes, as of a command.")
    if not whole_command(version):
        raise refuse("version.container.entrypoint", "it is [] and there is no command: write one of them.")


def mounts_of(container: Container) -> list[str]:
    """Return all mounts of a container as engines are given them, ``SOURCE:TARGET[:ro]``, with their templates."""
    volumes = [f"{each.source}:{each.target}{':ro' if each.read_only else ''}" for each in container.volume_mounts]
    return [*container.mounts, *volumes]


def _check_volume(field: str, volume: Container.VolumeMount) -> None:
    for name in ("source", "target"):
        text = getattr(volume, name)
        _check_template(f"{field}.{name}", text)
        if ":" in text or ".." in text.split("/"):
            raise refuse(f"{field}.{name}", f"{text!r} has ':' or '..': write a path or a name without them.")
    if not volume.source.startswith("/") and (not volume.source or "/" in volume.source):
        raise refuse(f"{field}.source", f"{volume.source!r} is neither an absolute path nor the name of a volume.")
    if not volume.target.startswith("/"):
        raise refuse(f"{field}.target", f"{volume.target!r} is not an absolute path: write one, such as /data.")


def _check_target(field: str, target: str, known: set[str]) -> None:
    place = posixpath.normpath(target)
    if place in known:
        raise refuse(field, f"{target!r} is the target of another mount: remove one of them.")
    known.add(place)


def _check_template(field: str, text: str) -> None:
    try:
        names = parse(text, BUILT_IN).names
    except TemplateError as error:
        raise refuse(field, str(error)) from None
    if "usd_stage_uri" in names:
        raise refuse(field, f"{text!r} lets a session choose what is mounted: mount its root instead.")


def _check_mount(field: str, mount: str) -> None:
    _check_template(field, mount)
    source, _, rest = mount.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro") or ".." in mount.split("/"):
        raise refuse(field, f"{mount!r} is not a mount: write SOURCE:TARGET or SOURCE:TARGET:ro, the target absolute.")
