"""When failures forbid another try, and for how long."""

from __future__ import annotations

import pytest

from footlights.lifecycle.blocking import BackoffPolicy, Block, Failure, blocked

PATIENCE = BackoffPolicy(failures=3, window_s=60, first_s=30, longest_s=900)
BURST = [(90_102, 90_100), (90_092, 90_090), (90_082, 90_080)]
HOURLY = [(hours * 3600 + 1, hours * 3600) for hours in range(20, 0, -1)]


@pytest.mark.parametrize(
    ("failures", "left_s"),
    [
        ([], None),
        ([(6, 5), (4, 3)], None),
        ([(22, 20), (12, 10), (2, 0)], 30),
        ([(42, 40), (32, 30), (22, 20)], 10),
        ([(52, 50), (42, 40), (32, 30)], None),
        # The first has left the window when the third comes.
        ([(82, 80), (22, 20), (12, 10)], None),
        # All began together: one block, counted from the third.
        ([(10, 9), (10, 8), (10, 7), (10, 6), (10, 5)], 23),
        # A try after the block failed: twice as long. Two tries: four times.
        ([(102, 100), (92, 90), (82, 80), (40, 30)], 30),
        ([(302, 300), (292, 290), (282, 280), (240, 230), (160, 110)], 10),
        # It never grows beyond the longest.
        ([*BURST, *HOURLY], None),
        ([*BURST, *HOURLY, (1, 0)], 900),
        # A clock that was set back by a month leaves failures of the future.
        ([(-100, -110), (-90, -100), (-80, -90)], None),
    ],
)
def test_a_block_grows_with_every_failed_try_and_ends(
    failures: list[tuple[float, float]], left_s: float | None
) -> None:
    """Pairs of (began, ended) seconds ago."""
    found = blocked([Failure(*each) for each in failures], PATIENCE)

    assert (found.left_s if found else None) == left_s


def test_a_block_says_what_caused_it() -> None:
    """How many failures, and in which time, whatever their order."""
    found = blocked([Failure(12, 10), Failure(32, 30), Failure(22, 20)], PATIENCE)

    assert found == Block(failures=3, span_s=20, left_s=20)


def test_one_failure_may_be_enough() -> None:
    """As for a device that was lost."""
    assert blocked([Failure(5, 5)], BackoffPolicy(1, 60, 60, 3600)) == Block(1, 0, 55)
