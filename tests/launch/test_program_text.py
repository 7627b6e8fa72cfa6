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
        ("viewer", "--{text}"),
        ("viewer", "-{text}"),
        ("viewer", "--log{text}=1"),
        ("viewer", "--exec", "{text}"),
        ("viewer", "--exec={text}"),
        ("kit", "app.kit", "--exec", "{usd_stage_uri}"),
        ("kit", "{usd_stage_uri}"),
        ("kit", "app.kit", "{text}"),
        ("kit", "app.kit", "--enable", "{text}"),
        ("kit", "app.kit", "--enable={text}"),
        ("kit", "app.kit", "--ext-folder", "{text}"),
        ("kit", "app.kit", "--merge-config={text}"),
        ("kit", "app.kit", "--/{text}=1"),
        ("kit", "app.kit", "--/app/{text}"),
        ("kit", "app.kit", "--/app/exec/0={text}"),
        ("kit", "app.kit", "--/app/exts/folders/0={text}"),
        ("/opt/app/my_app.kit.sh", "{text}"),
        ("/opt/app/my_app.kit.sh", "--/app/auto_load_usd={usd_stage_uri}"),
        ("/opt/app/run.sh", "--stage={usd_stage_uri}"),
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
        ("env", "A=b", "/app/kit/kit", "/app/apps/a.kit", "--enable", "{choice}", "--/app/title=Stage-{text}"),
        ("kit", "app.kit", "--exec", "{choice}"),
        ("viewer", "-I{text}"),
        ("/opt/app/run.sh", "--stage", "{usd_stage_uri}", "--count={count}"),
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


@pytest.mark.parametrize(
    "name", ["NVDA_KIT_ARGS", "NVDA_KIT_NUCLEUS", "VIEWER_OPTIONS", "EXTRA_FLAGS", "MY_OPTS", "ARGS", "RUN_COMMAND"]
)
def test_a_session_adds_no_options(name: str) -> None:
    """A variable that is split at blanks, or put on a command line, holds no text of a session, also alone."""
    for text in ("{text}", "--/app/auto_load_usd={usd_stage_uri}"):
        with pytest.raises(InvalidArgument, match="lets a session add its own"):
            validate(version("viewer", **{name: text}))

    validate(version("viewer", **{name: "--quality={choice} --count={count}"}))


FOREIGN = "the image's own entry point"


@pytest.mark.parametrize(
    ("entrypoint", "command", "problem"),
    [
        (None, ["--stage={usd_stage_uri}"], FOREIGN),
        (None, ["viewer", "x{text}"], FOREIGN),
        (None, ["--/app/auto_load_usd={usd_stage_uri}"], FOREIGN),
        (None, ["{text}"], "choose the program"),
        (None, ["kit", "app.kit", "{text}"], "what is loaded or run"),
        ([], ["{text}"], "choose the program"),
        ([], ["sh", "-c", "{text}"], "a program may be read"),
        (["sh", "-c"], ["run {text}"], "a program may be read"),
        (["{text}"], ["viewer"], "choose the program"),
        (["/entrypoint.sh"], ["--/app/auto_load_usd={usd_stage_uri}"], "the script '/entrypoint.sh'"),
        (["/docker-entrypoint"], ["--stage={text}"], "the script '/docker-entrypoint'"),
        ([], ["/isaac-sim/runheadless.sh", "--stage={text}"], "the script '/isaac-sim/runheadless.sh'"),
        (["tini", "--", "/app/run.bash"], ["--stage={text}"], "the script '/app/run.bash'"),
    ],
)
def test_a_foreign_entry_point_is_given_whole_tokens(
    entrypoint: list[str] | None, command: list[str], problem: str
) -> None:
    """What an image or a script does with its arguments is not known: refused, unless the version names what is run."""
    with pytest.raises(InvalidArgument) as caught:
        validate(contained(entrypoint, command))

    assert problem in caught.value.problem
    assert caught.value.field.startswith(("version.command[", "version.container.entrypoint["))


@pytest.mark.parametrize(
    ("entrypoint", "command"),
    [
        (None, ["--stage", "{usd_stage_uri}", "--quality={choice}", "--count={count}", "--port={signal_port}"]),
        (None, []),
        ([], ["/app/kit/kit", "/app/apps/a.kit", "--/app/auto_load_usd={usd_stage_uri}"]),
        (["/app/kit/kit", "/app/apps/a.kit"], ["--/app/auto_load_usd={usd_stage_uri}"]),
        (["tini", "--"], ["viewer", "--stage={usd_stage_uri}"]),
        (["/entrypoint.sh"], ["{usd_stage_uri}"]),
    ],
)
def test_what_a_container_may_be_given(entrypoint: list[str] | None, command: list[str]) -> None:
    """A whole token for what is not known; beside an option for what the version names."""
    validate(contained(entrypoint, command))


def test_an_image_may_read_variables_again() -> None:
    """What a foreign entry point finds in its environment, it may put on a command line as well."""
    for text in ("x{text}", "--stage={usd_stage_uri}"):
        with pytest.raises(InvalidArgument, match=FOREIGN):
            validate(contained(None, [], STAGE=text))

    validate(contained(None, [], STAGE="{usd_stage_uri}", ADDRESS="http://{public_address}/{choice}"))
    validate(contained([], ["viewer"], STAGE="stage={usd_stage_uri}"))


def contained(entrypoint: list[str] | None, command: list[str], **environment: str) -> Version:
    made = version(*command, **environment)
    made.container.image = "app:1"
    if entrypoint is not None:
        made.container.entrypoint.SetInParent()
        made.container.entrypoint.extend(entrypoint)
    return made


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
