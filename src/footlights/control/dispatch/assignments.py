"""From launches and their sessions to what agents are told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights.control import limits, present
from footlights.protocol import times
from footlights.store import Transaction, applications
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.v1 import agent_pb2, application_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.dispatch.link import Fingerprint
    from footlights.store.launches.launch_rows import RunningLaunch
    from footlights.store.schema import LaunchRow, SessionRow

DRAIN = "DRAIN"
"""The reason of the notice that a drain will end a session."""


def fingerprints(running: Sequence[RunningLaunch]) -> dict[str, dict[str, Fingerprint]]:
    """Return what the assignments of living launches follow from, by node and launch."""
    found: dict[str, dict[str, Fingerprint]] = defaultdict(dict)
    for each in running:
        found[each.node][each.launch_id] = (each.desired, each.epoch, each.limits, each.drain_time)
    return found


@dataclass(frozen=True, slots=True)
class Live:
    """What a node is to bring about or to end."""

    assignment: agent_pb2.Assignment
    state: str
    """Of its launch, as observed."""


def live(tx: Transaction, launch_ids: Sequence[str], box: Box, *, now: datetime) -> dict[str, Live]:
    """Return what these launches' nodes are told of them; one that has ended is not among them."""
    if not launch_ids:
        return {}
    drains = {row.node: row.drain_time for row in node_rows.draining(tx)}
    recipes: dict[tuple[str, str], application_pb2.Version] = {}
    found: dict[str, Live] = {}
    for launch, session in launch_rows.living(tx, launch_ids):
        key = (session.application, session.application_version)
        if key not in recipes:
            row = applications.version(tx, *key)
            assert row is not None, "a version that a living session runs cannot be deleted"
            recipes[key] = present.version(session.application, row.recipe, row.created_time)
        message, drain_time = assignment(launch, session, recipes[key], box), drains.get(launch.node)
        if drain_time is not None and message.desired == agent_pb2.Assignment.RUNNING:
            message.notice.CopyFrom(_notice(drain_time, now))
        found[launch.launch_id] = Live(message, launch.state)
    return found


def _notice(drain_time: datetime, now: datetime) -> agent_pb2.ViewerNotice:
    text = f"The machine is taken out of use; the session ends at {drain_time:%H:%M:%S} UTC."
    left = times.duration(max(0.0, (drain_time - now).total_seconds()))
    return agent_pb2.ViewerNotice(reason=DRAIN, message=text, ends_in=left)


def fingerprint(launch: LaunchRow, session: SessionRow) -> Fingerprint:
    """Return what the assignment of a launch that has just begun follows from: no node is placed on that is drained."""
    return launch.desired, launch.epoch, session.limits, None


def assignment(
    launch: LaunchRow, session: SessionRow, version: application_pb2.Version, box: Box
) -> agent_pb2.Assignment:
    """Return what an agent is told of a launch."""
    stopped = launch.desired == "STOPPED"
    message = agent_pb2.Assignment(
        launch_id=launch.launch_id,
        session_id=launch.session_id,
        epoch=launch.epoch,
        desired=agent_pb2.Assignment.STOPPED if stopped else agent_pb2.Assignment.RUNNING,
        device_uuid=launch.device,
        slots=launch.slots,
        version=version,
        usd_stage_uri=session.usd_stage_uri,
        needs=application_pb2.Needs.FromString(session.needs),
        limits=limits.of_session(session),
    )
    declared = {argument.name for argument in version.arguments if not argument.secret}
    message.arguments.update({name: value for name, value in session.arguments.items() if name in declared})
    if session.secrets and not stopped:
        message.secrets = box.open(session.secrets, session.session_id.encode())
    return message
