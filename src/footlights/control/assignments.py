"""From a launch and its session to what its agent is told."""

from __future__ import annotations

from footlights.auth.secrets import Box
from footlights.control import convert
from footlights.store import Transaction, applications, launches
from footlights.store.tables import Launch, Session
from footlights.v1 import agent_pb2, application_pb2


def live(tx: Transaction, node: str, box: Box) -> dict[str, tuple[agent_pb2.Assignment, str]]:
    """Return what a node is to bring about or to end, by launch id, each with its launch's observed state."""
    recipes: dict[tuple[str, str], application_pb2.Version] = {}
    found = {}
    for launch, session in launches.live_on(tx, node):
        key = (session.application, session.application_version)
        if key not in recipes:
            row = applications.version(tx, *key)
            assert row is not None, "a version that a living session runs cannot be deleted"
            recipes[key] = convert.version(session.application, row.recipe, row.created_time)
        found[launch.launch_id] = _assignment(launch, session, recipes[key], box), launch.state
    return found


def _assignment(launch: Launch, session: Session, version: application_pb2.Version, box: Box) -> agent_pb2.Assignment:
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
        limits=convert.limits(session),
    )
    declared = {argument.name for argument in version.arguments if not argument.secret}
    message.arguments.update({name: value for name, value in session.arguments.items() if name in declared})
    if session.secrets and not stopped:
        message.secrets = box.open(session.secrets, session.session_id.encode())
    return message
