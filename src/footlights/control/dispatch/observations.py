"""What agents report, as the store takes it."""

from __future__ import annotations

from datetime import datetime, timedelta

from footlights.agent.v1 import agent_pb2
from footlights.agent.v1 import node_pb2 as link_node_pb2
from footlights.control import stored
from footlights.lifecycle import LaunchState, Stage, known
from footlights.protocol import counterparts, enums, times
from footlights.protocol.output import bounded_tail
from footlights.store.launches.launch_rows import Observation
from footlights.store.nodes.inventory import ReportedDevice
from footlights.v1 import node_pb2


def readings(inventory: agent_pb2.Inventory) -> list[ReportedDevice]:
    """Return an agent's devices as they are stored."""
    return [_reading(device) for device in inventory.devices]


def _reading(sent: link_node_pb2.Device) -> ReportedDevice:
    device = counterparts.device(sent)
    why = device.health_reasons[0] if device.health_reasons else node_pb2.Device.HealthReason()
    return ReportedDevice(
        uuid=device.uuid,
        slots=max(1, device.slots),
        reading=device.SerializeToString(),
        sick=stored.is_sick(device),
        reason=why.reason,
        message=why.message,
        hardware=stored.hardware(device),
    )


def observation(report: agent_pb2.LaunchReport, now: datetime) -> Observation:
    """Return an agent's report with its ages turned into times of this server's clock.

    Its state is one that this release knows. An application's message may hold NUL, which Postgres does not store in
    text: it is replaced by U+FFFD.
    """
    steps = {}
    for step in report.steps:
        if (stage := known(Stage, step.stage)) is not None:
            steps[stage] = now - timedelta(seconds=times.seconds(step.age))
    return Observation(
        launch_id=report.launch_id,
        epoch=report.epoch,
        state=LaunchState[enums.name_of(agent_pb2.LaunchReport.State, report.state)],
        reason=report.reason.replace("\0", "\ufffd"),
        message=report.message.replace("\0", "\ufffd"),
        exit_code=report.exit_code if report.HasField("exit_code") else None,
        ports=(report.signal_port, report.media_port, report.http_port),
        viewers=report.viewers if report.HasField("viewers") else None,
        ever_connected=report.ever_connected,
        taken_up=report.taken_up,
        steps=steps,
        log_tail=tuple(bounded_tail(report.log_tail)),
    )
