"""What is counted and timed, and what the report makes of it.

Also the tests of ``tally``.
"""

from __future__ import annotations

import json
import random

import pytest

from footlights.errors import InvalidArgument
from footlights.simulate.profile import SimulationProfile
from footlights.simulate.report import Report
from footlights.simulate.settings import Simulation
from footlights.simulate.tally import Tally, Times

SIMULATION = Simulation(SimulationProfile("mine"), ("127.0.0.1:1",), nodes=1200, gpus=4, sessions_per_s=5.0)


def report(tally: Tally, **members: object) -> Report:
    values: dict[str, object] = {"linked": 3, "alive": 2, "acknowledged": 40, "states": {"READY": 2}, **members}
    return Report(SIMULATION, 10.0, tally=tally, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_are_right_within_five_percent(share: float) -> None:
    """
    The buckets cost at most 5 % of a percentile, over five orders of magnitude.
    """
    dice = random.Random(3)
    drawn = sorted(10 ** dice.uniform(-4, 1) for _ in range(5000))
    times = Times()
    for each in drawn:
        times.add(each)

    found = times.percentile(share)

    assert found is not None
    assert found / drawn[int(share * len(drawn)) - 1] == pytest.approx(1.025, abs=0.03)


def test_tallies_of_several_processes_add_up() -> None:
    """
    What went through JSON and was merged is what one process would have counted.
    """
    parts, whole = [Tally(), Tally()], Tally()
    for at in range(1000):
        for tally in (parts[at % 2], whole):
            tally.count("assigned")
            tally.time("welcome_s", 0.001 * (1 + at))
    parts[1].doubled.append("twice")
    whole.doubled.append("twice")

    merged = Tally()
    for part in parts:
        merged.merge(Tally.from_json(json.loads(json.dumps(part.to_json()))))

    assert merged == whole


def test_a_report_gives_rates_reasons_and_percentiles() -> None:
    """
    The JSON holds the figures by name, and reasons with their numbers, the most frequent first.
    """
    tally = Tally()
    tally.count("asked", 41)
    tally.count("rejected FOREIGN_PROCESS", 2)
    tally.count("rejected NODE_RESTARTED", 3)
    tally.count("error QUEUE_FULL")
    for each in (0.1, 0.2, 0.3):
        tally.time("create_s", each)

    plain = json.loads(json.dumps(report(tally).plain()))

    assert (plain["asked"], plain["acknowledged"], plain["creates_per_s"]) == (41, 40, 4.0)
    assert (plain["slots"], plain["processes"]) == (4800, 3)
    assert list(plain["refused"].items()) == [("NODE_RESTARTED", 3), ("FOREIGN_PROCESS", 2)]
    assert plain["errors"] == {"QUEUE_FULL": 1}
    assert plain["times"]["create_s"]["count"] == 3
    assert plain["times"]["create_s"]["p50_s"] == pytest.approx(0.2, rel=0.05)
    assert plain["times"]["ready_s"] == {"count": 0, "p50_s": None, "p90_s": None, "p99_s": None, "max_s": None}
    assert dict(report(tally).lines())["refused"] == "3 NODE_RESTARTED, 2 FOREIGN_PROCESS"


def test_what_was_lost_or_doubled_makes_a_report_unsound() -> None:
    """
    One lost session or doubled slot is the verdict, whatever else went well.
    """
    doubled = Tally(doubled=["node-1: twice"])

    assert report(Tally(), audited=True).sound
    assert not report(Tally(), lost=("s-1",)).sound
    assert not report(doubled, audited=True).sound
    assert "s-1 first" in report(Tally(), lost=("s-1",)).verdict
    assert "node-1: twice" in report(doubled, audited=True).verdict
    assert "not looked for" in report(Tally()).verdict


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({"nodes": 0}, "--nodes: must be"),
        ({"gpus": 65}, "--gpus: must be"),
        ({"sessions_per_s": -1.0}, "--sessions-per-s: must be"),
        ({"duration_s": 0.0}, "--duration: must be"),
        ({"servers": ("a:1", "")}, "--server: is empty"),
        ({"mishap_rate": 1e9}, "--mishap-rate: must be"),
    ],
)
def test_a_simulation_that_cannot_be_is_refused(members: dict[str, object], names: str) -> None:
    """
    A wrong option is named with its value and what would do.
    """
    values: dict[str, object] = {"profile": SimulationProfile("mine"), "servers": ("127.0.0.1:1",), **members}

    with pytest.raises(InvalidArgument) as caught:
        Simulation(**values)  # type: ignore[arg-type]

    assert names in caught.value.message
