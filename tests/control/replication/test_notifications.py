"""Notifications between replicas: what travels, what is left out, and what is published of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights import supervision
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.notifications import MAX_NAMES, Notification, NotificationRelay, decode, encode
from footlights.control.signals import ChangeSet, Signals
from footlights.store import Store
from footlights.store.engines.notify import MAX_BYTES
from footlights.supervision import Supervisor

NAMES = st.frozensets(st.text(max_size=70), max_size=12)


@given(st.booleans(), st.booleans(), NAMES, NAMES, NAMES)
def test_what_is_told_is_what_is_heard(
    sessions: bool, placing: bool, nodes: frozenset[str], fleet: frozenset[str], decided: frozenset[str]
) -> None:
    """Whatever the names are, as long as they fit."""
    told = Notification(sessions=sessions, placing=placing, nodes=nodes, fleet=fleet, decided=decided)
    text = encode("me", told)
    sender, heard = decode(text)

    assert len(text.encode()) <= MAX_BYTES
    assert sender == "me"
    if len(text) < MAX_BYTES / 4:
        assert heard == told


def test_names_beyond_what_fits_are_left_out() -> None:
    """Never the rest of the message: a reader that would have been woken by name looks at its next period."""
    many = frozenset(f"{number:0200d}" for number in range(5000))
    sender, heard = decode(text := encode("me", Notification(sessions=True, placing=True, nodes=many, fleet=many)))

    assert len(text.encode()) <= MAX_BYTES
    assert (sender, heard is not None and heard.sessions and heard.placing) == ("me", True)
    assert heard is not None
    assert 0 < len(heard.nodes) <= MAX_NAMES
    assert heard.nodes < many


def test_names_that_are_too_long_are_left_out_altogether() -> None:
    """Even one that alone does not fit."""
    text = encode("me", Notification(placing=True, nodes=frozenset({"x" * 10_000})))

    assert json.loads(text) == {"from": "me", "placing": True}


def test_words_of_another_version_are_passed_over() -> None:
    """What is known of them is heard."""
    sender, heard = decode('{"from": "other", "sessions": true, "weather": ["fair"]}')

    assert sender == "other"
    assert heard == Notification(sessions=True)


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "null", '"text"', "{}", '{"from": "x", "nodes": 7}', '{"from": "x", "nodes": null}', "\x00"],
)
def test_what_is_not_understood_wakes_no_reader_and_hurts_none(text: str) -> None:
    """Anybody with the database may say anything."""
    assert decode(text) == ("", None)


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def relay(shared: Store, signals: Signals) -> Iterator[NotificationRelay]:
    """A relay of a replica that has the link of one node, ``here``."""
    made = NotificationRelay(shared, signals, replica="me", linked={"here"}, metrics=Metrics(), supervisor=Supervisor())
    yield made
    made.close()


async def test_what_another_replica_says_is_published_here_and_not_sent_back(
    signals: Signals, relay: NotificationRelay
) -> None:
    """Each kind to its own topic: watchers, scheduling with the nodes that changed, assignments, new sessions."""
    watcher, scheduling = signals.sessions.subscribe(), signals.placing.subscribe()
    sender, catalogue = signals.assignments.subscribe(), signals.catalogue.subscribe()
    relay.hear(Notification(sessions=True))
    after_sessions = watcher.pending, scheduling.pending, sender.pending, catalogue.pending
    relay.hear(Notification(nodes=frozenset({"node-a"}), fleet=frozenset({"node-b"}), catalogue=True))
    with signals.decisions.expect("session-1") as decided:
        relay.hear(Notification(decided=frozenset({"session-1", "session-2"})))
        assert decided.is_set()

    assert after_sessions == (True, False, False, False)
    assert sender.take().items == {"node-a"}
    assert scheduling.take().items == {"node-b"}
    assert catalogue.pending
    assert not relay.collect(), "what was heard is not sent back"


async def test_what_changes_here_while_another_replica_speaks_is_sent(
    signals: Signals, relay: NotificationRelay
) -> None:
    """That a topic is not echoed hides nothing of this replica's own."""
    signals.placing.publish("node-a")
    relay.hear(Notification(placing=True, fleet=frozenset({"node-b"})))

    assert relay.collect() == Notification(placing=True, fleet=frozenset({"node-a"}))


async def test_assignments_of_a_node_that_is_linked_here_concern_no_other_replica(
    signals: Signals, relay: NotificationRelay
) -> None:
    """All other nodes are named to them."""
    signals.assignments.publish("here")
    quiet = relay.collect()
    signals.assignments.publish("here")
    signals.assignments.publish("there")

    assert not quiet
    assert relay.collect().nodes == {"there"}


async def test_after_an_interruption_every_reader_looks_at_everything(
    signals: Signals, relay: NotificationRelay
) -> None:
    """Notifications may have been lost, and which ones cannot be told."""
    readers = [topic.subscribe() for topic in (signals.sessions, signals.placing, signals.assignments)]
    relay.missed()

    assert [reader.take().everything for reader in readers] == [True, True, True]
    assert not relay.collect()


class _Unsure(set[str]):
    """Links about which nothing can be said at first."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __contains__(self, node: object) -> bool:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("a bug")
        return super().__contains__(node)


async def test_replicas_hear_each_other_also_after_a_failure(shared: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one publishes the other hears, once; a failure loses one notification, which is a hint."""
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.001)
    failures = asyncio.Queue[str]()
    here, there = Signals(), Signals()
    relays = [
        NotificationRelay(
            shared,
            signals,
            replica=name,
            linked=linked,
            metrics=Metrics(),
            supervisor=Supervisor(failures.put_nowait),
        )
        for name, signals, linked in (("here", here, _Unsure()), ("there", there, set[str]()))
    ]
    hearing = there.assignments.subscribe()
    running = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        async with asyncio.timeout(20):
            # Both listen: each is told that it may have missed something.
            while not (await hearing.next() or ChangeSet()).everything:
                pass
            here.assignments.publish("node-a")
            failed = await failures.get()
            heard = None
            while heard is None or not heard.items:
                here.assignments.publish("node-b")
                heard = await hearing.next(0.2)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for relay in relays:
            relay.close()

    assert failed == "notifications"
    assert heard.items == {"node-b"}


async def test_a_notification_that_cannot_be_read_is_skipped(shared: Store, relay: NotificationRelay) -> None:
    """Also where reading it fails in a way that was not foreseen."""
    relay._on_payload("[" * 100_000)
    relay._on_payload('{"from": "other", "sessions": true}')
