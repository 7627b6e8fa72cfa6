"""A node for a while: a real agent, without a control plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Final

from footlights.agent.assembly import locked, make_devices, make_launchers
from footlights.agent.launches.launches import STOPPED
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.main import Agent
from footlights.agent.v1.agent_pb2 import Assignment
from footlights.certify.trial import SAMPLE_S, Trial, until
from footlights.errors import FailedPrecondition, LocalReason
from footlights.ids import new_id
from footlights.launch.launchers import traits_of
from footlights.launch.recipe import limits as recipe_limits
from footlights.launch.recipe.arguments import STAGE, convert_arguments
from footlights.lifecycle import LaunchState
from footlights.protocol import counterparts, launch_secrets
from footlights.v1.application_pb2 import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from footlights.agent.config import AgentConfig
    from footlights.v1.application_pb2 import Version

SLACK_S: Final = 15.0
"""How much longer than it may take is waited for what an agent does."""


class TrialNode:
    """Launches what it is given, one after the other."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, config: AgentConfig) -> AsyncIterator[TrialNode]:
        """Run an agent on this machine. Raises FailedPrecondition or InvalidArgument where that cannot be."""
        with locked(config.data_dir):
            agent = Agent(
                config,
                devices=await make_devices(config),
                launchers=make_launchers(config),
                probes=ApplicationProbes(),
            )
            async with agent.unlinked():
                yield cls(agent)

    @contextlib.asynccontextmanager
    async def trial(self, version: Version, arguments: Mapping[str, object], stage: str) -> AsyncIterator[Trial]:
        """Launch a version; it is gone with the block. Raises FailedPrecondition where the node cannot launch it."""
        launcher = self._agent.launcher(traits_of(version).name)
        assignment = self._assignment(version, arguments, stage)
        self._agent.launches.assign(assignment)
        record = self._agent.table.get(assignment.launch_id)
        assert record is not None, "a launch that is assigned is known"
        trial = Trial(record, launcher, assignment.launch_secret)
        supervise = self._agent.supervisor.supervise
        sampling = asyncio.create_task(supervise("sampling", trial.sample, every_s=SAMPLE_S))
        try:
            yield trial
        finally:
            try:
                await self.stop(trial)
            finally:
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
                self._agent.launches.forget(record.launch_id)
                await self._agent.launches.settled(SLACK_S)

    async def started(self, trial: Trial) -> bool:
        """Wait until a launch is ready, or over; return whether it is ready."""
        record = trial.record
        await until(lambda: record.state is LaunchState.READY or record.state.final, record.start_timeout + SLACK_S)
        return record.state is LaunchState.READY

    async def stop(self, trial: Trial) -> float | None:
        """End a launch as a user does; return after how many seconds it had ended, None where it has not."""
        begun = time.monotonic()
        runner = self._agent.table.runner(trial.record.launch_id)
        if runner is not None:
            runner.end(STOPPED)
        ended = await until(lambda: trial.record.state.final, trial.record.grace + SLACK_S)
        return time.monotonic() - begun if ended else None

    async def left(self, trial: Trial) -> frozenset[int]:
        """Return the processes of a launch that is over which are still here."""
        plan = trial.plan
        if plan is None:
            return frozenset()
        found = await self._agent.launcher(traits_of(plan.version).name).find(plan.cluster_id)
        return found.get(plan.launch_id, frozenset())

    def _assignment(self, version: Version, arguments: Mapping[str, object], stage: str) -> Assignment:
        values, secrets = convert_arguments(version, {**arguments, **({STAGE: stage} if stage else {})})
        device = self._device(version)
        limits = Limits()
        limits.CopyFrom(version.limits)
        recipe_limits.InstallationLimits().complete(limits)
        made = Assignment(
            launch_id=new_id(),
            session_id=new_id(),
            epoch=1,
            desired=Assignment.RUNNING,
            device_uuid=device,
            slots=range(max(1, version.needs.slots)),
            version=counterparts.recipe(version),
            usd_stage_uri=str(values.get(STAGE, "")),
            secrets=json.dumps(secrets).encode() if secrets else b"",
            limits=counterparts.limits(limits),
            launch_secret=launch_secrets.new_secret(),
        )
        made.needs.MergeFromString(version.needs.SerializeToString())
        made.arguments.update({name: value for name, value in values.items() if name != STAGE})
        return made

    def _device(self, version: Version) -> str:
        devices = self._agent.devices.inventory.devices
        hardware = version.needs.gpu or version.needs.encoder
        fitting = [device for device in devices if device.kind.traits.hardware or not hardware]
        if not fitting:
            raise FailedPrecondition(
                f"This machine has no {'GPU' if hardware else 'device'} to launch on. Give other --devices.",
                reason=LocalReason.NO_DEVICE,
            )
        return fitting[0].uuid
