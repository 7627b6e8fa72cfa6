"""From launches and their sessions to the assignments that agents are sent."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from footlights import errors
from footlights.agent.v1 import agent_pb2
from footlights.auth import launch_secrets
from footlights.control import stored
from footlights.launch.container.recipe import mounts_of
from footlights.launch.recipe import overrides
from footlights.launch.recipe.arguments import secrets_in_environment
from footlights.launch.recipe.limits import time_limits
from footlights.lifecycle import EndReason, TimeLimits
from footlights.protocol import bounds, counterparts, handshake, times
from footlights.store import Transaction, applications
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions.derivation import SessionStates
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.dispatch.link import AgentLink, Fingerprint
    from footlights.store.launches.launch_rows import RunningLaunch
    from footlights.store.schema import LaunchRow, SessionRow

DRAIN = "DRAIN"
"""The reason of the notice that a drain will end a session."""

_BEGUN = ("READY", "STOPPING")
"""States in which the application runs: no agent needs its secrets any more."""


_NO_LIMITS = TimeLimits()


@dataclass(frozen=True, slots=True)
class LaunchAssignment:
    """What a node is to bring about or to end."""

    message: agent_pb2.Assignment
    """Without its recipe."""
    state: str
    """Of its launch, as observed."""
    recipe: agent_pb2.CarriedRecipe | None = None
    """None where it is to stop."""
    limits: TimeLimits = _NO_LIMITS

    def copy(self) -> LaunchAssignment:
        """Return one of its own for another link: what is made of it depends on what the agent knows."""
        message = agent_pb2.Assignment()
        message.CopyFrom(self.message)
        return replace(self, message=message)

    def stopped(self) -> LaunchAssignment:
        """Return one that has the launch end, and says nothing else of it."""
        names = ("launch_id", "session_id", "epoch", "device_uuid", "slots")
        message = agent_pb2.Assignment(**{name: getattr(self.message, name) for name in names})
        message.desired = agent_pb2.Assignment.STOPPED
        return LaunchAssignment(message, self.state)

    def named(self) -> agent_pb2.Assignment:
        """Return it with its recipe's digest."""
        if self.recipe is not None:
            self.message.recipe_digest = self.recipe.digest
        return self.message

    def whole(self) -> agent_pb2.Assignment:
        """Return it with its recipe."""
        if self.recipe is not None:
            self.message.version.CopyFrom(self.recipe.recipe)
        return self.message


@dataclass(frozen=True, slots=True)
class Recipe:
    """A version as agents are sent it."""

    carried: agent_pb2.CarriedRecipe
    declared: frozenset[str]
    """The arguments that are no secrets."""
    needed: frozenset[str] = frozenset()
    """The features that an agent must have to carry it out."""

    @classmethod
    def of(cls, version: application_pb2.Version, environment: bytes | None = None) -> Recipe:
        """Return the recipe of a version, with what a session's profile adds to its environment."""
        if environment:
            added = application_pb2.Version.FromString(environment).environment
            version = overrides.with_environment(version, added)
        recipe = counterparts.recipe(version)
        if version.container.volume_mounts:
            # An agent of the release before knows this form alone.
            recipe.container.mounts[:] = mounts_of(version.container)
            recipe.container.ClearField("volume_mounts")
        return cls(
            agent_pb2.CarriedRecipe(digest=counterparts.digest(recipe), recipe=recipe),
            frozenset(argument.name for argument in version.arguments if not argument.secret),
            _needed(version),
        )

    def check(self, features: frozenset[str]) -> None:
        """Check that an agent can carry it out. Raises FailedPrecondition for one of the release before."""
        if lacking := sorted(self.needed - features):
            raise errors.FailedPrecondition(
                f"its node's agent is of an earlier release, and does not know {', '.join(lacking)}. Upgrade it, and "
                "create the session again.",
                reason=errors.Reason.AGENT_TOO_OLD,
                metadata={"features": ", ".join(lacking)},
            )


_OF_THE_AGENT: Final = (application_pb2.StageDelivery.SESSION_FILE, application_pb2.StageDelivery.HTTP)
"""How a stage is given that an agent of the release before does not give."""


def _needed(version: application_pb2.Version) -> frozenset[str]:
    needed = {handshake.SECRET_VARIABLES} if secrets_in_environment(version) else set()
    if version.stage_delivery.method in _OF_THE_AGENT:
        needed.add(handshake.STAGES)
    return frozenset(needed)


def fingerprints(running: Sequence[RunningLaunch]) -> dict[str, dict[str, Fingerprint]]:
    """Return what the assignments of living launches follow from, by node and launch."""
    found: dict[str, dict[str, Fingerprint]] = defaultdict(dict)
    for each in running:
        found[each.node][each.launch_id] = (
            each.desired,
            each.epoch,
            each.limits,
            each.drain_time,
            each.handed_over_time,
        )
    return found


def fingerprint(launch: LaunchRow, session: SessionRow) -> Fingerprint:
    """Return what the assignment of a new launch follows from: nothing is placed on a node that is drained."""
    return launch.desired, launch.epoch, session.limits, None, launch.handed_over_time


def of_launches(
    tx: Transaction, wanted: Mapping[str, AgentLink], box: Box, *, now: datetime
) -> tuple[dict[str, LaunchAssignment], dict[str, Exception]]:
    """Return the assignments of those launches that have not ended, and why some of them cannot be made.

    ``wanted`` has the link over which each is sent. Secrets are in those of which an agent is told first.

    One that cannot be made, because a secret cannot be opened or a recipe does not parse, hides none of the others.
    """
    found: dict[str, LaunchAssignment] = {}
    failed: dict[str, Exception] = {}
    if not wanted:
        return found, failed
    drains = {row.node: row.drain_time for row in node_rows.draining(tx)}
    recipes: dict[tuple[str, str, bytes | None], Recipe] = {}
    for launch, session in launch_rows.living(tx, list(wanted)):
        try:
            recipe = None
            if launch.desired != "STOPPED":
                key = (session.application, session.application_version, session.environment)
                recipe = recipes[key] = recipes.get(key) or Recipe.of(_version(tx, *key[:2]), session.environment)
                if launch.state == "ASSIGNED":
                    recipe.check(wanted[launch.launch_id].features)
            secrets = _secrets(launch, session, wanted[launch.launch_id], box)
            assignment = of_launch(launch, session, recipe, box, secrets=secrets)
            if secrets and handshake.SECRETS_ONCE not in wanted[launch.launch_id].features:
                # An agent of the release before does not look for a stage among the secrets.
                stage = json.loads(secrets).get("usd_stage_uri")
                assignment.message.usd_stage_uri = stage or assignment.message.usd_stage_uri
        except Exception as error:
            failed[launch.launch_id] = error
            continue
        drain_time = drains.get(launch.node)
        if drain_time is not None and assignment.message.desired == agent_pb2.Assignment.RUNNING:
            assignment.message.notice.CopyFrom(_drain_notice(drain_time, now))
        found[launch.launch_id] = assignment
    return found, failed


def of_launch(
    launch: LaunchRow, session: SessionRow, recipe: Recipe | None, box: Box, *, secrets: bytes = b""
) -> LaunchAssignment:
    """Return what an agent is told of a launch; one that is to stop needs no recipe.

    Raises FailedPrecondition where it is too large to be sent.
    """
    message = agent_pb2.Assignment(
        launch_id=launch.launch_id,
        session_id=launch.session_id,
        epoch=launch.epoch,
        desired=agent_pb2.Assignment.STOPPED,
        device_uuid=launch.device,
        slots=launch.slots,
    )
    if launch.desired == "STOPPED" or recipe is None:
        return LaunchAssignment(message, launch.state)
    limits = stored.limits(session)
    message.desired = agent_pb2.Assignment.RUNNING
    message.usd_stage_uri = session.usd_stage_uri
    message.needs.MergeFromString(session.needs)
    message.limits.CopyFrom(counterparts.limits(limits))
    message.arguments.update({name: value for name, value in session.arguments.items() if name in recipe.declared})
    message.secrets = secrets
    message.ahead, message.handed_over = session.pool is not None, launch.handed_over_time is not None
    if launch.state == "ASSIGNED":
        # The agent that has begun it keeps it, over its own restarts too.
        message.launch_secret = launch_secrets.open_sealed(box, launch.launch_id, launch.secret)
    if too_large := [*bounds.excess(message), *bounds.excess(recipe.carried)]:
        raise errors.FailedPrecondition(
            f"It cannot be sent to its node: {'; '.join(too_large)}.",
            reason=errors.Reason.ASSIGNMENT_TOO_LARGE,
            metadata={"fields": "; ".join(too_large)},
        )
    applied = time_limits(limits)
    return LaunchAssignment(message, launch.state, recipe.carried, applied.of_warm if message.ahead else applied)


def _secrets(launch: LaunchRow, session: SessionRow, link: AgentLink, box: Box) -> bytes:
    """Return the secrets that are to be sent with a launch: only an agent that is told of it first gets them.

    Raises FailedPrecondition where they were sent over another link and this agent does not have them.
    """
    if not session.secrets or launch.desired == "STOPPED":
        return b""
    if link.knows(launch.launch_id):
        # One of the release before forgets them with each assignment that comes before it has started the launch.
        needed = handshake.SECRETS_ONCE not in link.features and launch.state not in _BEGUN
    else:
        needed = launch.state == "ASSIGNED"
        if needed and launch.secrets_epoch not in (None, link.epoch):
            raise errors.FailedPrecondition(
                "its secrets were sent over a link that is gone, and are not sent twice. Create the session again.",
                reason=errors.Reason.SECRETS_SENT,
                metadata={"launch_id": launch.launch_id},
            )
    return box.open(session.secrets, session.session_id.encode()) if needed else b""


def end_unassignable(tx: Transaction, launch_id: str, error: Exception, *, now: datetime) -> str:
    """End the session of a launch whose assignment cannot be made, so that its owner sees why.

    Return its node, whose agent is then told to stop it; empty where there is nothing to end.
    """
    why = error.message if isinstance(error, errors.Error) else f"its recipe is damaged ({error})"
    lives = SessionStates.of_launches(tx, [launch_id])
    launch = lives.launch(launch_id)
    session = None if launch is None else lives.session(launch.session_id)
    if launch is None or session is None or session.launch_id != launch_id or launch.ended_time is not None:
        return ""
    lives.end(session, EndReason.LAUNCH_FAILED, f"The application cannot be assigned to its node: {why}", now=now)
    lives.write()
    return str(launch.node)


def _version(tx: Transaction, application: str, version: str) -> application_pb2.Version:
    row = applications.version(tx, application, version)
    assert row is not None, "a version that a living session runs cannot be deleted"
    return stored.version(application, row.recipe, row.created_time)


def _drain_notice(drain_time: datetime, now: datetime) -> agent_pb2.ViewerNotice:
    text = f"The machine is taken out of use; the session ends at {drain_time:%H:%M:%S} UTC."
    left = times.duration(max(0.0, (drain_time - now).total_seconds()))
    return agent_pb2.ViewerNotice(reason=DRAIN, message=text, ends_in=left)
