"""Signals: each reader hears of every change, once, however often it happened."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from footlights.control.signals import ChangeSet, Signals, Topic


async def test_what_is_published_many_times_is_read_once() -> None:
    """A reader that sleeps through a thousand changes is woken once, with each name once."""
    topic: Topic[str] = Topic()
    with topic.subscribe() as slow:
        for number in range(1000):
            topic.publish(f"node-{number % 3}")

        assert await slow.next() == ChangeSet(frozenset({"node-0", "node-1", "node-2"}))
        assert await slow.next(0) is None


async def test_a_waiting_reader_is_woken_at_once() -> None:
    """Also by a change without a name; and every reader hears of it."""
    topic: Topic[str] = Topic()
    with topic.subscribe() as one, topic.subscribe() as two:
        waiting = [asyncio.create_task(each.next(10)) for each in (one, two)]
        await asyncio.sleep(0)
        topic.publish()

        assert await asyncio.gather(*waiting) == [ChangeSet(), ChangeSet()]


async def test_a_first_look_need_not_wait_for_a_change() -> None:
    """What changed before the subscription is looked for once."""
    topic: Topic[str] = Topic()
    with topic.subscribe(pending=True) as reader:
        assert await reader.next(10) == ChangeSet()
        assert not reader.pending


async def test_one_event_may_stand_for_several_topics() -> None:
    """A reader of many topics waits for whichever comes first."""
    one, two, ready = Topic[str](), Topic[str](), asyncio.Event()
    first, second = one.subscribe(ready), two.subscribe(ready)
    two.publish("a")

    assert ready.is_set()
    assert (first.pending, second.pending) == (False, True)


async def test_who_brings_news_does_not_hear_of_it() -> None:
    """Everybody else does; what it was still to read stays."""
    topic: Topic[str] = Topic()
    relay, reader = topic.subscribe(), topic.subscribe()
    topic.publish("a")
    topic.publish("b", everything=True, origin=relay)

    assert relay.take() == ChangeSet(frozenset({"a"}))
    assert reader.take() == ChangeSet(frozenset({"a", "b"}), everything=True)
    topic.publish("c")
    assert relay.pending


async def test_one_item_may_be_waited_for() -> None:
    """Whatever else is published; afterwards nothing of it is left."""
    topic: Topic[str] = Topic()
    with topic.expect("mine") as event:
        topic.publish("other")
        before = event.is_set()
        topic.publish("other", "mine")
        assert (before, event.is_set()) == (False, True)
    topic.publish("mine")


async def test_a_closed_subscription_keeps_nothing() -> None:
    """Its reader is gone."""
    topic: Topic[str] = Topic()
    with topic.subscribe() as reader:
        pass
    topic.publish("a")

    assert reader.take() == ChangeSet()


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc"))))
def test_nothing_that_is_published_is_lost(events: list[str | None]) -> None:
    """Whenever it is read (``None`` stands for a reading), all readings together have every name."""
    topic: Topic[str] = Topic()
    reader, read = topic.subscribe(), set[str]()
    for event in events:
        if event is None:
            read |= reader.take().items
        else:
            topic.publish(event)
    read |= reader.take().items

    assert read == {event for event in events if event is not None}


async def test_a_changed_node_concerns_its_watchers_its_link_and_scheduling() -> None:
    """A changed session concerns a link only where it is on a node."""
    signals = Signals()
    watchers, scheduling = signals.sessions.subscribe(), signals.placing.subscribe()
    links = signals.assignments.subscribe()
    signals.session_changed()
    no_node = links.pending
    signals.node_changed("node-a")

    assert not no_node
    assert watchers.pending
    assert scheduling.take().items == links.take().items == {"node-a"}
