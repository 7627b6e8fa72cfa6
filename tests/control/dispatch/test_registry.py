"""The links of a process: which one is a node's, and when its nodes were heard."""

from __future__ import annotations

import asyncio

from footlights.agent.v1 import agent_pb2

from footlights import errors
from footlights.control.dispatch.link import AgentLink, LinkState
from footlights.control.dispatch.registry import LinkRegistry, heartbeat_interval_s


async def test_two_that_ask_at_once_whether_an_agent_is_alive_both_learn_it() -> None:
    """As two other replicas do, each with a second agent."""
    registry = LinkRegistry()
    link = AgentLink("node-a", "one", 1, set())
    registry.add(link)
    asking = [
        asyncio.create_task(registry.find_other("node-a", name, 10, agent_pb2.Notice())) for name in ("two", "three")
    ]
    await asyncio.sleep(0)
    registry.touch(link)

    assert await asyncio.gather(*asking) == ["one", "one"]


def test_a_large_fleet_is_heard_less_often() -> None:
    """Every five seconds up to 2,000 nodes, above that so that the sum stays the same."""
    assert [heartbeat_interval_s(5.0, count) for count in (0, 2000, 4000, 10_000)] == [5, 5, 10, 25]
    assert heartbeat_interval_s(1.0, 100) == 1


def test_a_newer_link_closes_the_older_one_and_stays() -> None:
    """The end of the older one, which comes later, does not remove the newer."""
    registry = LinkRegistry()
    older, newer = AgentLink("node-a", "one", 1, set()), AgentLink("node-a", "two", 2, set())
    registry.add(older)
    registry.add(newer)
    removed = registry.remove(older)

    assert older.state is LinkState.CLOSED
    assert isinstance(older.close_reason, errors.AlreadyExists)
    assert not removed
    assert registry.get("node-a") is newer
    assert "node-a" in registry


def test_silence_is_counted_from_the_end_of_a_link() -> None:
    """Of a node that was never linked here, from the start of this process; a forgotten node is forgotten."""
    now = [100.0]
    registry = LinkRegistry(lambda: now[0])
    link = AgentLink("node-a", "one", 7, set(), monotonic=registry.monotonic)
    registry.add(link)
    now[0] += 5
    registry.remove(link)
    now[0] += 3

    assert (registry.silent_for("node-a"), registry.silent_for("node-b")) == (3, 8)
    assert (registry.has_met("node-a"), registry.has_met("node-b")) == (True, False)
    assert (registry.has_epoch("node-a", 7), registry.has_epoch("node-a", 8)) == (True, False)
    registry.keep(set())
    assert not registry.has_met("node-a")
