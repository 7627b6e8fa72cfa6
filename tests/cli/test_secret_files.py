"""Secrets by file, as `footlights` reads them before any command."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from footlights.cli.secret_files import read_secret_files
from footlights.errors import InvalidArgument

FOOTLIGHTS = Path(sys.executable).parent / "footlights"


def test_a_file_stands_for_the_variable(tmp_path: Path) -> None:
    """The value arrives without the line's end; no variable names a file any more."""
    (tmp_path / "url").write_text("postgresql://footlights:secret@db/footlights\n")
    environ = {"FOOTLIGHTS_DATABASE_FILE": str(tmp_path / "url"), "OTHER_FILE": "stays"}

    read_secret_files(environ)

    assert environ == {"FOOTLIGHTS_DATABASE": "postgresql://footlights:secret@db/footlights", "OTHER_FILE": "stays"}


@pytest.mark.parametrize("content", [None, " \n"], ids=["missing", "empty"])
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: str | None) -> None:
    """The error names the variable and the file: nothing starts on another database by mistake."""
    if content is not None:
        (tmp_path / "key").write_text(content)

    with pytest.raises(InvalidArgument, match=rf"FOOTLIGHTS_CLUSTER_KEY_FILE: {tmp_path}/key "):
        read_secret_files({"FOOTLIGHTS_CLUSTER_KEY_FILE": str(tmp_path / "key")})


def test_a_value_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    """None of two is chosen silently."""
    with pytest.raises(InvalidArgument, match="FOOTLIGHTS_DATABASE is set too"):
        read_secret_files({"FOOTLIGHTS_DATABASE_FILE": "/x", "FOOTLIGHTS_DATABASE": "postgresql://db/footlights"})


def test_commands_use_the_files_and_show_no_secret(tmp_path: Path) -> None:
    """A command reads both, and the environment that others of its user may read of it holds neither."""
    key = base64.b64encode(bytes(range(32))).decode()
    (tmp_path / "key").write_text(key)
    (tmp_path / "url").write_text("postgresql://footlights:hidden@127.0.0.1:1/footlights")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FOOTLIGHTS_")}
    environ |= {"FOOTLIGHTS_DATABASE_FILE": f"{tmp_path}/url", "FOOTLIGHTS_CLUSTER_KEY_FILE": f"{tmp_path}/key"}
    shown = (
        "import os, sys; from footlights.cli.app import main; sys.argv = ['footlights', 'version']\n"
        "try: main()\n"
        "except SystemExit: print(os.environ['FOOTLIGHTS_CLUSTER_KEY'], open('/proc/self/environ').read())"
    )

    reached = subprocess.run([FOOTLIGHTS, "db", "check"], env=environ, capture_output=True, text=True, check=False)
    read = subprocess.run([sys.executable, "-c", shown], env=environ, capture_output=True, text=True, check=True).stdout

    assert "127.0.0.1:1" in reached.stderr
    assert read.count(key) == 1, "as the variable that the process made, not among those that it was started with"
    assert "hidden" not in reached.stderr + read
