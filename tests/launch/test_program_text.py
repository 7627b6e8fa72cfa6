"""A session's text stays beside the programs that a version runs: whatever reads a program is refused it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Argument, Version

from footlights.errors import InvalidArgument
from footlights.launch.recipe.recipe import validate
from footlights.launch.recipe.template import parse

ARGUMENTS = (
    Argument(name="text", type=Argument.STRING, required=True),
    Argument(name="count", type=Argument.INTEGER, required=True),
    Argument(name="choice", type=Argument.STRING, required=True, allowed_values=["a", "b"]),
)


def version(*command: str, **environment: str) -> Version:
    return Version(version="1.0.0", command=command, environment=environment, arguments=ARGUMENTS)


@pytest.mark.parametrize(
    "command",
    [
        ("sh", "-c", "run {text}"),
        ("sh", "-c", "{text}"),
        ("sh", "{text}"),
        ("bash", "-O", "extglob", "-c", "{text}"),
        ("bash", "-lc{text}"),
        ("env", "sh", "-c", "run {usd_stage_uri}"),
        ("/usr/bin/env", "-i", "A=b", "sh", "-c", "{text}"),
        ("env", "-S", "sh -c {text}"),
        ("env", "{text}", "viewer"),
        ("timeout", "5", "nice", "-n", "10", "bash", "-c", "x{text}"),
        ("xvfb-run", "-e", "/tmp/err", "sh", "-c", "{text}"),
        ("busybox", "sh", "-c", "{text}"),
        ("python3", "-c", "print('{usd_stage_uri}')"),
        ("python3.11", "-c", "{text}"),
        ("/opt/venv/bin/python", "-c{text}"),
        ("python3", "-m", "{text}"),
        ("python3", "{text}"),
        ("perl", "-e", "{text}"),
        ("perl", "-M{text}", "-e", "1"),
        ("ruby", "-e", "puts '{text}'"),
        ("node", "-e", "{text}"),
        ("node", "--eval={text}"),
        ("node", "--require", "./a.js", "-p", "{text}"),
        ("lua5.4", "-e", "{text}"),
        ("php", "-r", "{text}"),
        ("awk", "{text}"),
        ("awk", 'BEGIN {{ print "{text}" }}'),
        ("sed", "s/a/{text}/", "/etc/issue"),
        ("make", "all", "STAGE={text}"),
        ("ssh", "host", "ls", "{text}"),
        ("xargs", "-a", "/srv/list", "sh", "-c", "{text}"),
        ("kit", "--exec", "open.py {text}"),
        ("viewer", "--config", '{{"stage": "{text}"}}'),
        ("viewer", "--script=load('{text}')"),
    ],
)
def test_a_sessions_text_in_a_program_is_refused(command: tuple[str, ...]) -> None:
    """By whichever program, behind whichever wrapper; the error names the token and says where it belongs."""
    with pytest.raises(InvalidArgument) as caught:
        validate(version(*command))

    assert caught.value.field.startswith("version.command[")
    assert "{text}" in caught.value.problem or "{usd_stage_uri}" in caught.value.problem


@pytest.mark.parametrize(
    "command",
    [
        ("viewer", "{usd_stage_uri}", "--quality", "{choice}", "--title={text}"),
        ("viewer", "-c", "{text}"),
        ("viewer", "--exec", "open.py {choice} {count}"),
        ("viewer", "https://assets.example.com/a?stage={text}&b=1#c"),
        ("kit", "--/app/stage={text}", "--portableRoot", "/srv/{session_id}"),
        ("sh", "-c", 'exec viewer "$1"', "sh", "{text}"),
        ("sh", "-c", 'exec viewer "$1"', "{text}"),
        ("env", "A=b", "viewer", "{text}"),
        ("timeout", "60", "viewer", "--stage", "{text}"),
        ("python3", "viewer.py", "-c", "{text}"),
        ("python3", "-u", "-m", "viewer", "{text}", "--count={count}"),
        ("awk", "{{print}}", "{text}"),
    ],
)
def test_a_sessions_text_beside_a_program_is_allowed(command: tuple[str, ...]) -> None:
    """As a token of its own, behind an option, or where the version says what it may be."""
    validate(version(*command))


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "PYTHONPATH", "NODE_OPTIONS", "BASH_ENV", "VK_ICD_FILENAMES"])
def test_a_session_does_not_choose_what_is_loaded(name: str) -> None:
    """A variable that names code is code."""
    with pytest.raises(InvalidArgument, match="lets a session choose it"):
        validate(version("viewer", **{name: "/srv/{text}"}))

    validate(version("viewer", STAGE="{text}", **{name: "/srv/{session_id}"}))


def test_a_variable_holds_a_sessions_text_alone() -> None:
    """Programs split variables of options at blanks."""
    with pytest.raises(InvalidArgument, match="among words"):
        validate(version("viewer", VIEWER_OPTIONS="--verbose --stage={text}"))


def test_what_is_advised_is_safe(tmp_path: Path) -> None:
    """The token after a shell's script reaches it as one parameter, whatever it holds."""
    advised = version("sh", "-c", f'exec {sys.executable} -S -c "$0" "$1"', "import sys; print(sys.argv)", "{text}")
    validate(advised)
    evil = f"'; touch {tmp_path / 'owned'}; echo $(id) `id` \" {{text}}"

    command = [parse(token).render_token({"text": evil}) for token in advised.command]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert json.dumps(evil)[1:-1].replace('\\"', '"') in said.replace("\\'", "'")
    assert not (tmp_path / "owned").exists()
