"""What a session may give for text that something parses once more: ``read_again``, and ``whole_command``.

The readers themselves are a replica of the entry point of NVIDIA's images, and Python's own shell words.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Argument, Version

from footlights.errors import InvalidArgument, Reason
from footlights.launch.launcher import LaunchError
from footlights.launch.recipe.arguments import convert_arguments
from footlights.launch.recipe.stages import resolve_stage
from tests.launch.plans import make_plan

ARGUMENTS = (
    Argument(name="text", type=Argument.STRING),
    Argument(name="choice", type=Argument.STRING, allowed_values=["a b", "$c"]),
    Argument(name="count", type=Argument.INTEGER),
)
ARGUMENTS[0].default_value.string_value = "$(the version's own)"
HOSTILE = [
    "$(touch${IFS}pwned)",
    ";id;",
    "a b",
    "`id`",
    "a\tb",
    "a|b",
    "a&b",
    "a>b",
    "a*",
    "a?",
    "[a]",
    "{a,b}",
    "~",
    "#",
]
HOSTILE += ["'", '"', "\\", "!", "$env{HOME}", "-x"]
PLAIN = ["a", "stage.usd", "https://h:8443/a/b_c.usd", "A+b,c=d%20e@f", "größe", "7", "a-b"]


def version(*command: str, container: bool = False, entrypoint: list[str] | None = None, **variables: str) -> Version:
    made = Version(version="1.0.0", command=command, environment=variables, arguments=ARGUMENTS)
    made.allowed_stage_roots.extend(["/srv/stages", "https://store/"])
    made.default_usd_stage_uri = "/opt/${app}/default stage.usd"
    if container:
        made.container.image = "app:1"
    if entrypoint is not None:
        made.container.entrypoint.SetInParent()
        made.container.entrypoint.extend(entrypoint)
    return made


SHELLS = {
    "a token of an image's own entry point": version("--title", "{text}", container=True),
    "a part of one, as versions of releases before have": version("--title={text}", container=True),
    "a variable of it": version("run", container=True, TITLE="{text}"),
    "a script": version("/app/run.sh", "{text}"),
    "a script that is named as the entry point": version("{text}", container=True, entrypoint=["/entrypoint.sh"]),
    "what --exec runs": version("kit", "--exec", "open.py {text}"),
    "Kit's variable": version("viewer", NVDA_KIT_ARGS="{text}"),
    "another variable of options": version("viewer", VIEWER_OPTIONS="{text}"),
}
OPEN = {
    "a token": version("viewer", "{text}"),
    "a part of one": version("viewer", "--title={text}"),
    "a variable": version("viewer", TITLE="{text}"),
    "a token of what the version names": version("viewer", "{text}", container=True, entrypoint=[]),
    "no place at all": version("run", container=True),
}


@pytest.mark.parametrize("place", SHELLS)
@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_shell_would_read_is_refused(place: str, text: str) -> None:
    """By its field, with the reason and what may be given instead; also where the version was registered long ago."""
    with pytest.raises(InvalidArgument) as caught:
        convert_arguments(SHELLS[place], {"text": text})

    assert (caught.value.field, caught.value.reason) == ("application_arguments.text", Reason.TEXT_UNSAFE)
    assert repr(text) in caught.value.problem


@pytest.mark.parametrize("place", SHELLS)
@pytest.mark.parametrize("text", PLAIN)
def test_what_passes_is_one_word_to_a_shell(place: str, text: str) -> None:
    """It is the same after a shell has read it, so the next reader gets what was given."""
    assert convert_arguments(SHELLS[place], {"text": text})[0]["text"] == text
    assert shlex.split(text) == [text]
    said = subprocess.run(["sh", "-c", f"eval 'printf %s {text}'"], capture_output=True, text=True, check=True)
    assert said.stdout == text


@pytest.mark.parametrize("place", OPEN)
def test_what_nothing_reads_again_may_be_anything(place: str) -> None:
    """A program takes its tokens as they are."""
    for text in HOSTILE:
        assert convert_arguments(OPEN[place], {"text": text})[0]["text"] == text


def test_a_versions_own_values_pass() -> None:
    """Its operator has written them: defaults, and those that it allows."""
    wrapped = version("--title", "{text}", "--choice", "{choice}", "--count={count}", container=True)

    values, _ = convert_arguments(wrapped, {"choice": "$c", "count": -5})

    assert values == {"text": "$(the version's own)", "choice": "$c", "count": -5}


@pytest.mark.parametrize(
    "text", ["${kit}/x", "$env{OMNI_PASS}", "a$b", '["a"]', "[1,2]", '{"a": 1}', "'a'", " [1]", "\u00a0{}", "a\x07"]
)
def test_what_kit_would_read_in_a_setting_is_refused(text: str) -> None:
    """Kit resolves tokens and variables of its environment, secret ones too, and takes lists and objects for such."""
    kit = version("kit", "app.kit", "--/app/title={text}")

    with pytest.raises(InvalidArgument, match="Kit would read a part of it"):
        convert_arguments(kit, {"text": text})

    for plain in ("a b.usd", "a;id;.usd", "`id`", "a[1]", "x={1}", "it's"):
        assert convert_arguments(kit, {"text": plain})[0]["text"] == plain


STAGES = [
    "/srv/stages/a$(touch${IFS}pwned).usd",
    "/srv/stages/a;id;.usd",
    "/srv/stages/a b.usd",
    "/srv/stages/`id`.usd",
    "file:///srv/stages/a%24(id).usd",
    "https://store/a.usd?a=1&b=2",
]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_text_of_a_session(stage: str) -> None:
    """It is refused for what may parse it once more, in the control plane and on the node."""
    wrapped = version("--stage", "{usd_stage_uri}", container=True)

    with pytest.raises(InvalidArgument) as caught:
        resolve_stage(wrapped, stage)

    assert (caught.value.field, caught.value.reason) == ("application_arguments.usd_stage_uri", Reason.TEXT_UNSAFE)
    with pytest.raises(LaunchError, match="may parse it once more") as refused:
        make_plan(wrapped, Path("/nowhere"), usd_stage_uri=stage)
    assert "b=2" not in f"{caught.value} {refused.value}", "it may be a signature"


def test_stages_that_pass() -> None:
    """A plain one, the version's own, and one whose signature is in the session file alone."""
    wrapped = version("--stage", "{usd_stage_uri}", container=True)

    assert resolve_stage(wrapped, "/srv/stages/a/b.usd") == "/srv/stages/a/b.usd"
    assert resolve_stage(wrapped, "") == resolve_stage(wrapped, "/opt/${app}/default stage.usd")
    wrapped.stage_from_session_file = True
    assert resolve_stage(wrapped, STAGES[-1]) == STAGES[-1]
    kit = version("kit", "app.kit", "--/app/auto_load_usd={usd_stage_uri}")
    with pytest.raises(InvalidArgument, match="Kit would read"):
        resolve_stage(kit, STAGES[0])
    assert [resolve_stage(kit, stage) for stage in STAGES[1:4]] == STAGES[1:4]
