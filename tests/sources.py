"""Reads Python sources for tests of what is written in them."""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file.

    Without garbage collection meanwhile: what a finalizer logs with a traceback is parsed too, and Python before 3.11.9
    takes that for an error of the first one (SystemError: AST constructor recursion depth mismatch).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        if enabled:
            gc.enable()
