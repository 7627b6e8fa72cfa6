"""Profiles: what they may say, and how a wrong one is refused.

Also the tests of ``spread``.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from pathlib import Path

import pytest

from footlights.errors import InvalidArgument
from footlights.simulate import profile
from footlights.simulate.spread import Spread

DRAWS = 20_000


@pytest.mark.parametrize(
    ("spread", "share", "expected"),
    [
        (Spread(median=30.0, p99=90.0), 0.5, 30.0),
        (Spread(median=30.0, p99=90.0), 0.99, 90.0),
        (Spread(least=2.0, most=4.0), 0.5, 3.0),
        (Spread(least=2.0, most=4.0), 0.99, 3.98),
        (Spread(mean=10.0), 0.5, 6.93),
        (Spread(constant=0.3), 0.99, 0.3),
    ],
)
def test_a_spread_has_the_percentiles_that_it_names(spread: Spread, share: float, expected: float) -> None:
    """
    Twenty thousand draws have the percentiles that the profile gives.
    """
    dice = random.Random(7)

    drawn = sorted(spread.draw(dice) for _ in range(DRAWS))

    assert drawn[int(share * DRAWS)] == pytest.approx(expected, rel=0.06)


def test_the_mean_of_an_exponential_is_its_mean() -> None:
    """
    What is given as a mean is one.
    """
    dice = random.Random(7)

    assert statistics.fmean(Spread(mean=10.0).draw(dice) for _ in range(DRAWS)) == pytest.approx(10.0, rel=0.05)


def test_every_profile_that_ships_can_be_read_and_written() -> None:
    """
    The built-in profiles are valid, described, and the same after a way through plain values, as to another process.
    """
    for name in profile.built_in():
        loaded = profile.load(name)

        assert loaded.description
        assert loaded.name == name
        assert profile.read(dataclasses.asdict(loaded)) == loaded
    assert profile.built_in() == ["kit", "rough", "steady"]


@pytest.mark.parametrize("suffix", ["yaml", "toml"])
def test_a_file_of_ones_own_is_a_profile(tmp_path: Path, suffix: str) -> None:
    """
    YAML and TOML say the same; what is left out has its default, and the file's name is the profile's.
    """
    texts = {
        "yaml": "start: {cold_s: {median: 2, p99: 5}, warm_s: 1}\nnodes: {link_lost: {per_hour: 3, for_s: 1.5}}\n",
        "toml": "[start]\ncold_s = {median = 2, p99 = 5}\nwarm_s = 1\n[nodes.link_lost]\nper_hour = 3\nfor_s = 1.5\n",
    }
    path = tmp_path / f"mine.{suffix}"
    path.write_text(texts[suffix])

    loaded = profile.load(str(path))

    assert loaded.name == "mine"
    assert loaded.start.cold_s == Spread(median=2, p99=5)
    assert loaded.start.warm_s == Spread(constant=1)
    assert loaded.nodes.link_lost.per_hour == 3
    assert loaded.gpus == profile.SimulationProfile("other").gpus


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("start: {cold: 3}", "start.cold: unknown; one of"),
        ("start: {cold_s: {median: 3}}", "start.cold_s.spread: has median"),
        ("start: {cold_s: {median: 3, p99: 1}}", "start.cold_s.p99: 1 is below median"),
        ("start: {refused: 0.7, failed: 0.7}", "start.refused: refused + failed + never_ready is 1.4"),
        ("gpus: [{memory_gib: 4}]", "gpus[0].name: is missing"),
        ("gpus: [{name: A, memory_gib: many}]", "gpus[0].memory_gib: 'many'; expected number"),
        ("gpus: []", "gpus: has none"),
        ("nodes: {link_lost: {per_hour: -1}}", "nodes.link_lost.per_hour: must not be negative (got -1)"),
        ("[1, 2]", "holds no mapping"),
        ("a: [", "is not what its name says"),
    ],
)
def test_a_wrong_profile_is_refused_by_the_path_of_the_member(tmp_path: Path, text: str, names: str) -> None:
    """
    Whoever writes a profile is told which member is wrong, how, and what would do.
    """
    path = tmp_path / "wrong.yaml"
    path.write_text(text)

    with pytest.raises(InvalidArgument) as caught:
        profile.load(str(path))

    assert names in caught.value.message


def test_an_unknown_profile_is_answered_with_those_there_are() -> None:
    """
    A name that is none is answered with the names.
    """
    with pytest.raises(InvalidArgument, match="kit, rough, steady"):
        profile.load("smooth")
