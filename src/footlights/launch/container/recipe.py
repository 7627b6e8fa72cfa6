"""Whether a version's ``container`` can be launched. Pure; part of `recipe.validate`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from footlights.launch.recipe.checks import refuse
from footlights.launch.recipe.template import BUILT_IN, TemplateError, parse

if TYPE_CHECKING:
    from footlights.v1.application_pb2 import Version

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
    if container.shm_size_bytes < 0:
        raise refuse("version.container.shm_size_bytes", f"{container.shm_size_bytes} is negative: give a size.")
    if len(container.mounts) > 64:
        raise refuse("version.container.mounts", f"it has {len(container.mounts)} mounts: at most 64 are allowed.")
    for number, mount in enumerate(container.mounts):
        _check_mount(f"version.container.mounts[{number}]", mount)


def _check_mount(field: str, mount: str) -> None:
    try:
        names = parse(mount, BUILT_IN).names
    except TemplateError as error:
        raise refuse(field, str(error)) from None
    if "usd_stage_uri" in names:
        raise refuse(field, f"{mount!r} lets a session choose what is mounted: mount its root instead.")
    source, _, rest = mount.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro") or ".." in mount.split("/"):
        raise refuse(field, f"{mount!r} is not a mount: write SOURCE:TARGET or SOURCE:TARGET:ro, the target absolute.")
