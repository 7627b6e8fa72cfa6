"""Errors of the calls behind this dialect, in its own words: the fields and paths that its clients know."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from footlights import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

_FIELDS: Final = {
    "session_id": "id",
    "application": "id",
    "application.application": "id",
    "application.display_name": "name",
    "application.description": "description",
    "application.tags": "tags",
    "application_version": "version",
    "version.version": "version",
    "version.container.image": "container",
    "application_arguments": "arguments",
}
_PATHS: Final = (
    ("GET /v1/sessions", "GET /streaming/stream"),
    ("GET /v1/applications", "GET /cfg/apps"),
)


def in_its_words(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have a handler raise errors as this dialect says them; what they are stays."""

    @wraps(method)
    async def handler(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except errors.InvalidArgument as error:
            raise error.renamed(_renamed).reword(_with_paths) from None
        except errors.Error as error:
            error.reword(_said)
            raise

    return handler


def _renamed(field: str) -> str:
    """Return what a field is called here: by the longest beginning of its path that is known."""
    path, rest = field, ""
    while path not in _FIELDS and path:
        path, dot, last = path.rpartition(".")
        rest = f".{last}{rest}" if dot or last else rest
    return f"{_FIELDS[path]}{rest}" if path else field


def _said(message: str) -> str:
    field, colon, rest = message.partition(": ")
    is_field = colon and " " not in field
    return _with_paths(f"{_renamed(field)}{colon}{rest}" if is_field else message)


def _with_paths(message: str) -> str:
    for ours, theirs in _PATHS:
        message = message.replace(ours, theirs)
    return message
