"""`footlights-viewer`: the command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from footlights.viewer.options import parse_options

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a session and end the process with one of `failure.ExitCode`."""
    options = parse_options(arguments)
    import asyncio
    import logging

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("aioice", "aiortc", "aiohttp", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    code, last_line = 0, ""
    try:
        from footlights.viewer.application import exit_code, run
    except ImportError as error:
        from footlights.viewer.failure import ExitCode, FailureReason, ViewerFailure

        code = ExitCode.FAILED
        last_line = ViewerFailure(
            FailureReason.MISSING_LIBRARY, f"{error}. Install what it needs with: pip install 'footlights[viewer]'"
        ).line()
    else:
        try:
            asyncio.run(run(options))
        except BaseException as error:
            code, last_line = exit_code(error)
    sys.stdout.flush()
    if last_line:
        print(last_line, file=sys.stderr)
    sys.stderr.flush()
    # Not sys.exit: a thread that is still inside usd-core or panda3d would hold up, or crash, the interpreter's end.
    os._exit(int(code))
