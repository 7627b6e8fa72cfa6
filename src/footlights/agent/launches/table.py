"""The launches of the node by id: what there is, for everything that looks at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from footlights.devices.admission import Holding
from footlights.launch.launcher import Phase

if TYPE_CHECKING:
    from footlights.agent.launches.record import Record
    from footlights.agent.launches.runner import Runner
    from footlights.agent.v1.agent_pb2 import LaunchReport


_MOST_NOTES: Final = 3


class KnownLaunches:
    """The launches that are known: those that run, and those that are over and not yet forgotten."""

    def __init__(self) -> None:
        self._runners: dict[str, Runner] = {}
        self._left: dict[str, str] = {}
        self.none_left = asyncio.Event()
        self.none_left.set()

    def add(self, runner: Runner) -> None:
        """Take in a launch."""
        self._runners[runner.record.launch_id] = runner
        self.none_left.clear()

    def remove(self, launch_id: str) -> Runner:
        """Forget a launch, and return what ran it."""
        runner = self._runners.pop(launch_id)
        if not self._runners:
            self.none_left.set()
        return runner

    def note_left(self, launch_id: str, why: str) -> None:
        """Note why traces of a launch that is over are still here; empty where they are gone."""
        if why:
            self._left[launch_id] = why
        else:
            self._left.pop(launch_id, None)

    @property
    def notes(self) -> list[str]:
        """A sentence for an operator on what could not be removed."""
        some = sorted(self._left.items())[:_MOST_NOTES]
        return [
            f"the state of launch {launch_id} could not be removed, and is tried again: {why}"
            for launch_id, why in some
        ]

    @property
    def records(self) -> list[Record]:
        """Every launch that is known."""
        return [runner.record for runner in self._runners.values()]

    @property
    def alive(self) -> list[Runner]:
        """Those that are not over."""
        return [runner for runner in self._runners.values() if not runner.record.state.final]

    def runner(self, launch_id: str) -> Runner | None:
        """What runs one launch."""
        return self._runners.get(launch_id)

    def get(self, launch_id: str) -> Record | None:
        """One launch."""
        runner = self._runners.get(launch_id)
        return None if runner is None else runner.record

    def knows(self, launch_id: str) -> bool:
        """Whether a launch is known."""
        return launch_id in self._runners

    def is_over(self, launch_id: str) -> bool:
        """Whether a launch has ended, or is not known."""
        record = self.get(launch_id)
        return record is None or record.state.final

    def report(self, launch_id: str) -> LaunchReport | None:
        """How one launch is now; None where it is not known."""
        record = self.get(launch_id)
        return None if record is None else record.report()

    def holder(self, device_uuid: str, slot: int, apart_from: str) -> str:
        """Which launch that is not over holds a slot; empty where none does."""
        for runner in self.alive:
            record = runner.record
            if record.launch_id == apart_from or not record.claimed:
                continue
            if record.assignment.device_uuid == device_uuid and slot in record.assignment.slots:
                return record.launch_id
        return ""

    @property
    def holdings(self) -> dict[str, list[Holding]]:
        """What is kept of each device for the launches that have it."""
        return self.holdings_apart_from("")

    def holdings_apart_from(self, launch_id: str) -> dict[str, list[Holding]]:
        """The same without one launch."""
        found: dict[str, list[Holding]] = {}
        for runner in self.alive:
            record = runner.record
            if record.launch_id != launch_id and record.claimed:
                needs = record.assignment.needs
                holding = Holding(needs.min_memory_bytes, needs.encoder, record.pids)
                found.setdefault(record.assignment.device_uuid, []).append(holding)
        return found

    async def own_pids(self) -> frozenset[int]:
        """The pids of all our launches' trees, read now."""
        begun = [runner for runner in self.alive if runner.record.begun]
        found = await asyncio.gather(*(runner.status() for runner in begun))
        return frozenset().union(*(status.pids for status in found if status.phase is Phase.RUNNING))

    @property
    def known_pids(self) -> frozenset[int]:
        """The same as last seen, at no cost."""
        return frozenset().union(*(runner.record.pids for runner in self.alive))
