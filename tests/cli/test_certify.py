"""The options of ``footlights apps test``; what it says of applications is in ``tests/certify``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from footlights.cli.app import app

FILE = """
application: {application: tried}
versions:
  - {version: 1.0.0, fake: {}}
  - {version: 2.0.0, command: ["true"], arguments: [{name: frames, type: INTEGER}]}
releases: {default: 1.0.0}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tried.yaml"
    path.write_text(FILE)
    return path


def tried(file: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["apps", "test", str(file), "--devices", "software", *options])


def test_the_version_of_the_default_release_is_tried(file: Path) -> None:
    """Simulated applications start nothing, and are told so."""
    result = tried(file)

    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["PASS", "RECIPE"], ["SKIP", "COLD_START"]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--version", "9.9.9"], "--version: the file has no version '9.9.9': it has 1.0.0, 2.0.0"),
        (["--version", "2.0.0", "--argument", "colour=red"], "this version declares no such argument"),
        (["--version", "2.0.0", "--argument", "frames=many"], "'many' is not a number"),
        (["--version", "2.0.0", "--first-port", "80"], "--first-port: 80..29999 is not a range"),
        (["--container-subnets", "10.0.0.0/8"], "--container-subnets: '10.0.0.0/8' is not a network of IPv4"),
        (["--devices", "fake:none.json", "--version", "2.0.0"], "none.json"),
        (["--output", "yaml"], "--output: this is printed as table or json (got yaml)"),
    ],
)
def test_a_wrong_option_is_named(file: Path, options: list[str], says: str) -> None:
    """With exit code 2, before anything is launched."""
    result = tried(file, *options)

    assert result.exit_code == 2, result.output
    assert says in result.output
