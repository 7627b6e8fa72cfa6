"""From the published ``nucleus_connection_config`` to Kit's account."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1.application_pb2 import Argument, Version

from footlights.launch.recipe.arguments import convert_arguments

KIT = Version(
    arguments=[Argument(name=name, type=Argument.STRING, secret=True) for name in ("omni_user", "omni_pass")],
    environment={"OMNI_USER": "{omni_user}", "OMNI_PASS": "{omni_pass}"},
)
ANN = {"username": "ann", "password": "hush"}
TOKEN = ("$omni-api-token", "ey.J")


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([ANN], ("ann", "hush")),
        ([{"url": "omniverse://a", "user": "ann", "Password": "hush"}], ("ann", "hush")),
        ([{"omni_user": "ann", "omni_pass": "hush"}], ("ann", "hush")),
        ([{"token": "ey.J"}], TOKEN),
        ([{"server": "a", "api-token": "ey.J"}, {"server": "b", "accessToken": 1, "token": "ey.J"}], TOKEN),
        ([ANN, {"url": "omniverse://b"}], ("ann", "hush")),
        ([ANN, {"username": "bob", "password": "hush"}], None),
        ([{"username": "ann"}], None),
        ([{"password": "hush", "username": 7}], None),
        ([{"anything": {"nested": [1]}}], None),
        ([], None),
    ],
)
def test_what_is_understood(items: list[dict[str, Any]], found: tuple[str, str] | None) -> None:
    """One account with a user name and a password, or a token; nothing is guessed. The session file has all of it."""
    values, secrets = convert_arguments(KIT, {"nucleus_connection_config": items})

    assert values == {}
    assert secrets.pop("nucleus_connection_config", []) == items
    assert (secrets or None) == (None if found is None else dict(zip(("omni_user", "omni_pass"), found, strict=True)))


def test_what_a_session_says_itself_counts() -> None:
    """Half of an account is not completed from elsewhere, nor is one made for a version that declares none."""
    own = convert_arguments(KIT, {"omni_user": "eve", "nucleus_connection_config": [ANN]})[1]
    none = convert_arguments(Version(), {"nucleus_connection_config": [ANN]})[1]

    assert own == {"omni_user": "eve", "nucleus_connection_config": [ANN]}
    assert none == {"nucleus_connection_config": [ANN]}
