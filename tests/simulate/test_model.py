"""The model: the same seed is the same course of events."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter

import pytest

from footlights.simulate import profile
from footlights.simulate.model import Fate, Model


def model(seed: int, name: str = "rough") -> Model:
    return Model(profile.load(name), seed)


def fates(of: Model, count: int = 2000) -> list[Fate]:
    return [of.fate(session=str(number), node="3.1", warm=False) for number in range(count)]


def test_the_same_seed_draws_the_same() -> None:
    """
    Arrivals, fates, mishaps and GPUs are equal for equal seeds, whatever was drawn before.
    """
    one, two = model(5), model(5)
    list(itertools.islice(two.arrivals(3.0), 17))  # draws that the other one has not made
    two.fate(session="9", node="1.1", warm=True)

    assert list(itertools.islice(one.arrivals(10.0), 200)) == list(itertools.islice(two.arrivals(10.0), 200))
    assert fates(one, 50) == fates(two, 50)
    assert [one.gpu(node) for node in range(50)] == [two.gpu(node) for node in range(50)]
    assert list(itertools.islice(one.interruptions(7), 20)) == list(itertools.islice(two.interruptions(7), 20))


def test_another_seed_draws_another() -> None:
    """
    The seed is what all is drawn from.
    """
    assert fates(model(5), 20) != fates(model(6), 20)
    assert next(model(5).arrivals(1.0)) != next(model(6).arrivals(1.0))


def test_a_retry_elsewhere_is_another_throw_and_the_same_place_is_not() -> None:
    """
    A session that one node refused may start on another: fates belong to a session and a place.
    """
    of = model(5)

    assert of.fate(session="1", node="1.1", warm=False) == of.fate(session="1", node="1.1", warm=False)
    assert of.fate(session="1", node="1.1", warm=False) != of.fate(session="1", node="2.1", warm=False)


def test_warmth_changes_how_long_a_start_takes_and_nothing_else() -> None:
    """
    What else is drawn for a launch is the same, warm or cold.
    """
    of = model(5)

    cold = of.fate(session="1", node="1.1", warm=False)
    warm = of.fate(session="1", node="1.1", warm=True)

    assert (cold.stop_s, cold.visits, cold.refused) == (warm.stop_s, warm.visits, warm.refused)
    assert cold.ready_s != warm.ready_s


def test_arrivals_come_as_often_as_is_asked() -> None:
    """
    The demand is a Poisson process of the given rate: the mean gap, and as great a deviation of the gaps.
    """
    times = [arrival.at_s for arrival in itertools.islice(model(1).arrivals(20.0), 5000)]
    gaps = [after - before for before, after in itertools.pairwise(times)]

    assert statistics.fmean(gaps) == pytest.approx(1 / 20, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 20, rel=0.1)


def test_launches_fail_as_often_as_the_profile_says() -> None:
    """
    Refusals, failed starts and launches that never become ready have their probabilities.
    """
    drawn = fates(model(2))
    start = profile.load("rough").start
    share = Counter(
        refused=sum(fate.refused for fate in drawn),
        failed=sum(fate.exits_early for fate in drawn),
    )

    assert share["refused"] / len(drawn) == pytest.approx(start.refused, abs=0.015)
    assert share["failed"] / len(drawn) == pytest.approx(start.failed, abs=0.015)
    assert all(fate.ready_s == float("inf") for fate in drawn if fate.exits_early)


def test_mishaps_do_not_overlap_and_have_their_rate() -> None:
    """
    A node is struck again only after it is back; over a thousand hours as often as the profile says.
    """
    nodes = profile.load("rough").nodes
    rate = sum(each.per_hour for each in (nodes.link_lost, nodes.agent_restarted, nodes.machine_gone))
    interruptions = list(itertools.takewhile(lambda each: each.at_s < 3_600_000, model(3).interruptions(1)))

    assert all(one.at_s + one.for_s <= two.at_s for one, two in itertools.pairwise(interruptions))
    assert len(interruptions) / 1000 == pytest.approx(rate, rel=0.1)


def test_nothing_befalls_the_nodes_of_a_steady_profile() -> None:
    """
    A profile without mishaps has none.
    """
    assert list(model(1, "steady").interruptions(1)) == []
