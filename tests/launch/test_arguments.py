"""A session's arguments by its version's declarations."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from footlights.v1.application_pb2 import Argument, Version
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from footlights.errors import InvalidArgument
from footlights.launch.recipe.arguments import PUBLISHED, as_text, convert_arguments


def version(*arguments: dict[str, Any]) -> Version:
    return json_format.ParseDict({"arguments": list(arguments)}, Version())


VERSION = version(
    {"name": "quality", "type": "STRING", "allowed_values": ["low", "high"], "default_value": "low"},
    {"name": "frames", "type": "INTEGER", "minimum": 1, "maximum": 100},
    {"name": "exposure", "type": "NUMBER", "minimum": -1.5},
    {"name": "grid", "type": "BOOLEAN"},
    {"name": "scene", "type": "STRING", "pattern": "[a-z]+(-[a-z]+)*", "max_length": 20},
    {"name": "password", "type": "STRING", "secret": True, "pattern": "[a-z]+"},
)


def test_converted() -> None:
    """A Struct's numbers become the declared types, defaults are filled in, secrets are apart."""
    given_ = Struct()
    given_.update(
        {
            "frames": 5,
            "exposure": 2,
            "grid": True,
            "scene": "a-b",
            "password": "hush",
            "usd_stage_uri": "/a.usd",
            "nucleus_connection_config": [{"server": "n", "token": "t"}],
        }
    )

    values, secrets = convert_arguments(VERSION, given_)

    assert values == {
        "quality": "low",
        "frames": 5,
        "exposure": 2.0,
        "grid": True,
        "scene": "a-b",
        "usd_stage_uri": "/a.usd",
    }
    assert [as_text(value) for value in values.values()] == ["low", "5", "2.0", "true", "a-b", "/a.usd"]
    assert secrets == {"password": "hush", "nucleus_connection_config": [{"server": "n", "token": "t"}]}


def test_published_defaults() -> None:
    """The published default arguments are accepted for a version that declares nothing, and give nothing secret."""
    values, secrets = convert_arguments(Version(), {"usd_stage_uri": "", "nucleus_connection_config": []})

    assert (values, secrets) == ({"usd_stage_uri": ""}, {})
    assert convert_arguments(Version(), dict.fromkeys(PUBLISHED)) == ({}, {})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "frames": st.integers(1, 100) | st.integers(1, 100).map(float),
            "exposure": st.floats(-1.5, 1e300),
            "grid": st.booleans(),
            "quality": st.sampled_from(["low", "high"]),
            "password": st.just("hush"),
        },
    )
)
def test_again_is_the_same(arguments: dict[str, object]) -> None:
    """Converting what was converted, by way of a Struct, changes nothing: the node does so."""
    values, secrets = convert_arguments(VERSION, arguments)
    struct = Struct()
    struct.update({**values, **secrets})  # type: ignore[dict-item]  # JSON by construction

    assert convert_arguments(VERSION, struct) == (values, secrets)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("frames", 5.5, "5.5 is not a whole number"),
        ("frames", 0, "0 is too small: give at least 1"),
        ("frames", 101, "101 is too large: give at most 100"),
        ("frames", "5", "'5' is not a number"),
        ("frames", True, "True is not a number"),
        ("frames", 1e30, "too large"),
        ("exposure", float("nan"), "nan is not finite"),
        ("exposure", -2, "too small: give at least -1.5"),
        ("exposure", 10**400, "not finite"),
        ("grid", 1, "neither true nor false"),
        ("quality", "medium", "'medium' is not allowed: choose one of 'low', 'high'"),
        ("quality", 3, "3 is not text"),
        ("scene", "A", "'A' does not match"),
        ("scene", "ab\n", "line break"),
        ("scene", "a" * 21, "21 characters long: give at most 20"),
        ("usd_stage_uri", 3, "3 is not text"),
        ("nucleus_connection_config", "x", "not a list of objects"),
        ("nucleus_connection_config", {"a": 1}, "not a list of objects"),
        ("nucleus_connection_config", [1], "not a list of objects"),
        ("nucleus_connection_config", [{"a": "b" * 70000}], "at most 65536"),
        ("sceen", "a", "no such argument: the known ones are exposure, frames, grid, nucleus_connection_config"),
    ],
)
def test_refused(name: str, value: object, problem: str) -> None:
    """A wrong value is refused with the argument's name, the value and the fix."""
    with pytest.raises(InvalidArgument) as caught:
        convert_arguments(VERSION, {name: value})

    assert caught.value.field == f"application_arguments.{name}"
    assert problem in caught.value.problem


def test_required() -> None:
    """A required argument without a value is refused; null is no value."""
    required = version({"name": "scene", "type": "STRING", "required": True})

    for arguments in ({}, {"scene": None}):
        with pytest.raises(InvalidArgument, match="scene: it is required"):
            convert_arguments(required, arguments)


def test_secret_is_never_shown() -> None:
    """The error for a wrong secret does not hold its value."""
    with pytest.raises(InvalidArgument) as caught:
        convert_arguments(VERSION, {"password": "HUNTER2"})

    assert "HUNTER2" not in str(caught.value)
    assert "does not match" in str(caught.value)


def test_what_is_too_much_together_is_refused() -> None:
    """Plain values, and secrets (as the JSON that a node is sent); each by itself is within its bound."""
    names = [f"a{number}" for number in range(40)]
    given: dict[str, object] = dict.fromkeys(names, "s" * 65_536)
    for secret, most in ((False, 128 << 10), (True, 2 << 20)):
        much = version(
            *({"name": name, "type": "STRING", "max_length": 65_536, "secret": secret} for name in (*names, "last"))
        )
        with pytest.raises(InvalidArgument, match=f"at most {most} are allowed") as caught:
            convert_arguments(much, given)
        assert [each.field for each in caught.value.violations] == ["application_arguments"]
        assert "sss" not in caught.value.message
    whole = dict.fromkeys(names[:31], "s" * 65_536)
    room = (2 << 20) - len(json.dumps({**whole, "last": ""}))
    convert_arguments(much, {**whole, "last": "s" * room})
    with pytest.raises(InvalidArgument):
        convert_arguments(much, {**whole, "last": "s" * (room + 1)})


def test_pattern_is_linear() -> None:
    """A pattern that stalls a backtracking matcher for ever is matched in no time."""
    evil = version({"name": "scene", "type": "STRING", "pattern": "(a|a)*b", "max_length": 2000})
    begin = time.process_time()

    with pytest.raises(InvalidArgument, match="does not match"):
        convert_arguments(evil, {"scene": "a" * 2000})

    assert time.process_time() - begin < 2


@pytest.mark.parametrize(("value", "says"), [("a\nb", "a line break"), ("a\0", "a NUL"), ("x" * 16385, "16385 bytes")])
def test_a_secret_for_the_environment(value: str, says: str) -> None:
    """It must fit into a variable; in the session file alone it may be anything. The message does not have it."""
    version = Version(arguments=[Argument(name="key", type=Argument.STRING, secret=True, max_length=65536)])
    assert convert_arguments(version, {"key": value})[1] == {"key": value}
    version.environment["KEY"] = "{key}"

    with pytest.raises(InvalidArgument, match=says) as refused:
        convert_arguments(version, {"key": value})

    assert refused.value.field == "application_arguments.key"
    assert value not in str(refused.value)
