"""What profiles change of versions."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1.application_pb2 import Argument, Version
from footlights.v1.profile_pb2 import Profile
from google.protobuf import json_format

from footlights.errors import FailedPrecondition, InvalidArgument, Reason
from footlights.launch.recipe import overrides

VERSION = Version(
    application="viewer",
    version="1.0.0",
    command=["viewer", "{usd_stage_uri}", "{quality}"],
    environment={"QUALITY": "{quality}", "OMNI_USER": "{omni_user}", "KEPT": "1"},
    arguments=[
        Argument(name="quality", type=Argument.STRING, required=True, allowed_values=["low", "high"]),
        Argument(name="frames", type=Argument.INTEGER, maximum=10),
        Argument(name="omni_user", type=Argument.STRING, secret=True),
        Argument(name="pin", type=Argument.INTEGER, secret=True),
    ],
    allowed_stage_roots=["/srv/stages"],
)


def profile(**members: Any) -> Profile:
    return json_format.ParseDict({"profile": "fast", **members}, Profile())


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"environment": {"A-B": "1"}}, "profile.environment['A-B']"),
        ({"environment": {"FOOTLIGHTS_X": "1"}}, "profile.environment['FOOTLIGHTS_X']"),
        ({"environment": {"A": "{"}}, "profile.environment['A']"),
        ({"environment": {"A": "x" * 8193}}, "profile.environment['A']"),
        ({"environment": {f"A{n}": "1" for n in range(257)}}, "profile.environment"),
        ({"arguments": {"nucleus_connection_config": "x"}}, "profile.arguments.nucleus_connection_config"),
        ({"arguments": {"Quality": "x"}}, "profile.arguments.Quality"),
        ({"arguments": {"session_id": "x"}}, "profile.arguments.session_id"),
        ({"arguments": {"quality": ["x"]}}, "profile.arguments.quality"),
        ({"arguments": {"quality": None}}, "profile.arguments.quality"),
        ({"arguments": {"usd_stage_uri": "https://a/b.usd?sig=1"}}, "profile.arguments.usd_stage_uri"),
        ({"arguments": {"quality": "x" * 16384}}, "profile.arguments"),
        ({"secrets": {"OMNI_PASS": "x"}}, "profile.secrets['OMNI_PASS']"),
        ({"secrets": {"usd_stage_uri": "x"}}, "profile.secrets['usd_stage_uri']"),
        ({"secrets": {"a": ""}}, "profile.secrets['a']"),
        ({"secrets": {"a": "x" * 16385}}, "profile.secrets['a']"),
        ({"secrets": {"a": "x\0"}}, "profile.secrets['a']"),
        ({"secrets": {"a": "x\n"}, "environment": {"A": "{a}"}}, "profile.secrets['a']"),
        ({"secrets": {"a": "hunter2"}, "arguments": {"a": 1}}, "profile.secrets['a']"),
    ],
)
def test_what_no_version_takes_is_refused_at_once(members: dict[str, Any], field: str) -> None:
    """With the path of what is wrong, and no value of a secret."""
    with pytest.raises(InvalidArgument) as refused:
        overrides.check(profile(**members))

    assert refused.value.field == field
    assert "hunter2" not in str(refused.value)


def test_a_profile_replaces_what_the_version_has() -> None:
    """Variables one by one, defaults of arguments, and the stage; the version itself is as it was."""
    wanted = profile(
        environment={"QUALITY": "best", "OMNI_PASS": "{omni_pass}"},
        arguments={"quality": "high", "frames": 5, "usd_stage_uri": "/srv/stages/a.usd"},
        secrets={"omni_pass": "hunter2", "omni_user": "ann"},
    )
    overrides.check(wanted)
    before = VERSION.SerializeToString(deterministic=True)

    changed = overrides.applied(VERSION, wanted)
    sent = overrides.with_environment(VERSION, wanted.environment)

    assert dict(changed.environment) == {
        "QUALITY": "best",
        "OMNI_USER": "{omni_user}",
        "KEPT": "1",
        "OMNI_PASS": "{omni_pass}",
    }
    assert [json_format.MessageToDict(each.default_value) for each in changed.arguments[:2]] == ["high", 5]
    assert changed.default_usd_stage_uri == "/srv/stages/a.usd"
    assert [each.name for each in changed.arguments] == [each.name for each in VERSION.arguments]
    assert sent.environment == changed.environment
    assert [(each.name, each.secret) for each in sent.arguments][4:] == [("omni_pass", True)]
    assert VERSION.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"arguments": {"speed": 1}}, "arguments.speed: the version declares no such argument; it has frames, omni"),
        ({"arguments": {"omni_user": "x"}}, "arguments.omni_user: it is a secret, and profiles are shown"),
        ({"arguments": {"quality": "best"}}, "arguments.quality: 'best' is not allowed"),
        ({"arguments": {"frames": 11}}, "arguments.frames: 11 is too large"),
        ({"arguments": {"usd_stage_uri": "/etc/passwd"}}, "'/etc/passwd' is not below a root"),
        ({"secrets": {"omni_pass": "x"}}, "secrets['omni_pass']: the version has no such argument, and no variable"),
        ({"secrets": {"quality": "x"}}, "secrets['quality']: the version's argument of this name is no secret text"),
        ({"secrets": {"pin": "1"}}, "secrets['pin']: the version's argument of this name is no secret text"),
        ({"environment": {"A": "{omni_pas}"}}, "environment: it uses the unknown placeholder {omni_pas}"),
        ({"environment": {"A": "{frames}"}}, "which may be without a value"),
        (
            {"environment": {"LD_PRELOAD": "{usd_stage_uri}"}},
            "environment['LD_PRELOAD']: LD_PRELOAD says what is loaded",
        ),
        ({"environment": {"NVDA_KIT_ARGS": "{omni_user}"}}, "environment['NVDA_KIT_ARGS']"),
    ],
)
def test_what_does_not_suit_a_version_is_said(members: dict[str, Any], says: str) -> None:
    """A profile passes with a version what the version itself had to pass."""
    with pytest.raises(FailedPrecondition) as refused:
        overrides.applied(VERSION, profile(**members))

    assert refused.value.reason == Reason.PROFILE_NOT_APPLICABLE
    assert refused.value.message.startswith("profile: 'fast' cannot be used with viewer 1.0.0: ")
    assert says in refused.value.message


def test_a_version_of_before_todays_rules_keeps_its_profiles() -> None:
    """What was wrong without the profile is not the profile's fault."""
    old = Version(application="old", version="1.0.0", command=["sh", "-c", "{usd_stage_uri}"])

    assert overrides.applied(old, profile(environment={"A": "1"})).environment == {"A": "1"}


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"arguments": {"title": "$(id)"}}, "the image's own entry point may parse it once more"),
        ({"arguments": {"usd_stage_uri": "/srv/stages/a b.usd"}}, "the image's own entry point may parse it once more"),
        ({"environment": {"NVDA_KIT_ARGS": "{title}"}}, "lets a session add its own"),
        ({"environment": {"TITLE": "x{title}"}}, "the image's own entry point may parse it once more"),
    ],
)
def test_a_profile_hands_nothing_to_a_second_parser(members: dict[str, Any], problem: str) -> None:
    """What an image's own entry point would read again is refused of a profile as of a version and a session."""
    wrapped = Version(version="1.0.0", command=["--title", "{title}", "{usd_stage_uri}"])
    wrapped.arguments.add(name="title", type=Argument.STRING, required=True)
    wrapped.allowed_stage_roots.append("/srv/stages")
    wrapped.container.image = "app:1"

    with pytest.raises(FailedPrecondition) as refused:
        overrides.applied(wrapped, profile(**members))

    assert (refused.value.reason, problem in str(refused.value)) == (Reason.PROFILE_NOT_APPLICABLE, True)
    overrides.applied(wrapped, profile(arguments={"title": "plain"}, environment={"NVDA_KIT_ARGS": "--/a/b=1"}))
