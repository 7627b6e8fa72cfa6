"""What a run comes to: a text for a person, and one flat object for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.faults.checker import Violation, recoveries, survived_agent_kills
from tests.faults.evidence import Evidence
from tests.faults.history import Recorder


def figures(evidence: Evidence, violations: Sequence[Violation]) -> dict[str, float]:
    """The object of ``build/faults.json``: counts, one ratio, seconds."""
    kinds = Counter(violation.kind for violation in violations)
    alive, total = survived_agent_kills(evidence)
    times = [seconds for seconds, _ in recoveries(evidence)]
    acknowledged = {each.session_id for each in evidence.operations if each.kind == "create" and each.outcome == "OK"}
    return {
        "faults_injected": len(evidence.faults),
        "operations": len(evidence.operations),
        "acked_lost": kinds["acked_lost"] + kinds["unended"] + kinds["not_idempotent"],
        "doubled": kinds["doubled"],
        "leaked_processes": kinds["leaked_processes"],
        "leaked_slots": kinds["leaked_slots"],
        "sessions_survived_agent_kill": round(alive / total, 4) if total else 1.0,
        "recovery_p99_s": round(_percentile(times, 0.99), 3),
        "unexplained_ends": kinds["unexplained_ends"] + kinds["without_reason"],
        "violations": len(violations),
        "sessions_created": len(acknowledged),
        "sessions_at_agent_kills": total,
        "recovery_p50_s": round(_percentile(times, 0.5), 3),
    }


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
    lines += [f"  {name:<30} {value:g}" for name, value in figures(evidence, violations).items()]
    lines.append(f"Violations: {len(violations)}")
    lines += [f"  {violation.kind}: {violation.text[:400]}" for violation in violations[:80]]
    return "\n".join(lines)


def _percentile(values: Sequence[float], share: float) -> float:
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
