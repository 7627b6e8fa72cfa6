"""What no node could ever serve: found as by a search through all devices, and said by need."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from footlights.protocol.isolation import Isolation
from footlights.scheduler import Index, NodeView, Wish
from footlights.scheduler.checks import capability_refusal
from tests.scheduler.fleets import GIB, device, fleets, node, wish, wishes


def served(wanted: Wish, fleet: list[NodeView]) -> bool:
    """Return whether a node could serve a wish if it were free and well, by looking at all."""
    return any(
        wanted.launcher in each.launchers
        and each.launchers[wanted.launcher] >= wanted.isolation
        and all(each.labels.get(key) == value for key, value in wanted.node_labels.items())
        and any(
            capability_refusal(wanted, view) is None
            and (view.memory_total_bytes is None or view.memory_total_bytes >= wanted.min_memory_bytes)
            for view in each.devices
        )
        for each in fleet
    )


@given(fleet=fleets(), wanted=wishes("s"))
def test_what_could_be_served_is_what_a_search_finds(fleet: list[NodeView], wanted: Wish) -> None:
    """Whatever is cordoned, unreachable, sick, foreign or full just now; and what could not says a need."""
    index = Index(fleet)

    why = index.unserved(wanted)

    assert (not why) == (not fleet or served(wanted, fleet))
    assert not why or why[0].reason == "UNSATISFIABLE"
    if index.choose(wanted) is not None:
        assert not why


BUSY: dict[str, Any] = {"leased": frozenset({0})}
SICK: dict[str, Any] = {"usable": False, "health_reason": "XID_79: fell off"}
LACKING = {
    "launcher": (wish(launcher="container"), "no node offers the container launcher"),
    "isolation": (
        wish(isolation=Isolation.CONTAINER),
        "no node offers the process launcher with the isolation CONTAINER",
    ),
    "label": (wish(node_labels={"zone": "c"}), "no node has the label zone=c"),
    "name": (wish(device_names=("NVIDIA B300",)), "no device is named NVIDIA B300"),
    "slots": (wish(slots=4), "no node has 4 slots on one device"),
    "memory": (
        wish(gpu=True, min_memory_bytes=80 * GIB),
        "no node has all of this at once: a GPU, 80.0 GiB of memory on one device",
    ),
    "encoder": (wish(encoder=True), "no device has a hardware video encoder"),
    "several": (
        wish(slots=4, node_labels={"zone": "c"}),
        "no node has the label zone=c; no node has 4 slots on one device",
    ),
    "a combination": (
        wish(gpu=True, node_labels={"zone": "b"}, min_memory_bytes=GIB),
        "no node has all of this at once: the label zone=b, a GPU",
    ),
}


@pytest.mark.parametrize("what", LACKING)
def test_the_need_that_nobody_meets_is_named(what: str) -> None:
    """Alone where one is met nowhere; otherwise the two that no node meets together."""
    software = device("SW", kind="SOFTWARE", name="Software renderer", memory_total_bytes=None, encoder=False)
    fleet = [
        node("a", device("A", encoder=False, **BUSY), device("B", encoder=False, **SICK), labels={"zone": "a"}),
        node("b", software, labels={"zone": "b"}, cordoned=True),
    ]
    wanted, says = LACKING[what]

    why = Index(fleet).unserved(wanted)

    assert why[0].message == f"no node could serve it: {says}"


@pytest.mark.parametrize(
    "fleet",
    [
        [],
        [node("a", device(**BUSY))],
        [node("a", device(**SICK))],
        [node("a", device(foreign="pid 7"))],
        [node("a", device(memory_free_bytes=0))],
        [node("a", device(quarantine="failed 3 times"))],
        [node("a", device(), connected=False)],
        [node("a", device(), draining=True)],
        [node("a", device(), accepted=False)],
        [node("a", device(), port_blocks=1, launches=1)],
    ],
)
def test_what_may_come_back_is_waited_for(fleet: list[NodeView]) -> None:
    """None of this makes a wish hopeless, nor does a fleet without a node."""
    assert Index(fleet).unserved(wish(gpu=True, min_memory_bytes=16 * GIB)) == ()


def test_a_wish_is_served_again_when_a_node_that_could_joins_and_not_when_it_leaves() -> None:
    """Level-triggered: nothing is remembered of how it was."""
    index, wanted = Index([node("a", device())]), wish(device_names=("NVIDIA B300",))
    before = index.unserved(wanted)
    index.set_node(node("b", device("B", name="NVIDIA B300", **BUSY)))
    joined = index.unserved(wanted)
    index.remove_node("b")

    assert [each.reason for each in before] == ["UNSATISFIABLE", "DEVICE_NAME"]
    assert joined == ()
    assert index.unserved(wanted) == before
