"""What a node sends over its link fits one message, however much its applications wrote.

Covers ``agent/link/protocol``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from footlights.agent.v1.agent_pb2 import Inventory, LaunchReport

from footlights.agent.link.protocol import REPORTS_BYTES, NodeProtocol
from footlights.launch.front_door import FrontDoorWay
from footlights.lifecycle import LaunchState
from footlights.protocol.bounds import MAX_LAUNCHES, PART_BYTES
from footlights.protocol.output import MAX_LINE_CHARACTERS
from footlights.supervision import Supervisor
from tests.protocol.test_bounds import FORMER_MESSAGE_BYTES


def _ended(number: int, lines: int) -> Any:
    """A launch that has failed and whose end is not acknowledged."""
    report = LaunchReport(launch_id=f"l-{number}", state=LaunchReport.FAILED, reason="EXITED", exit_code=3)
    report.log_tail.extend("x" * MAX_LINE_CHARACTERS for _ in range(lines))
    return SimpleNamespace(
        launch_id=report.launch_id, state=LaunchState(LaunchReport.State.Name(report.state)), report=lambda: report
    )


def _protocol(*records: Any) -> NodeProtocol:
    nothing: Any = SimpleNamespace(inventory=Inventory)
    table: Any = SimpleNamespace(records=list(records))
    return NodeProtocol(
        "n",
        "i",
        description=nothing,
        cluster=nothing,
        table=table,
        launches=nothing,
        front_door=FrontDoorWay(),
        supervisor=Supervisor(),
    )


def _running(number: int) -> Any:
    report = LaunchReport(launch_id=f"r-{number}", state=LaunchReport.READY)
    return SimpleNamespace(
        launch_id=report.launch_id, state=LaunchState(LaunchReport.State.Name(report.state)), report=lambda: report
    )


def test_a_hello_names_every_launch_and_is_bounded() -> None:
    """An end that has no room is named as not yet ended, and reported by itself."""
    node = _protocol(*(_ended(number, 15) for number in range(64)))
    hello = node.hello()

    assert hello.ByteSize() < REPORTS_BYTES + (64 << 10)
    assert [report.launch_id for report in hello.launches] == [f"l-{number}" for number in range(64)]
    states = {report.launch_id: report.state for report in hello.launches}
    assert {states[launch_id] for launch_id in node.left_out()} == {LaunchReport.STOPPING}
    assert 0 < len(node.left_out()) < 64
    assert all(state == LaunchReport.FAILED for name, state in states.items() if name not in node.left_out())


def test_of_thousands_of_launches_those_that_run_come_first() -> None:
    """The ends that it has no room for are reported by themselves; a server of the release before takes it too."""
    node = _protocol(*(_ended(number, 1) for number in range(MAX_LAUNCHES)), *(_running(number) for number in range(9)))
    hello = node.hello()

    assert len(hello.launches) == MAX_LAUNCHES
    assert [report.launch_id for report in hello.launches[:9]] == [f"r-{number}" for number in range(9)]
    assert hello.ByteSize() < FORMER_MESSAGE_BYTES
    told = {report.launch_id for report in hello.launches if report.state == LaunchReport.FAILED}
    assert told | set(node.left_out()) == {f"l-{number}" for number in range(MAX_LAUNCHES)}


def test_heartbeats_carry_what_fits_each_in_its_turn() -> None:
    """So that no end waits for others to be acknowledged."""
    node = _protocol(*(_ended(number, 15) for number in range(64)))
    told = []
    for _ in range(8):
        reports = node.reports()
        assert sum(report.ByteSize() for report in reports) <= PART_BYTES
        told += [report.launch_id for report in reports]

    assert set(told) == {f"l-{number}" for number in range(64)}


def test_short_ends_are_all_in_the_hello() -> None:
    """Nothing is left out where there is room."""
    node = _protocol(*(_ended(number, 1) for number in range(64)))

    assert {report.state for report in node.hello().launches} == {LaunchReport.FAILED}
    assert node.left_out() == []
