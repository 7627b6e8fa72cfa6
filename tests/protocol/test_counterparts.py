"""The link's messages and the public ones that show the same have equal bytes, and stay so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from footlights.agent.v1 import node_pb2 as link_node_pb2
from footlights.agent.v1 import recipe_pb2
from footlights.v1 import application_pb2, node_pb2

from footlights.protocol import counterparts

PAIRS = (
    (recipe_pb2.Recipe, application_pb2.Version),
    (recipe_pb2.Needs, application_pb2.Needs),
    (recipe_pb2.Limits, application_pb2.Limits),
    (link_node_pb2.NodeFacts, node_pb2.NodeFacts),
    (link_node_pb2.Device, node_pb2.Device),
)
"""The link's message, and the public one."""

OUR_OWN = {
    "Device.slots_leased",
    "Device.sessions",
    "Device.events",
    "Device.quarantine",
    "Device.quarantine_status",
    "Device.memory_reserved_bytes",
}
"""Members of the public messages that the control plane fills: agents have none of them."""


def differences(link: Any, public: Any) -> Iterator[str]:
    """Fields that one has and the other lacks, or has with another number, name, type or enum."""
    ours, theirs = dict(link.fields_by_name), dict(public.fields_by_name)
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            if f"{public.name}.{name}" not in OUR_OWN:
                yield f"{public.name}.{name}"
            continue
        one, other = ours[name], theirs[name]
        same = ("number", "type", "is_repeated", "has_presence")
        if any(getattr(one, each) != getattr(other, each) for each in same):
            yield f"{public.name}.{name}"
        elif one.enum_type is not None:
            if one.enum_type.values_by_name.keys() != other.enum_type.values_by_name.keys():
                yield f"{public.name}.{name}: values"
        elif one.message_type is not None and one.message_type is not other.message_type:
            yield from differences(one.message_type, other.message_type)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].DESCRIPTOR.name)
def test_the_two_have_the_same_members(pair: tuple[type, type]) -> None:
    """By number, name and type: a member that is added to one is added to the other."""
    link, public = pair

    assert list(differences(link.DESCRIPTOR, public.DESCRIPTOR)) == []  # type: ignore[attr-defined]


def test_a_recipe_keeps_what_this_release_does_not_know() -> None:
    """The server that stored it and the agent that runs it may both be newer than the one between them."""
    newer = application_pb2.Version(version="1.0.0", command=["run"])
    newer.MergeFromString(b"\xfa\x3e\x03new")  # field 1007
    carried = counterparts.recipe(newer)

    assert carried.SerializeToString() == newer.SerializeToString()
    assert counterparts.version(carried).SerializeToString() == newer.SerializeToString()


def test_an_agent_cannot_say_what_is_the_control_planes_own() -> None:
    """How many slots are leased, and what else only the control plane knows, is dropped from what it sends."""
    lying = node_pb2.Device(uuid="GPU-0", slots=1, slots_leased=7, sessions=["s"], quarantine="no")
    sent = link_node_pb2.Device.FromString(lying.SerializeToString())

    assert counterparts.device(sent) == node_pb2.Device(uuid="GPU-0", slots=1)


def test_equal_recipes_have_one_digest() -> None:
    """Whatever the order in which their environment was written; another recipe has another one."""
    there = recipe_pb2.Recipe(environment={"A": "1", "B": "2"})
    back = recipe_pb2.Recipe(environment={"B": "2", "A": "1"})

    assert counterparts.digest(there) == counterparts.digest(back)
    assert counterparts.digest(there) != counterparts.digest(recipe_pb2.Recipe())
