"""What a simulation found: one record, as JSON for programs and as lines for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.simulate.settings import Simulation
    from footlights.simulate.tally import Tally, Times

_TIMES: Final = {
    "create_s": "asked → answered",
    "placed_s": "created → placed",
    "ready_s": "created → ready",
    "welcome_s": "dialled → welcomed",
    "end_recorded_s": "end told → recorded",
}


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one simulation, final or so far."""

    simulation: Simulation
    elapsed_s: float
    """Since sessions began to be asked for."""
    linked: int
    alive: int
    acknowledged: int
    states: dict[str, int]
    tally: Tally
    lost: tuple[str, ...] = ()
    audited: bool = False
    """Whether ``lost`` was looked for."""

    @property
    def sound(self) -> bool:
        """Whether nothing was lost or given away twice."""
        return not self.lost and not self.tally.doubled

    @property
    def verdict(self) -> str:
        """One sentence on that."""
        if self.lost:
            return f"{len(self.lost)} acknowledged sessions are unknown to the control plane, {self.lost[0]} first."
        if self.tally.doubled:
            return f"{len(self.tally.doubled)} times a slot was given away twice; first, {self.tally.doubled[0]}."
        if not self.audited:
            return "No slot was given away twice. Whether sessions were lost was not looked for."
        return "No acknowledged session was lost, and no slot was given away twice."

    @property
    def creates_per_s(self) -> float:
        """Acknowledged sessions a second."""
        return self.acknowledged / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def starting(self, prefix: str) -> dict[str, int]:
        """Return the counts whose name is ``prefix`` and a reason, by reason, the most frequent first."""
        counts = self.tally.counts.items()
        found = {name.removeprefix(f"{prefix} "): many for name, many in counts if name.startswith(f"{prefix} ")}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def plain(self) -> dict[str, Any]:
        """Return it all as JSON values."""
        simulation, counts = self.simulation, self.tally.counts
        return {
            "profile": simulation.profile.name,
            "seed": simulation.seed,
            "nodes": simulation.nodes,
            "gpus_per_node": simulation.gpus,
            "slots": simulation.nodes * simulation.gpus * simulation.slots_per_gpu,
            "processes": simulation.workers,
            "sessions_per_s": simulation.sessions_per_s,
            "elapsed_s": round(self.elapsed_s, 3),
            "linked": self.linked,
            "launches_left": self.alive,
            "asked": counts["asked"],
            "not_sent": counts["not_sent"],
            "acknowledged": self.acknowledged,
            "creates_per_s": round(self.creates_per_s, 3),
            "states": self.states,
            "times": {name: self.tally.of(name).plain() for name in _TIMES},
            "refused": self.starting("rejected"),
            "failed": self.starting("failed"),
            "ended": self.starting("ended"),
            "errors": self.starting("error"),
            "notices": self.starting("notice"),
            "launches": counts["assigned"],
            "links_opened": counts["links_opened"],
            "mishaps": {kind: counts[kind] for kind in ("link_lost", "agent_restarted", "machine_gone")},
            "asked_elsewhere": counts["asked_elsewhere"],
            "unanswered_but_created": counts["unanswered_but_created"],
            "lost": list(self.lost),
            "doubled": self.tally.doubled,
            "audited": self.audited,
            "sound": self.sound,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what it is, and its value, for a table of two columns."""
        simulation, plain = self.simulation, self.plain()
        yield "nodes linked", f"{self.linked} of {simulation.nodes}"
        yield "sessions", ", ".join(f"{many} {name.lower()}" for name, many in sorted(self.states.items())) or "none"
        yield "launches running", f"{self.alive}, on {plain['slots']} slots"
        yield "created", f"{self.acknowledged} of {self.tally.counts['asked']} asked for, {self.creates_per_s:.1f}/s"
        if late := self.tally.counts["not_sent"]:
            yield "not asked for", f"{late}: as many as may be were waiting for an answer"
        for name, what in _TIMES.items():
            if shown := _times(self.tally.of(name)):
                yield what, shown
        for prefix, what in (("rejected", "refused"), ("failed", "failed"), ("ended", "ended"), ("error", "errors")):
            if found := self.starting(prefix):
                yield what, ", ".join(f"{many} {reason}" for reason, many in found.items())
        yield "links opened", str(self.tally.counts["links_opened"])
        if mishaps := [f"{many} {kind.replace('_', ' ')}" for kind, many in plain["mishaps"].items() if many]:
            yield "mishaps", ", ".join(mishaps)


def _times(times: Times) -> str:
    if not times.count:
        return ""
    shares = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return "  ".join(f"{name} {_shown(times.percentile(share) or 0.0)}" for name, share in shares)


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
