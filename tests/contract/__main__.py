"""Write the golden file and the tables of the docs, or check them: see the package."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.contract import descriptors, golden, tables

ROOT = Path(__file__).parents[2]


def outputs() -> dict[Path, str]:
    """What each generated file must be."""
    versions = ROOT / "docs" / "api-versions.md"
    return {
        ROOT / "proto" / "contract.txt": golden.text(descriptors.files()),
        versions: tables.fill(versions.read_text()),
    }


def differences(wanted: Mapping[Path, str]) -> str:
    """Return how the files differ from what they must be, and how to accept that; empty if they do not."""
    found: list[str] = []
    for path, text in wanted.items():
        before = path.read_text().splitlines(keepends=True) if path.exists() else []
        found += difflib.unified_diff(before, text.splitlines(keepends=True), path.name, "the contract", n=0)
    if found:
        found.append("The contract has changed. If that is meant, accept it: make contract\n")
    return "".join(found)


def main(arguments: list[str]) -> int:
    """Write the files; with ``--check`` only print how they differ, and return 1 if they do."""
    wanted = outputs()
    if "--check" in arguments:
        sys.stderr.write(problem := differences(wanted))
        return bool(problem)
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
