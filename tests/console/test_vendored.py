"""The modules that are kept are those that are written down."""

from __future__ import annotations

import hashlib
import re

from footlights.console.assets import load


def test_vendored_files_are_the_ones_written_down() -> None:
    """
    Every kept module has the sum, and the licence beside it, that VENDORED.md says; and nothing else is kept.
    """
    files = {path.removeprefix("vendor/"): asset.body for path, asset in load().files.items() if "vendor/" in path}
    table = files["VENDORED.md"].decode()
    rows = re.findall(r"^\| (\S+\.mjs) \|.*\((\S+\.LICENSE)\) \| ([0-9a-f]{64}) \|$", table, re.MULTILINE)

    found = {name: hashlib.sha256(files[name]).hexdigest() for name, _, _ in rows}

    assert found == {name: digest for name, _, digest in rows}
    assert {name for name, _, _ in rows} == {name for name in files if name.endswith(".mjs")}
    assert all(len(files[licence]) > 500 for _, licence, _ in rows)
