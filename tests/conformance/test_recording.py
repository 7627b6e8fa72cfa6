"""The gateway's answers against the reference's, one test a recorded request; covers ``mask`` and ``metadata``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.deviations import DEVIATIONS
from tests.conformance.recording import Case, cases, observed, send, wanted
from tests.conformance.server import Running, serving


@pytest.fixture(scope="module", params=["grpc", "local"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A gateway of default options, over a socket and in the server's own process."""
    with serving(local=request.param == "local") as found:
        yield found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_answer(running: Running, case: Case) -> None:
    """
    Status, code, decoded request and shape are the reference's; or the case is listed as a deviation and differs.
    """
    got = observed(case, *send(running.port, case))

    if case.id in DEVIATIONS:
        assert got != wanted(case), f"it matches now; take {case.id!r} off the list of deviations"
    else:
        assert got == wanted(case)


def test_deviations_exist() -> None:
    """
    Every deviation is of a recorded request.
    """
    assert {case.id for case in cases()} >= set(DEVIATIONS)
