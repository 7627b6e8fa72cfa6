"""Which warm instances give their slots back (`yielding`): as few as will do, and for each session once."""

from __future__ import annotations

from typing import Any

from footlights.scheduler import NodeView, Share
from footlights.scheduler.checks import could_use
from footlights.scheduler.yielding import WarmSlots, yielded
from tests.scheduler.fleets import GIB, device, node, wish


def full(name: str, slots: int, **members: Any) -> NodeView:
    """A node with one device whose slots are all leased."""
    return node(name, device(f"{name}-gpu", slots=slots, leased=frozenset(range(slots)), **members), launches=slots)


def warm(key: str, where: str, *slots: int, ends: bool = False) -> WarmSlots:
    """A warm instance on the one device of a node."""
    return WarmSlots(key, where, f"{where}-gpu", slots, ends)


def test_one_slot_is_enough_for_one_session() -> None:
    """The first of those that are missed least ends, and no other one."""
    instances = [warm("a", "n", 0), warm("b", "n", 1)]
    assert yielded([full("n", 2)], instances, [wish()]) == ["a"]
    assert yielded([full("n", 2)], instances, [wish(), wish()]) == ["a", "b"]
    assert yielded([full("n", 2)], instances, []) == []


def test_a_slot_that_becomes_free_anyhow_counts() -> None:
    """While the end of one is waited for, no second one is ended for the same session."""
    instances = [warm("a", "n", 0, ends=True), warm("b", "n", 1)]
    assert yielded([full("n", 2)], instances, [wish()]) == []
    assert yielded([full("n", 2)], instances, [wish(), wish()]) == ["b"]


def test_the_node_is_chosen_where_the_fewest_end() -> None:
    """A session of two slots takes the place of one instance of two, and not of two instances."""
    small = full("a", 2)
    large = full("b", 2)
    instances = [warm("1", "a", 0), warm("2", "a", 1), warm("3", "b", 0, 1)]
    assert yielded([small, large], instances, [wish(slots=2)]) == ["3"]


def test_what_would_not_help_stays() -> None:
    """Instances on a device that the session cannot use, or beside sessions that keep it full, are left alone."""
    assert yielded([full("n", 2)], [warm("a", "n", 0)], [wish(slots=2)]) == []
    assert yielded([full("n", 1, kind="SOFTWARE")], [warm("a", "n", 0)], [wish(gpu=True)]) == []
    assert yielded([full("n", 1)], [warm("a", "n", 0)], [wish(launcher="container")]) == []


def test_memory_that_an_instance_keeps_is_given_back_with_it() -> None:
    """What it was promised counts as free once it is gone."""
    there = full(
        "n",
        2,
        memory_total_bytes=16 * GIB,
        memory_free_bytes=4 * GIB,
        memory_used_bytes=12 * GIB,
        shares={0: Share(6 * GIB), 1: Share(6 * GIB)},
    )
    instances = [warm("a", "n", 0), warm("b", "n", 1)]
    assert yielded([there], instances, [wish(min_memory_bytes=10 * GIB)]) == ["a"]
    assert yielded([there], instances, [wish(min_memory_bytes=11 * GIB)]) == ["a", "b"]


def test_a_node_that_a_wish_could_use_is_told_from_one_that_it_never_could() -> None:
    """Free or not: by what its devices can do, and what it offers."""
    assert could_use(wish(), full("n", 1))
    assert not could_use(wish(), full("n", 1, usable=False))
    assert not could_use(wish(slots=2), full("n", 1))
    assert not could_use(wish(gpu=True), full("n", 1, kind="SOFTWARE"))
    assert not could_use(wish(), node("n", device(), cordoned=True))
