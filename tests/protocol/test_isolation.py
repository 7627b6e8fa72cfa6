"""How far launchers separate applications: the levels are those of the messages, and each launcher has one."""

from __future__ import annotations

import pytest
from footlights.agent.v1 import recipe_pb2
from footlights.v1 import application_pb2

from footlights.launch.launchers import LAUNCHERS
from footlights.protocol.isolation import Isolation


@pytest.mark.parametrize("needs", [application_pb2.Needs, recipe_pb2.Needs])
def test_the_levels_are_those_of_both_messages(needs: type[application_pb2.Needs]) -> None:
    """A number means the same in the public API, on the link and in placement."""
    said = {name: number for name, number in needs.Isolation.items() if number}

    assert said == {level.name: level.value for level in Isolation}


def test_a_plain_process_is_isolated_from_nothing() -> None:
    """It runs as the agent's user; a container is as much as there is."""
    assert LAUNCHERS["process"].isolation is Isolation.NONE
    assert LAUNCHERS["container"].isolation is Isolation.CONTAINER
