"""What a node sends over its link, and how it handles what it receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from footlights.agent.v1.agent_pb2 import Hello, LaunchReport, LinkResponse, Welcome
from footlights.protocol import handshake
from footlights.protocol.bounds import MAX_LAUNCHES, PART_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from footlights.agent.facts import NodeDescription
    from footlights.agent.launches.launches import Launches
    from footlights.agent.launches.record import Record
    from footlights.agent.launches.table import KnownLaunches
    from footlights.agent.link.cluster import KnownCluster
    from footlights.launch.front_door import FrontDoorWay
    from footlights.supervision import Supervisor

REPORTS_BYTES: Final = PART_BYTES
"""Of all reports in a hello: servers keep it in memory, and those of the release before take messages of 4 MiB."""
_log = structlog.get_logger(__name__)


class LinkHandler(Protocol):
    """What a link carries messages for."""

    def hello(self) -> Hello:
        """The full state, at the moment of dialling."""

    def welcomed(self, welcome: Welcome) -> None:
        """Take in how the control plane answered."""

    def received(self, message: LinkResponse) -> None:
        """Take in a message: assignments, what to forget, notices."""

    def reports(self) -> list[LaunchReport]:
        """What a heartbeat is to carry: how launches are, as many as fit one message."""

    def left_out(self) -> list[str]:
        """The launches whose reports did not fit the last hello: each is reported by itself."""


class NodeProtocol:
    """The agent's side; keeps `LinkHandler`."""

    def __init__(
        self,
        node: str,
        incarnation: str,
        *,
        description: NodeDescription,
        cluster: KnownCluster,
        table: KnownLaunches,
        launches: Launches,
        front_door: FrontDoorWay,
        supervisor: Supervisor,
    ) -> None:
        self._node, self._incarnation = node, incarnation
        self._description, self._cluster = description, cluster
        self._table, self._launches, self._supervisor = table, launches, supervisor
        self._front_door = front_door
        self._left_out: list[str] = []
        self._turn = 0
        self._heartbeat_bytes = PART_BYTES

    def hello(self) -> Hello:
        """Say who the node is, what it has, and every launch that it knows."""
        inventory = self._description.inventory()
        # All that run are named, or they would be taken for lost; more than may be are those that have ended.
        reports = list(self._reports(sorted(self._table.records, key=lambda record: record.state.final)))
        fitting, left = _fitting(reports, REPORTS_BYTES)
        self._left_out = [report.launch_id for report in left]
        named = [*fitting, *map(_unfinished, left)]
        if len(named) > MAX_LAUNCHES:
            _log.warning("launches_not_named", launches=len(named) - MAX_LAUNCHES, most=MAX_LAUNCHES)
        return Hello(
            node=self._node,
            incarnation=self._incarnation,
            facts=inventory.facts,
            inventory=inventory,
            launches=named[:MAX_LAUNCHES],
        )

    def welcomed(self, welcome: Welcome) -> None:
        """Remember the cluster, where its front door is, and how much it takes at once."""
        self._cluster.learn(welcome)
        self._front_door.learn(welcome.front_door)
        self._heartbeat_bytes = handshake.part_bytes(welcome.protocol)

    def received(self, message: LinkResponse) -> None:
        """Have it done. A message that cannot be taken in is logged, and costs the link nothing."""
        kind = message.WhichOneof("message")
        with self._supervisor.isolated("link", message=kind):
            match kind:
                case "assignments":
                    self._launches.assign_all(message.assignments.assignments, self._cluster.mark)
                case "assignment":
                    self._launches.assign(message.assignment)
                case "forget":
                    self._launches.forget(message.forget.launch_id)
                case "relay":
                    self._launches.take_relay(message.relay)
                case "notice":
                    _log.warning("notice", reason=message.notice.reason, message=message.notice.message)
                case _:
                    _log.warning("message_not_understood", kind=kind)

    def left_out(self) -> list[str]:
        """Say which launches' ends the last hello had no room for."""
        return self._left_out

    def reports(self) -> list[LaunchReport]:
        """Say how all launches are that run, and those that have ended as many as fit, each in its turn."""
        found = list(self._reports(record for record in self._table.records if not record.state.final))
        ended = [record for record in self._table.records if record.state.final]
        room = self._heartbeat_bytes - sum(report.ByteSize() for report in found)
        first = self._turn % len(ended) if ended else 0
        for report in self._reports(ended[first:] + ended[:first]):
            room -= report.ByteSize()
            if room < 0:
                break
            found.append(report)
            self._turn += 1
        return found

    def _reports(self, records: Iterable[Record]) -> Iterator[LaunchReport]:
        """Report launches. Unacknowledged ends are sent again: a report is a state, not an event."""
        for record in records:
            with self._supervisor.isolated("reports", launch_id=record.launch_id):
                yield record.report()


def _fitting(reports: list[LaunchReport], room: int) -> tuple[list[LaunchReport], list[LaunchReport]]:
    """Divide reports into those that fit and the rest; what has not ended always does."""
    fitting: list[LaunchReport] = []
    left: list[LaunchReport] = []
    for report in reports:
        room -= report.ByteSize()
        (fitting if room >= 0 or report.state < LaunchReport.EXITED else left).append(report)
    return fitting, left


def _unfinished(report: LaunchReport) -> LaunchReport:
    """Return what names an ended launch as not yet ended, so that the end itself can still be reported."""
    return LaunchReport(launch_id=report.launch_id, epoch=report.epoch, state=LaunchReport.STOPPING)
