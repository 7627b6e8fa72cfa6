"""What happens when, drawn from a profile and a seed. Pure: the same seed is the same fate, in whatever order.

Every draw has dice of its own: a server that answers later, or places elsewhere, changes nothing of what else is drawn.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from footlights.simulate.profile import Gpu, SimulatedApplication, SimulationProfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Weighted = TypeVar("_Weighted", SimulatedApplication, Gpu)
_MOST_VISITS = 50


@dataclass(frozen=True, slots=True)
class SimulatedArrival:
    """A session that will be asked for. Times are seconds."""

    number: int
    at_s: float
    """Since the demand began."""
    application: str
    length_s: float
    """From ready until its owner ends it; infinite where the owner never does."""
    patience_s: float
    """From created until its owner ends what is not ready."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What one launch will do. Times are seconds."""

    refused: bool
    start_error: bool
    process_s: float
    ready_s: float
    """From its start; infinite for never."""
    exit_s: float
    """From ready, by itself; infinite for never. Before it is ready: from its start."""
    exit_code: int
    exits_early: bool
    """Whether ``exit_s`` counts from its start."""
    stop_s: float
    visits: tuple[tuple[float, float], ...]
    """When viewers connect and disconnect, from ready."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """An interruption of a node, and when it happens."""

    at_s: float
    """Since the node was first begun."""
    kind: str
    """``link_lost``, ``agent_restarted`` or ``machine_gone``."""
    for_s: float


class Model:
    """A profile and a seed."""

    def __init__(self, profile: SimulationProfile, seed: int) -> None:
        self.profile = profile
        self.seed = seed

    def arrivals(self, per_s: float) -> Iterator[SimulatedArrival]:
        """Yield the demand in the order of its times: a Poisson process, without end."""
        dice = self._dice("arrivals")
        at_s, number = 0.0, 0
        while per_s > 0:
            at_s += dice.expovariate(per_s)
            yield self._arrival(number, at_s)
            number += 1

    def gpu(self, node: int) -> Gpu:
        """Say which model of GPU a node has."""
        return _choose(self.profile.gpus, self._dice("gpu", node))

    def fate(self, *, session: str, node: str, warm: bool) -> Fate:
        """Draw what a launch of a session will do on a node; another node, or another try, is another draw."""
        start, sessions = self.profile.start, self.profile.sessions
        dice = self._dice("launch", session, node)
        outcome, end = dice.random(), dice.random()
        process_s = start.process_s.draw(dice)
        cold_s, warm_s = start.cold_s.draw(dice), start.warm_s.draw(dice)
        ready_s = process_s + (warm_s if warm else cold_s)
        refused = outcome < start.refused
        failed = not refused and outcome < start.refused + start.failed
        never = not refused and not failed and outcome < start.refused + start.failed + start.never_ready
        exit_s, exit_code = math.inf, 0
        # The owner's draw of the length is another one: an application does not know it.
        length_s, within = sessions.length_s.draw(dice), dice.random()
        if failed:
            exit_s, exit_code = ready_s * within, 1
        elif end < sessions.completed:
            exit_s = length_s
        elif end < sessions.completed + sessions.crashed:
            exit_s, exit_code = length_s * within, -11
        return Fate(
            refused=refused,
            start_error=failed and within < 0.5,
            process_s=process_s,
            ready_s=math.inf if never or failed else ready_s,
            exit_s=exit_s,
            exit_code=exit_code,
            exits_early=failed,
            stop_s=sessions.stop_s.draw(dice),
            visits=self._visits(dice, within_s=min(exit_s, self._longest_s())),
        )

    def interruptions(self, node: int) -> Iterator[Interruption]:
        """Yield a node's interruptions in order of time; one begins only after the last one is over."""
        rates = {
            kind: (mishap.per_hour / 3600, mishap.for_s)
            for kind in ("link_lost", "agent_restarted", "machine_gone")
            if (mishap := getattr(self.profile.nodes, kind)).per_hour > 0
        }
        dice = self._dice("interruptions", node)
        at_s, total = 0.0, sum(rate for rate, _ in rates.values())
        while rates:
            at_s += dice.expovariate(total)
            kind = dice.choices(list(rates), [rate for rate, _ in rates.values()])[0]
            interruption = Interruption(at_s, kind, rates[kind][1].draw(dice))
            yield interruption
            at_s += interruption.for_s

    def _arrival(self, number: int, at_s: float) -> SimulatedArrival:
        dice = self._dice("session", number)
        sessions = self.profile.sessions
        application = _choose(self.profile.applications, dice)
        length_s, patience_s = sessions.length_s.draw(dice), sessions.patience_s.draw(dice)
        abandoned = dice.random() < sessions.abandoned
        return SimulatedArrival(number, at_s, application.name, math.inf if abandoned else length_s, patience_s)

    def _visits(self, dice: random.Random, within_s: float) -> tuple[tuple[float, float], ...]:
        sessions = self.profile.sessions
        visits: list[tuple[float, float]] = []
        if dice.random() < sessions.unwatched:
            return ()
        at_s = sessions.connect_s.draw(dice)
        while at_s < within_s and len(visits) < _MOST_VISITS:
            until_s = at_s + sessions.visit_s.draw(dice)
            visits.append((at_s, until_s))
            at_s = until_s + sessions.away_s.draw(dice)
        return tuple(visits)

    def _longest_s(self) -> float:
        return max(application.max_s for application in self.profile.applications)

    def _dice(self, *names: object) -> random.Random:
        return random.Random("/".join(map(str, (self.seed, *names))))  # noqa: S311  # to be repeated, not to be secret


def _choose(choices: Sequence[_Weighted], dice: random.Random) -> _Weighted:
    return dice.choices(choices, [each.weight for each in choices])[0]
