"""What a node sends over its link fits one message, however much its applications wrote.

Covers ``agent/link/protocol``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from footlights.agent.v1.agent_pb2 import Inventory, LaunchReport

from footlights.agent.link.protocol import REPORTS_BYTES, NodeProtocol
from footlights.protocol.output import MAX_LINE_CHARACTERS
from footlights.supervision import Supervisor


def _ended(number: int, lines: int) -> Any:
    """A launch that has failed and whose end is not acknowledged."""
    report = LaunchReport(launch_id=f"l-{number}", state=LaunchReport.FAILED, reason="EXITED", exit_code=3)
    report.log_tail.extend("x" * MAX_LINE_CHARACTERS for _ in range(lines))
    return SimpleNamespace(launch_id=report.launch_id, report=lambda: report)


def _protocol(*records: Any) -> NodeProtocol:
    nothing: Any = SimpleNamespace(inventory=Inventory)
    table: Any = SimpleNamespace(records=list(records))
    return NodeProtocol(
        "n", "i", description=nothing, cluster=nothing, table=table, launches=nothing, supervisor=Supervisor()
    )


def test_a_hello_names_every_launch_and_fits_a_message() -> None:
    """An end that has no room is named as not yet ended, and reported by itself."""
    node = _protocol(*(_ended(number, 15) for number in range(64)))
    hello = node.hello()

    assert hello.ByteSize() < REPORTS_BYTES + (64 << 10)
    assert [report.launch_id for report in hello.launches] == [f"l-{number}" for number in range(64)]
    states = {report.launch_id: report.state for report in hello.launches}
    assert {states[launch_id] for launch_id in node.left_out()} == {LaunchReport.STOPPING}
    assert 0 < len(node.left_out()) < 64
    assert all(state == LaunchReport.FAILED for name, state in states.items() if name not in node.left_out())


def test_a_heartbeat_fits_a_message() -> None:
    """It carries the reports that have room."""
    node = _protocol(*(_ended(number, 15) for number in range(64)))

    assert sum(report.ByteSize() for report in node.reports()) <= REPORTS_BYTES


def test_short_ends_are_all_in_the_hello() -> None:
    """Nothing is left out where there is room."""
    node = _protocol(*(_ended(number, 1) for number in range(64)))

    assert {report.state for report in node.hello().launches} == {LaunchReport.FAILED}
    assert node.left_out() == []
