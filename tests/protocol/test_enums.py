"""Enums by name and number, also those of a later release (`protocol.enums`)."""

from __future__ import annotations

import ast
from pathlib import Path

from footlights.v1 import node_pb2, session_pb2

import footlights
from footlights.auth.roles import Role
from footlights.lifecycle import SessionState, known
from footlights.protocol import enums
from tests.sources import parsed

S = session_pb2.Session
SOURCE = Path(footlights.__file__).parent
READERS = {"protocol/enums.py", "lifecycle/states.py"}
STATES = {"SessionState", "LaunchState", "EndReason", "Stage", "Intent", "Condition", "Desired", "Role"}


def test_a_value_that_is_known_has_its_name_and_number() -> None:
    """Both ways, of a message's field as well."""
    assert enums.number_of(S.State, "READY") == S.READY
    assert enums.name_of(S.State, S.READY) == "READY"
    assert enums.field_name(node_pb2.Device(health=node_pb2.Device.LOST), "health") == "LOST"
    assert known(SessionState, "READY") is SessionState.READY


def test_a_value_of_a_later_release_is_unspecified_by_its_name_and_shown_by_its_number() -> None:
    """Nothing raises, and nothing is taken for another value."""
    assert enums.number_of(S.State, "INVENTED") == S.STATE_UNSPECIFIED
    assert enums.name_of(S.State, 99) == "99"
    assert enums.field_name(S(state=99), "state") == "99"  # type: ignore[arg-type]
    assert known(SessionState, "INVENTED") is None
    assert known(Role, "") is None


def test_states_are_read_here_and_nowhere_else() -> None:
    """``State.Value(text)``, ``State.Name(number)`` and ``SessionState(text)`` raise at a value of a later release."""
    found = []
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        if name in READERS:
            continue
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            by_wrapper = isinstance(called, ast.Attribute) and called.attr in ("Value", "Name")
            by_class = isinstance(called, ast.Name) and called.id in STATES
            if by_wrapper or by_class:
                found.append(f"{name}:{node.lineno}")
    assert found == []
