"""Reading an ASGI scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope


def path_below_mount(scope: Scope) -> str:
    """The path below where the application is mounted: ASGI's ``path`` includes ``root_path``."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def header(scope: Scope, name: bytes) -> bytes:
    """The first header of a lower-case name; empty where there is none."""
    return next((bytes(value) for found, value in scope["headers"] if found == name), b"")
