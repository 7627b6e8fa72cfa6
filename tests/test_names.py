"""How the source is organized: names are unique, private names stay private, folders are small, all has tests.

Modules without a test file of their name, which are covered by the tests of what they belong to, are named in the
docstring of a test file.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.sources import parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "footlights"
MODULES_PER_FOLDER: Final = 14

DEFINED_TWICE: Final[dict[str, str]] = {}
"""Class names that several modules may define, with the reason."""

UNTYPED: Final = {
    "gateway/site.py": "what Starlette takes",
    "gateway/upstream/grpc.py": "grpc.aio publishes no type that its four kinds of calls share",
    "viewer/render/renderer.py": "panda3d has no types",
    "viewer/scene/materials/materialx.py": "usd-core has no types",
    "viewer/scene/prims/deform.py": "usd-core has no types",
    "viewer/scene/stage.py": "usd-core has no types",
    "viewer/stream/media_port.py": "aioice has no types",
}
"""Modules with a constructor that takes `Any`, with the reason."""

NOT_TESTED_BY_NAME: Final = {
    "__main__": "starts the command, which has tests",
    "main": "starts a process; the system tests run it",
}
"""Modules that need no test file of their name, with the reason."""


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, by its path below `src/footlights`."""
    return {
        file.relative_to(SRC).as_posix(): parsed(file)
        for file in sorted(SRC.rglob("*.py"))
        if "migrations" not in file.parts
    }


def test_a_class_name_is_defined_once() -> None:
    """A search for a class finds one definition, and so its room."""
    places = defaultdict(list)
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path}:{node.lineno}")
    double = {name: where for name, where in places.items() if len(where) > 1 and name not in DEFINED_TWICE}

    assert not double, listed(f"{name}: {', '.join(where)}" for name, where in double.items())


def test_constructors_are_typed() -> None:
    """No constructor takes `Any`: who is given what is seen by the types alone."""
    found = set()
    for path, tree in modules().items():
        for made in ast.walk(tree):
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                arguments = (*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs)
                types = [node for each in arguments if each.annotation for node in ast.walk(each.annotation)]
                if any(isinstance(node, ast.Name) and node.id == "Any" for node in types):
                    found.add(path)

    assert found == set(UNTYPED), listed(sorted(found ^ set(UNTYPED)))


def test_exceptions_are_needed() -> None:
    """Each exception above is for a name that is defined several times, or a module that exists."""
    names = [node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    stems = {Path(path).stem for path in modules()}

    assert [name for name in DEFINED_TWICE if names.count(name) < 2] == []
    assert [stem for stem in NOT_TESTED_BY_NAME if stem not in stems] == []


def test_private_names_stay_in_their_module() -> None:
    """No module imports another module's private name, or reads one through the module."""
    found = [problem for path, tree in modules().items() for problem in uses_of_private_names(path, tree)]

    assert not found, listed(found)


def test_folders_are_small() -> None:
    """No folder of ours holds more than 14 modules: more is more than one idea."""
    folders: dict[str, int] = defaultdict(int)
    for file in SRC.rglob("*"):
        if file.suffix in (".py", ".js") and file.name != "__init__.py" and "migrations" not in file.parts:
            folders[file.parent.relative_to(SRC).as_posix()] += 1
    large = [f"{folder}: {count}" for folder, count in folders.items() if count > MODULES_PER_FOLDER]

    assert not large, listed(large)


def test_a_package_has_a_design_note() -> None:
    """The docstring of each package says what is in it and how it works: more than one line."""
    missing = [
        path
        for path, tree in modules().items()
        if path.endswith("__init__.py") and "\n" not in (ast.get_docstring(tree) or "").strip()
    ]

    assert not missing, listed(missing)


def test_a_module_has_tests() -> None:
    """Each module has a test file of its name below the folder of its room, or is named in a test's docstring."""
    missing = [
        path
        for path in modules()
        if Path(path).stem not in ("__init__", *NOT_TESTED_BY_NAME)
        and not has_test_file(path)
        and not is_named_in_a_test(path)
    ]

    assert not missing, listed(missing)


def uses_of_private_names(path: str, tree: ast.Module) -> Iterator[str]:
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "footlights":
            for alias in node.names:
                if is_private(alias.name):
                    yield f"{path}:{node.lineno}: from {node.module} import {alias.name}"
                elif (SRC.parent / f"{node.module}.{alias.name}".replace(".", "/")).with_suffix(".py").exists():
                    imported.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in imported and is_private(name):
                yield f"{path}:{node.lineno}: {module}.{name}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def has_test_file(path: str) -> bool:
    """Whether `tests/` has a file of the module's name, or of its folder's and its own, in the same top folder."""
    module = Path(path)
    top = module.parts[0] if len(module.parts) > 1 else ""
    names = {f"test_{module.stem}.py"} | {f"test_{folder}_{module.stem}.py" for folder in module.parts[:-1]}
    return any(name in names_of_test_files(top) for name in names)


@functools.cache
def names_of_test_files(top: str) -> frozenset[str]:
    return frozenset(file.name for file in (ROOT / "tests" / top).rglob("test_*.py"))


def is_named_in_a_test(path: str) -> bool:
    """Whether a test file names the module between backticks: its name, or its path with dots."""
    module = Path(path).with_suffix("")
    parts = module.parts
    names = {".".join(parts[-length:]) for length in range(1, len(parts) + 1)}
    top = parts[0] if len(parts) > 1 else ""
    return bool(names & named_in_docstrings(top))


@functools.cache
def named_in_docstrings(top: str) -> frozenset[str]:
    """What the docstrings of test files below a folder name between backticks."""
    docs = [ast.get_docstring(parsed(file)) or "" for file in (ROOT / "tests" / top).rglob("test_*.py")]
    return frozenset(name for doc in docs for name in re.findall(r"`([A-Za-z_][\w.]*)`", doc))


def listed(problems: Iterable[str]) -> str:
    return "\n" + "\n".join(f"  {problem}" for problem in problems)
