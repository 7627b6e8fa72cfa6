"""What the code imports is what `pyproject.toml` declares, and the other way round."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.sources import parsed

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "footlights"

NOT_IMPORTED = {
    "psycopg": "SQLAlchemy loads it by the database's URL",
}
"""Dependencies that no module imports, with the reason."""

OF_OTHERS = frozenset({"omni"})
"""Modules of the applications that run some of our files: Kit's."""


def declared() -> set[str]:
    """The names of all dependencies that users install: of the package and its extras, without `dev`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name, of in extras.items() if name != "dev" for text in of)]
    return {normalized(re.split(r"[\[<>=!~; ]", text)[0]) for text in texts}


def imported() -> dict[str, str]:
    """The third-party modules that `src` imports, each with one file that does."""
    found = {}
    for file in SRC.rglob("*.py"):
        for node in ast.walk(parsed(file)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "footlights" and top not in OF_OTHERS:
                    found[top] = str(file.relative_to(ROOT))
    return found


@functools.cache
def owners() -> dict[str, set[str]]:
    """The distributions that provide each top-level module."""
    return {module: {normalized(one) for one in of} for module, of in packages_distributions().items()}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared() -> None:
    """No module of the package relies on what another dependency happens to install."""
    known = declared()
    undeclared = {module: file for module, file in imported().items() if not owners()[module] & known}

    assert undeclared == {}


def test_every_dependency_is_imported() -> None:
    """Nothing is installed for users that no module imports, except what is listed with its reason."""
    used = {one for module in imported() for one in owners()[module]}

    assert declared() - used - set(NOT_IMPORTED) == set()
