"""NVIDIA's streaming library, which an operator provides: its files, read once, after checks."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from footlights.console.assets import FRAME, SCRIPTS, Asset, asset, load
from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FIELD: Final = "kit_library"
"""The setting that names the directory."""
PACKAGE: Final = "@nvidia/omniverse-webrtc-streaming-library"
"""What NVIDIA's registry calls it; later releases are called @nvidia/ov-web-rtc."""

_TYPES: Final[Mapping[str, str]] = {
    **SCRIPTS,
    ".css": "text/css; charset=utf-8",
    ".wasm": "application/wasm",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
_NAME: Final = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._@-]*")
_ENTRY: Final = "library.js"
_MOST_FILES, _MOST_BYTES, _MOST_MANIFEST_BYTES = 500, 32 * 1024 * 1024, 64 * 1024
_MOST_DEEP: Final = 6


@dataclass(frozen=True, slots=True)
class KitLibrary:
    """The files of the frame by path, ``frame.html`` and those of the library, and a digest that changes with any."""

    digest: str
    files: Mapping[str, Asset]

    @property
    def page(self) -> str:
        """The address of the frame's page, relative to the console's."""
        return f"{FRAME}{self.digest}/frame.html"


def read(directory: Path) -> KitLibrary:
    """Read the library from its package's directory, or from the one below it that holds the module.

    Served are its scripts, styles, images and WebAssembly; no file that is a link, hidden, or of another type.

    Raises:
        InvalidArgument: The directory holds no such library, or more than one should.
    """
    found: dict[str, bytes] = {}
    size = 0
    for path, file in _walk(directory, directory, 0):
        if file.suffix not in _TYPES:
            continue
        if not all(_NAME.fullmatch(part) for part in path.split("/")):
            raise _problem(f"{path!r} has a name that is not served: letters, digits and . _ @ - only.")
        size += file.stat().st_size
        if len(found) == _MOST_FILES or size > _MOST_BYTES:
            most = f"{_MOST_FILES} files or {_MOST_BYTES >> 20} MiB"
            raise _problem(f"{directory} holds more than {most}. Give the library's own directory.")
        found[path] = file.read_bytes()
    entry = _entry(directory, found)
    own = {path.removeprefix(FRAME): each for path, each in load().files.items() if path.startswith(FRAME)}
    files = own | {f"library/{path}": asset(body, _TYPES[path[path.rfind(".") :]]) for path, body in found.items()}
    files[_ENTRY] = asset(f'export * from "./library/{entry}";\n'.encode(), SCRIPTS[".js"])
    digest = hashlib.sha256("\0".join(f"{path}\0{files[path].etag}" for path in sorted(files)).encode())
    return KitLibrary(digest.hexdigest()[:16], files)


def _walk(root: Path, folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _problem(f"{folder} cannot be read ({error.strerror}). Give the directory of {PACKAGE}.") from None
    for entry in entries:
        if entry.is_symlink() or entry.name.startswith(".") or entry.name == "node_modules":
            continue
        if entry.is_dir():
            if depth == _MOST_DEEP:
                raise _problem(f"{entry} is deeper than a library is. Give the library's own directory.")
            yield from _walk(root, entry, depth + 1)
        elif entry.is_file():
            yield entry.relative_to(root).as_posix(), entry


def _entry(directory: Path, found: Mapping[str, bytes]) -> str:
    """Return the path of the module that exports ``AppStreamer``."""
    named = [path for path in _named(directory) if path in found]
    scripts = [path for path in found if path.endswith(tuple(SCRIPTS))]
    for path in named or scripts:
        if re.search(rb"\bexport\b[^;]*\bAppStreamer\b", found[path]):
            return path
    raise _problem(
        f"{directory} has no ES module that exports AppStreamer. Give the directory of {PACKAGE}, release 5 or later, "
        "as npm unpacks it."
    )


def _named(directory: Path) -> Iterator[str]:
    """Yield the modules that the package names as its entry, where it has a package.json."""
    manifest = directory / "package.json"
    if manifest.is_symlink() or not manifest.is_file():
        return
    with manifest.open("rb") as file:
        text = file.read(_MOST_MANIFEST_BYTES + 1)
    try:
        content = json.loads(text) if len(text) <= _MOST_MANIFEST_BYTES else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _problem(f"{manifest} is no package's.")
    exports = content.get("exports")
    for given in (*_targets(exports, 0), content.get("module"), content.get("main")):
        if isinstance(given, str):
            yield given.removeprefix("./")


def _targets(exports: Any, depth: int) -> Iterator[Any]:
    """Yield what a package exports as itself to a browser, in the order in which conditions are written."""
    if isinstance(exports, dict) and depth < _MOST_DEEP:
        for key in (".", "browser", "import", "module", "default"):
            yield from _targets(exports.get(key), depth + 1)
    else:
        yield exports


def _problem(text: str) -> InvalidArgument:
    return InvalidArgument(FIELD, text)
