"""What a run comes to: a text for a person, and one flat object for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.faults.checker import Violation, recoveries, survived_agent_kills
from tests.faults.evidence import Evidence
from tests.faults.history import Recorder

NAMES = (
    "faults_injected",
    "operations",
    "acked_lost",
    "doubled",
    "leaked_processes",
    "leaked_slots",
    "sessions_survived_agent_kill",
    "recovery_p99_s",
    "unexplained_ends",
)
"""The members of ``build/faults.json``, and no others."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What one run comes to, or several together."""

    counts: Mapping[str, int]
    at_agent_kills: int
    """Sessions that ran on a node when its agent died."""
    survived: int
    recoveries_s: tuple[float, ...]
    violations: int
    created: int
    """Sessions whose creation was acknowledged."""

    @classmethod
    def of(cls, evidence: Evidence, violations: Sequence[Violation]) -> Tally:
        """Count one run."""
        kinds = Counter(violation.kind for violation in violations)
        survived, total = survived_agent_kills(evidence)
        created = {each.session_id for each in evidence.operations if each.kind == "create" and each.outcome == "OK"}
        counts = {
            "faults_injected": len(evidence.faults),
            "operations": len(evidence.operations),
            "acked_lost": kinds["acked_lost"] + kinds["unended"] + kinds["not_idempotent"],
            "doubled": kinds["doubled"],
            "leaked_processes": kinds["leaked_processes"],
            "leaked_slots": kinds["leaked_slots"],
            "unexplained_ends": kinds["unexplained_ends"] + kinds["without_reason"],
        }
        times = tuple(seconds for seconds, _ in recoveries(evidence))
        return cls(counts, total, survived, times, len(violations), len(created))

    def __add__(self, other: Tally) -> Tally:
        """Both runs together."""
        return Tally(
            {name: count + other.counts[name] for name, count in self.counts.items()},
            self.at_agent_kills + other.at_agent_kills,
            self.survived + other.survived,
            self.recoveries_s + other.recoveries_s,
            self.violations + other.violations,
            self.created + other.created,
        )

    def figures(self) -> dict[str, float]:
        """The object of ``build/faults.json``: counts, one ratio, seconds."""
        known: dict[str, float] = {
            **self.counts,
            "sessions_survived_agent_kill": round(self.survived / self.at_agent_kills, 4)
            if self.at_agent_kills
            else 1.0,
            "recovery_p99_s": round(_percentile(self.recoveries_s, 0.99), 3),
        }
        return {name: known[name] for name in NAMES}

    def lines(self) -> list[str]:
        """The same for a person, and what else is worth knowing."""
        shown = {
            **self.figures(),
            "recovery_p50_s": round(_percentile(self.recoveries_s, 0.5), 3),
            "sessions_created": self.created,
            "sessions_at_agent_kills": self.at_agent_kills,
            "violations": self.violations,
        }
        return [f"  {name:<30} {value:g}" for name, value in shown.items()]


def render(seed: int, seconds: float, recorder: Recorder, evidence: Evidence, violations: Sequence[Violation]) -> str:
    """The report for a person."""
    lines = [f"Faults: seed {seed}, {seconds:g} s"]
    counts = Counter(fault.kind for fault in evidence.faults)
    lines += [f"  {kind:<18} {count}" for kind, count in sorted(counts.items())]
    lines += [f"  {kind:<18} skipped: {why}" for kind, why in sorted(recorder.skipped.items())]
    lines.append("Operations (kind, outcome)")
    outcomes = Counter((each.kind, each.outcome) for each in evidence.operations)
    lines += [f"  {kind:<10} {outcome:<8} {count}" for (kind, outcome), count in sorted(outcomes.items())]
    lines.append("Ends")
    ends = Counter(row.end_reason for row in evidence.final.sessions.values())
    lines += [f"  {reason or 'none':<18} {count}" for reason, count in sorted(ends.items())]
    if recorder.notes:
        lines.append(f"Notes ({len(recorder.notes)})")
        lines += [f"  {note[:300]}" for note in recorder.notes[:60]]
    lines.append("Slowest recoveries (from healing until a session asked for after it was READY)")
    slowest = sorted(recoveries(evidence), key=lambda each: each[0], reverse=True)[:5]
    for took, fault in slowest:
        lines.append(f"  {took:6.2f} s after {fault.kind} of {fault.target} at {fault.ended - recorder.started:.1f} s")
    lines.append("Figures")
    lines += Tally.of(evidence, violations).lines()
    lines.append(f"Violations: {len(violations)}")
    lines += [f"  {violation.kind}: {violation.text[:400]}" for violation in violations[:80]]
    return "\n".join(lines)


def _percentile(values: Sequence[float], share: float) -> float:
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
