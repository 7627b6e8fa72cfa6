"""Exit codes, and what is said on stderr when a command ends with one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from footlights.errors import (
    Error,
    Exhausted,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

OK, ERROR, USAGE, NOT_FOUND, DENIED, UNAVAILABLE, SESSION_FAILED, TIMEOUT = 0, 1, 2, 3, 4, 5, 6, 124
INTERRUPTED: Final = 130

HELP: Final = (
    "Exit codes: 0 ok, 1 error, 2 usage or a value that will not do, 3 not found, 4 denied, 5 unavailable, "
    "6 the session failed or ended, 124 timeout, 130 interrupted."
)

DEBUG: Final = "FOOTLIGHTS_DEBUG"
"""With this variable set an unexpected error shows its traceback."""

_BY_CLASS: Final = (
    (InvalidArgument, USAGE),
    (NotFound, NOT_FOUND),
    (PermissionDenied, DENIED),
    (Unauthenticated, DENIED),
    (Unavailable, UNAVAILABLE),
    (Exhausted, UNAVAILABLE),
)
_BY_REASON: Final = {"SESSION_OVER": SESSION_FAILED}
_DEADLINE: Final = 4

_FIXES: Final = {
    "SERVER_UNREACHABLE": "Is a control plane running there? Start one with 'footlights up', or give --server.",
    "TOKEN_MISSING": "Give --token-file FILE, or set FOOTLIGHTS_TOKEN or FOOTLIGHTS_TOKEN_FILE.",
    "TOKEN_INVALID": "The first of these counts: --token, FOOTLIGHTS_TOKEN, --token-file, FOOTLIGHTS_TOKEN_FILE.",
}


class Failed(Exception):
    """Ends a command with a code of its own and one line on stderr."""

    def __init__(self, message: str, code: int = ERROR) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: Error) -> int:
    """The exit code that stands for an error."""
    if error.code == _DEADLINE:
        return TIMEOUT
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), ERROR)


@contextmanager
def exiting() -> Iterator[None]:
    """Run a command's body: what it raises becomes a line or two on stderr and an exit code, never a traceback."""
    try:
        yield
    except Error as error:
        complain(error.message, _FIXES.get(error.reason, ""))
        raise typer.Exit(code_of(error)) from None
    except Failed as failed:
        complain(str(failed))
        raise typer.Exit(failed.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read us has had enough; the interpreter must not find out again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ERROR) from None
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except Exception as problem:
        if os.environ.get(DEBUG):
            raise
        complain(f"unexpected {type(problem).__name__}: {problem}", f"Set {DEBUG}=1 to see where, and report it.")
        raise typer.Exit(ERROR) from None


def complain(message: str, fix: str = "") -> None:
    """Say what went wrong, and what to do, on stderr."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = typer.style("error:", fg="red", bold=True) if coloured else "error:"
    typer.echo(f"{label} {message}", err=True)
    if fix:
        typer.echo(f"       {fix}", err=True)
