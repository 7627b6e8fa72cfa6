"""The console's files, read once: their bytes, types and hashes."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

PAGE = "index.html"
"""The only file that is not addressed by the digest: it names all others."""
FRAME = "kit/"
"""Where the files of the frame around NVIDIA's library are, which are served apart."""

SCRIPTS: Mapping[str, str] = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
}
_TYPES: Mapping[str, str] = {
    **SCRIPTS,
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
    ".LICENSE": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; ``gzipped`` is None if that is not smaller, ``etag`` is a strong entity tag with its quotes."""

    body: bytes
    gzipped: bytes | None
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Assets:
    """All files by path (``views/fleet/nodes.js``), and ``digest``, which changes when any of them does."""

    digest: str
    files: Mapping[str, Asset]


@cache
def load(kit: str = "") -> Assets:
    """Read the package's static files, once in a process.

    In the page ``{{assets}}`` is replaced by the address of the files (``assets/<digest>``), ``{{preloads}}`` by a
    ``modulepreload`` link per module, so that a browser fetches all modules at once, and ``{{kit}}`` by ``kit``: the
    address of the page around NVIDIA's library, empty where there is none.

    Raises:
        ValueError: A file has an unknown ending.
    """
    sources = dict(_walk(resources.files("footlights.console") / "static", ""))
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.encode() + b"\0" + hashlib.sha256(sources[path]).digest())
    address = digest.hexdigest()[:16]
    page = _page(sources[PAGE].decode(), f"assets/{address}", sorted(sources))
    sources[PAGE] = page.replace("{{kit}}", kit).encode()
    return Assets(digest=address, files={path: _asset(path, body) for path, body in sources.items()})


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _page(text: str, address: str, paths: list[str]) -> str:
    modules = [path for path in paths if path.endswith(tuple(SCRIPTS)) and path != "theme.js"]
    modules = [path for path in modules if not path.startswith(FRAME)]
    links = "\n".join(f'    <link rel="modulepreload" href="{address}/{path}">' for path in modules)
    return text.replace("{{assets}}", address).replace("    {{preloads}}", links)


def _asset(path: str, body: bytes) -> Asset:
    ending = path[path.rfind(".") :]
    if ending not in _TYPES:
        raise ValueError(f"{path}: unknown ending {ending!r}; add its media type to console/assets.py")
    return asset(body, _TYPES[ending])


def asset(body: bytes, media_type: str) -> Asset:
    """Return a file to be served."""
    gzipped = gzip.compress(body, mtime=0)
    return Asset(
        body=body,
        gzipped=gzipped if len(gzipped) < len(body) else None,
        media_type=media_type,
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
    )
