"""What a node allows to containers: images, mounts, networks. Decided by the operator, checked before each start."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from footlights.launch import writable
from footlights.launch.launcher import LaunchError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_REGISTRY: Final = "docker.io"
"""What engines take for the registry of a name without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRules:
    """One node's rules. What they refuse may be allowed on another node."""

    signal_host: str = ""
    """The node's address on which signalling ports are published; empty: every one."""
    media_host: str = ""
    """The same for media ports."""
    allowed_roots: tuple[str, ...] = ()
    """Directories below which mounts may be read."""
    writable_roots: tuple[str, ...] = ()
    """Directories that may be mounted to be read and written (`writable`)."""
    shared_volumes: tuple[str, ...] = ()
    """Names of volumes that sessions share, with the wildcards ``*`` and ``?``: to be read, or with ``:rw`` also to be
    written."""
    image_registries: tuple[str, ...] = ()
    """Registries, or places in them, that images may come from; empty: any."""
    image_digests: bool = False
    """Whether images must be named by digest."""
    subnets: str = "10.213.0.0/16"
    """The network that containers' own networks are parts of."""

    def check_image(self, image: str) -> None:
        """Raise LaunchError ``IMAGE_REFUSED`` where the image is not allowed here."""
        if self.image_digests and "@sha256:" not in image:
            text = f"image {image!r} is not named by digest, and this node runs no other: write name@sha256:…."
            raise LaunchError("IMAGE_REFUSED", text, rejected=True)
        name = full_name(image)
        allowed = self.image_registries
        if allowed and not any(_is_in(name, place) for place in allowed):
            text = f"image {image!r} is from none of the registries that this node allows ({', '.join(allowed)}): "
            text += "use one of them, or allow another (--image-registries)."
            raise LaunchError("IMAGE_REFUSED", text, rejected=True)

    def mounts(self, mounts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the mounts as the engine is given them, and the targets at which the launch has an own directory.

        A volume that the operator does not share is such a directory: it is empty, and ends with the launch. One that
        is shared to be read is read-only, whatever the version says. Raises LaunchError ``MOUNT_REFUSED``. Blocking: it
        looks at the sources.
        """
        given: list[str] = []
        own: list[str] = []
        for mount in mounts:
            source, _, rest = mount.partition(":")
            target, _, mode = rest.partition(":")
            if source.startswith("/"):
                given.append(f"{self._source(source, read_only=mode == 'ro')}:{rest}")
            elif (may_write := self._shares(source)) is not None:
                given.append(mount if may_write or mode == "ro" else f"{mount}:ro")
            else:
                own.append(target)
        return tuple(given), tuple(own)

    def _shares(self, volume: str) -> bool | None:
        """Say whether sessions that share a volume may write to it; None where they do not share it."""
        shared = (each.partition(":") for each in self.shared_volumes)
        found = [mode for pattern, _, mode in shared if fnmatchcase(volume, pattern)]
        return "rw" in found if found else None

    def _source(self, source: str, *, read_only: bool) -> str:
        """Return where a source really lies. The engine is given that place: no link is followed afterwards."""
        place = os.path.realpath(source)
        roots = (*self.writable_roots, *self.allowed_roots) if read_only else self.writable_roots
        if (written := writable.place_of(place, self.writable_roots)) and written != place:
            text = (
                f"{source!r} lies in {written!r}, which applications write to, and could be replaced meanwhile: mount "
            )
            raise _mount_refused(f"{text}that directory itself.")
        allowed = read_only and any(Path(place).is_relative_to(os.path.realpath(root)) for root in self.allowed_roots)
        if not written and not allowed:
            option, kind = ("--allowed-roots", "read") if read_only else ("--writable-roots", "written")
            text = f"the mount of {source!r} is below no directory of this node that may be {kind} "
            raise _mount_refused(f"{text}({', '.join(roots) or 'none'}): allow one ({option}), or mount another.")
        try:
            mode = os.stat(place).st_mode
        except OSError as error:
            raise _mount_refused(
                f"{source!r} cannot be mounted: {error.strerror}. Make it, or mount another."
            ) from None
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise _mount_refused(f"{source!r} is neither a directory nor a file: sockets and devices are not mounted.")
        if ":" in place:
            raise _mount_refused(f"{source!r} leads to {place!r}: a path with ':' cannot be mounted.")
        return place


def full_name(image: str) -> str:
    """Return an image's name with its registry, as engines complete it."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"{DEFAULT_REGISTRY}/{image if slash else f'library/{image}'}"


def _is_in(name: str, place: str) -> bool:
    place = place.rstrip("/")
    return name.startswith((f"{place}/", f"{place}:", f"{place}@")) or name == place


def _mount_refused(text: str) -> LaunchError:
    return LaunchError("MOUNT_REFUSED", text, rejected=True)
