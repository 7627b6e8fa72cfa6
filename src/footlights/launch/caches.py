"""What applications could make again, such as compiled shaders, kept on a node for each version, for sessions to read.

A version names the directories below its home (``cache_paths``). What is kept is shown there read-only, so no session
changes what the next one reads. Only an operator fills it (``footlights caches take``), from a session that he trusts.
Each filling is a generation of its own; the one before stays for the sessions that were shown it.

    ROOT/APPLICATION@VERSION/GENERATION/NUMBER      NUMBER: of the path among the version's
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from footlights.launch.recipe.checks import refuse
from footlights.linux import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from footlights.v1.application_pb2 import Version

MOST_PATHS: Final = 8
MOST_ENTRIES: Final = 1_000_000
_HOME: Final = "~/"
_PATH: Final = re.compile(r"~(/[A-Za-z0-9._+-]+){1,16}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DIGITS: Final = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True)
class ShownCache:
    """A directory that a launch is shown."""

    source: str
    """The node's."""
    relative: str
    """Where the application sees it, below its home."""


@dataclass(frozen=True, slots=True)
class KeptCache:
    """What is kept for a version."""

    name: str
    """``APPLICATION@VERSION``."""
    generation: int
    size: int
    """In bytes."""


class CacheError(Exception):
    """A cache could not be filled."""


def validate(version: Version) -> None:
    """Check the paths of a version. Raises InvalidArgument, as `recipe.validate` does."""
    if len(version.cache_paths) > MOST_PATHS:
        text = f"it has {len(version.cache_paths)} paths: at most {MOST_PATHS} are allowed."
        raise refuse("version.cache_paths", text)
    for number, path in enumerate(version.cache_paths):
        field = f"version.cache_paths[{number}]"
        if _PATH.fullmatch(path) is None or {".", ".."} & {*path.split("/")}:
            raise refuse(field, f"{path!r} is not a directory below the home: write one such as ~/.cache/app.")
        for other in version.cache_paths[:number]:
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
                raise refuse(field, f"{path!r} and {other!r}: one lies in the other: write the outer one alone.")


class CacheStore:
    """The caches of one node."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def shown(self, version: Version) -> tuple[ShownCache, ...]:
        """Return what a launch of a version is shown: nothing where nothing is kept. Blocking."""
        generation = self._newest(_name_of(version))
        if generation is None:
            return ()
        found = [
            ShownCache(str(generation / str(number)), path.removeprefix(_HOME))
            for number, path in enumerate(version.cache_paths)
            if _PATH.fullmatch(path) and (generation / str(number)).is_dir()
        ]
        return tuple(found)

    def take(self, version: Version, root: str, home: str, *, owner: int, most_bytes: int) -> KeptCache:
        """Keep what a session has in the directories that its version names. Blocking.

        No link is followed, and nothing but directories and plain files is taken, and of those only what is the
        session's: its version says where its home is, and everybody may read what is kept.

        Args:
            version: The session's.
            root: The root of its file system, such as ``/proc/PID/root``.
            home: Its home, in there.
            owner: Its user's id.
            most_bytes: How much is taken at most.

        Raises:
            CacheError: there is nothing, or too much.
            OSError: something could not be read or written.
        """
        name = _name_of(version)
        if not name or not version.cache_paths:
            raise CacheError("its version names no cache_paths")
        newest = self._newest(name)
        number = int(newest.name) + 1 if newest is not None else 1
        draft = self._root / name / f".{number}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o755, parents=True)
        copied = _Copy(owner, most_bytes)
        try:
            for place, path in enumerate(version.cache_paths):
                with contextlib.suppress(FileNotFoundError):
                    copied.tree(root, f"{home}/{path.removeprefix(_HOME)}", draft / str(place))
            if copied.entries == 0:
                raise CacheError(f"nothing of its own is in {', '.join(version.cache_paths)}")
            draft.chmod(0o755)
            draft.rename(self._root / name / str(number))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        for old in self._generations(name)[:-2]:
            shutil.rmtree(old)
        return KeptCache(name, number, copied.size)

    def kept(self) -> list[KeptCache]:
        """List what is kept, the newest generation of each version. Blocking."""
        names = sorted(path.name for path in self._root.glob("*") if path.is_dir())
        newest = {name: generation for name in names if (generation := self._newest(name)) is not None}
        return [KeptCache(name, int(place.name), _size(place)) for name, place in newest.items()]

    def remove(self, application: str, version: str) -> bool:
        """Remove what is kept for a version; return whether there was something. Sessions that read it lose it."""
        place = self._root / f"{application}@{version}"
        if not _is_name(application) or not _is_name(version) or not place.is_dir():
            return False
        shutil.rmtree(place)
        return True

    def _newest(self, name: str) -> Path | None:
        found = self._generations(name) if name else []
        return found[-1] if found else None

    def _generations(self, name: str) -> list[Path]:
        found = [path for path in (self._root / name).glob("*") if _DIGITS.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name))


class _Copy:
    def __init__(self, owner: int, most_bytes: int) -> None:
        self._owner, self._most_bytes = owner, most_bytes
        self.entries = self.size = 0

    def tree(self, root: str, path: str, target: Path) -> None:
        """Copy what is in a directory."""
        top = files.open_within(root, path)
        try:
            readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
        finally:
            os.close(top)
        try:
            for here, _, names, folder in os.fwalk(dir_fd=readable, follow_symlinks=False):
                place = target / here
                place.mkdir(mode=0o755, exist_ok=True)
                place.chmod(0o755)
                for name in names:
                    self._file(name, folder, place / name)
        finally:
            os.close(readable)

    def _file(self, name: str, folder: int, target: Path) -> None:
        try:
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return  # a link, or it is gone by now
        with os.fdopen(source, "rb") as file:
            found = os.fstat(source)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != self._owner:
                return
            self.entries += 1
            with target.open("xb") as copy:
                while piece := file.read(1 << 20):
                    self.size += len(piece)
                    if self.size > self._most_bytes or self.entries > MOST_ENTRIES:
                        text = f"it has more than {self._most_bytes} bytes or {MOST_ENTRIES} files: raise --most-bytes"
                        raise CacheError(text)
                    copy.write(piece)
            target.chmod(0o644)


def _name_of(version: Version) -> str:
    good = _is_name(version.application) and _is_name(version.version)
    return f"{version.application}@{version.version}" if good else ""


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in _plain_files(place))


def _plain_files(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("*") if path.is_file())
