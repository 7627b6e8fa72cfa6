"""The program that Kit runs to open a stage whose address is secret, in a process with a stand-in for Kit's API."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from footlights.recipes import KIT_STAGE

if TYPE_CHECKING:
    from pathlib import Path

OMNI_USD = """
class Context:
    def open_stage(self, address):
        print("opened", address)

def get_context():
    return Context()
"""


@pytest.mark.parametrize(
    ("content", "opened"),
    [
        ({"usd_stage_uri": "https://store/a.usd?sig=abc"}, "opened https://store/a.usd?sig=abc\n"),
        ({"usd_stage_uri": "/srv/stages/a.usd"}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_it_opens_what_the_command_line_does_not_have(tmp_path: Path, content: object, opened: str) -> None:
    """By Kit's own call; other stages are Kit's to open, as its setting says."""
    (tmp_path / "omni").mkdir()
    (tmp_path / "omni" / "usd.py").write_text(OMNI_USD)
    environ = {"PYTHONPATH": str(tmp_path)}
    if content is not None:
        (tmp_path / "session.json").write_text(json.dumps(content))
        environ["FOOTLIGHTS_SESSION_FILE"] = str(tmp_path / "session.json")

    done = subprocess.run(
        [sys.executable, str(KIT_STAGE)], env=environ, capture_output=True, text=True, check=False, timeout=30
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, opened, "")
