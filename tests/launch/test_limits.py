"""Limits (`limits`): one by one, from defaults over versions and profiles to sessions. The claims of users are in
`tests/control/services/test_create.py`."""

from __future__ import annotations

import pytest
from footlights.v1.application_pb2 import Limits
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from footlights.errors import InvalidArgument
from footlights.launch.recipe import limits

FREE = limits.MAY_BE_UNLIMITED


@st.composite
def some_limits(draw: st.DrawFn) -> Limits:
    """Limits that pass the checks."""
    made = Limits()
    for name in limits.NAMES:
        choice = draw(st.sampled_from(("unset", "set", "unlimited")))
        if choice == "set" or (choice == "unlimited" and name not in FREE):
            getattr(made, name).CopyFrom(Duration(seconds=draw(st.integers(1, 3600))))
        elif choice == "unlimited":
            made.unlimited.append(name)
    return made


def said(given: Limits, name: str) -> float | str | None:
    """Return what limits say of one: seconds, ``unlimited``, or None for nothing."""
    return "unlimited" if name in given.unlimited else limits.limit_s(given, name)


@given(some_limits(), some_limits())
def test_each_limit_is_the_last_one_that_was_said(version: Limits, profile: Limits) -> None:
    """And after completion every one is set or unlimited, and the result passes the checks itself."""
    made = Limits()
    made.CopyFrom(version)
    limits.override(made, profile)
    limits.InstallationLimits().complete(made)

    limits.check("limits", made)
    for name in limits.NAMES:
        default = limits.DEFAULTS_S.get(name, "unlimited")
        expected = next((each for each in (said(profile, name), said(version, name)) if each is not None), default)
        assert said(made, name) == expected


@given(some_limits(), some_limits())
def test_a_session_never_has_more_than_is_allowed(allowed: Limits, asked: Limits) -> None:
    """It gets exactly what it asks for, or the error names a limit of which it asked for more."""
    limits.InstallationLimits().complete(allowed)
    made = Limits()
    made.CopyFrom(allowed)

    def more(name: str) -> bool:
        most, value = limits.limit_s(allowed, name), said(asked, name)
        return most is not None and value is not None and (value == "unlimited" or float(value) > most)

    if any(more(name) for name in limits.NAMES):
        with pytest.raises(InvalidArgument) as refused:
            limits.narrow(made, asked, field="limits")
        assert more(refused.value.metadata["limit"])
        return
    limits.narrow(made, asked, field="limits")
    for name in limits.NAMES:
        assert said(made, name) == (said(allowed, name) if said(asked, name) is None else said(asked, name))
