"""What an explanation says of a fleet."""

from __future__ import annotations

from collections import Counter

from footlights.control.scheduling.outlook import Outlook, WaitingSession
from footlights.control.services.sessions.explain import explanation
from tests.scheduler.fleets import device, node, wish


def test_an_explanation_of_a_large_fleet_is_bounded_and_counts_the_rest() -> None:
    """A thousand nodes are more than an answer may hold: it shows some of every sort, with the counts over all."""
    taken = [node(f"taken-{number:03}", device(leased=frozenset({0}))) for number in range(600)]
    cordoned = [node(f"cordoned-{number:03}", device(), cordoned=True) for number in range(399)]
    answer = explanation(
        [*taken, *cordoned, node("z-free", device())], WaitingSession("", wish(), "", b""), [], lambda _: Outlook()
    )

    assert (answer.fits, answer.node) == (True, "z-free")
    assert answer.node_count == 1000
    assert list(answer.reasons) == ["NO_SLOT: 600 devices", "CORDONED: 399 nodes", "FITS: 1 device"]
    why = answer.wait_reasons[0]
    assert (why.reason, why.device_count, why.node_count) == ("NO_SLOT", 600, 0)
    assert why.message == "600 devices: all slots are leased"
    assert [each.node_count for each in answer.wait_reasons if each.reason == "CORDONED"] == [399]
    shown = Counter(each.reason for each in answer.nodes)
    assert sum(shown.values()) == 100
    assert shown["FITS"] == 1
    assert min(shown["NO_DEVICE_FITS"], shown["CORDONED"]) > 40


def test_an_explanation_of_a_small_fleet_shows_every_node() -> None:
    """Each with its devices, and the place in the queue where the session would wait."""
    nodes = [node("a", device(leased=frozenset({0}))), node("b", device(foreign="x"))]
    answer = explanation(nodes, WaitingSession("", wish(), "", b""), [], lambda _: Outlook())

    told = [(each.node, each.devices[0].reason) for each in answer.nodes]
    assert told == [("a", "NO_SLOT"), ("b", "FOREIGN_PROCESS")]
    assert answer.node_count == 2
    assert (answer.fits, answer.queue_position) == (False, 1)
