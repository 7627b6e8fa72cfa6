"""Exit codes, and the error messages on stderr that go with them."""

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
from footlights.protocol.output import visible

OK, ERROR, USAGE, NOT_FOUND, DENIED, UNAVAILABLE, SESSION_FAILED, TIMEOUT = 0, 1, 2, 3, 4, 5, 6, 124
INTERRUPTED: Final = 130

HELP: Final = (
    "Exit codes: 0 ok, 1 error, 2 usage or an invalid value, 3 not found, 4 denied, 5 unavailable, "
    "6 the session failed or ended, 124 timeout, 130 interrupted."
)

DEBUG: Final = "FOOTLIGHTS_DEBUG"
"""If this variable is set, an unexpected error shows its traceback."""

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
    "SERVER_UNREACHABLE": "Check that a control plane runs there. Start one with 'footlights up', or set --server.",
    "TOKEN_MISSING": "Use --token-file FILE, or set FOOTLIGHTS_TOKEN or FOOTLIGHTS_TOKEN_FILE.",
    "TOKEN_INVALID": "Order of precedence: --token, FOOTLIGHTS_TOKEN, --token-file, FOOTLIGHTS_TOKEN_FILE.",
}


class Failed(Exception):
    """Ends a command with the given exit code and one line on stderr."""

    def __init__(self, message: str, code: int = ERROR) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: Error) -> int:
    """Return the exit code for an error."""
    if error.code == _DEADLINE:
        return TIMEOUT
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), ERROR)


@contextmanager
def exiting() -> Iterator[None]:
    """Turn what a command's body raises into one or two lines on stderr and an exit code, never a traceback."""
    try:
        yield
    except Error as error:
        complain(_lines(error), _FIXES.get(error.reason, ""))
        raise typer.Exit(code_of(error)) from None
    except Failed as failed:
        complain(str(failed))
        raise typer.Exit(failed.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader closed the pipe; the interpreter must not fail again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ERROR) from None
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except UnicodeEncodeError as problem:
        if problem.encoding != "utf-8":
            complain(
                f"The output has characters that {problem.encoding}, the encoding of this terminal or file, lacks.",
                "Set PYTHONUTF8=1, or a locale with UTF-8.",
            )
            raise typer.Exit(ERROR) from None
        # Of bytes in an argument Python makes what no message can carry.
        complain(f"{visible(problem.object)} is not UTF-8.", "Give text in UTF-8.")
        raise typer.Exit(USAGE) from None
    except Exception as problem:
        if os.environ.get(DEBUG):
            raise
        complain(
            f"unexpected {type(problem).__name__}: {problem}", f"Set {DEBUG}=1 to see the traceback, and report it."
        )
        raise typer.Exit(ERROR) from None


def _lines(error: Error) -> str:
    """Return what an error says, with each violation on a line of its own."""
    if not isinstance(error, InvalidArgument) or len(error.violations) == 1:
        return error.message
    return "\n       ".join(f"{each.field}: {each.problem}" for each in error.violations)


def complain(message: str, fix: str = "") -> None:
    """Print an error on stderr, and how to fix it."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = typer.style("error:", fg="red", bold=True) if coloured else "error:"
    typer.echo(f"{label} {visible(message)}", err=True)
    if fix:
        typer.echo(f"       {visible(fix)}", err=True)
