"""Wake-ups between replicas: what travels, what is left out, and words that nobody knows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.control.replication.notifications import _MOST_NAMES, decode, encode
from footlights.control.replication.signals import Bus, News
from footlights.store.engines.notify import MAX_BYTES

NAMES = st.sets(st.text(max_size=70), max_size=12)


def news(
    *,
    sessions: bool = False,
    placing: bool = False,
    nodes: set[str] | None = None,
    fleet: set[str] | None = None,
    decided: set[str] | None = None,
) -> News:
    found = News()
    found.sessions, found.placing = sessions, placing
    found.nodes, found.fleet, found.decided = nodes or set(), fleet or set(), decided or set()
    return found


def members(found: News | None) -> dict[str, object]:
    assert found is not None
    return {name: getattr(found, name) for name in News.__slots__}


@given(st.booleans(), st.booleans(), NAMES, NAMES, NAMES)
def test_what_is_told_is_what_is_heard(
    sessions: bool, placing: bool, nodes: set[str], fleet: set[str], decided: set[str]
) -> None:
    """Whatever the names are, as long as they fit."""
    told = news(sessions=sessions, placing=placing, nodes=nodes, fleet=fleet, decided=decided)
    text = encode("me", told)
    sender, heard = decode(text)

    assert len(text.encode()) <= MAX_BYTES
    assert sender == "me"
    if len(text) < MAX_BYTES / 4:
        assert members(heard) == members(told)


def test_names_beyond_what_fits_are_left_out() -> None:
    """Never the rest of the message: whoever would have been woken by name looks at its next period."""
    many = {f"{number:0200d}" for number in range(5000)}
    sender, heard = decode(text := encode("me", news(sessions=True, placing=True, nodes=many, fleet=many)))

    assert len(text.encode()) <= MAX_BYTES
    assert (sender, heard is not None and heard.sessions and heard.placing) == ("me", True)
    assert heard is not None
    assert 0 < len(heard.nodes) <= _MOST_NAMES
    assert heard.nodes < many


def test_names_that_are_too_long_are_left_out_altogether() -> None:
    """Even one that alone does not fit."""
    text = encode("me", news(placing=True, nodes={"x" * 10_000}))

    assert json.loads(text) == {"from": "me", "placing": True}


def test_words_of_another_version_are_passed_over() -> None:
    """What is known of them is heard."""
    sender, heard = decode('{"from": "other", "sessions": true, "weather": ["fair"]}')

    assert sender == "other"
    assert members(heard) == members(news(sessions=True))


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "null", '"text"', "{}", '{"from": "x", "nodes": 7}', '{"from": "x", "nodes": null}', "\x00"],
)
def test_what_is_not_understood_wakes_nobody_and_hurts_nobody(text: str) -> None:
    """Anybody with the database may say anything."""
    assert decode(text) == ("", None)


def test_each_word_wakes_whom_it_concerns() -> None:
    """Watchers, placing with the nodes that changed, and the links that are here."""
    bus, woken = Bus(), list[str]()
    bus.on_assigned = lambda node: bool(woken.append(node))  # type: ignore[func-returns-value]
    bus.heard(news(sessions=True))
    after_sessions = bus.sessions.count, bus.placing.count
    bus.heard(news(nodes={"node-a"}))
    after_nodes = list(woken)
    bus.heard(news(fleet={"node-b"}))
    with bus.decisions.expected("session-1") as event:
        bus.heard(news(decided={"session-1", "session-2"}))
        decided = event.is_set()

    assert after_sessions == (1, 0)
    assert after_nodes == ["node-a"]
    assert (bus.placing.count, bus.fleet) == (1, {"node-b"})
    assert decided
    assert not bus.news, "what was heard is not passed on again"


def test_news_is_told_only_of_what_is_not_here() -> None:
    """A node whose link is here is woken here; all others are named to the other replicas."""
    bus, calls = Bus(), list[None]()
    bus.on_assigned = lambda node: node == "here"
    bus.pass_on = lambda: calls.append(None)
    bus.assigned("here")
    quiet = len(calls)
    bus.assigned("there")

    assert (quiet, len(calls)) == (0, 1)
    assert bus.news.nodes == {"there"}
