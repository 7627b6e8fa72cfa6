"""Proves from the evidence what must hold whatever happened; pure, and tested by evidence made up by hand.

Each check returns a sentence for every violation. ``prove`` makes them all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from tests.faults.evidence import Evidence, Hold, LaunchRow, SessionRow, Slot, Snapshot
from tests.faults.history import FORGOTTEN, Fault
from tests.faults.rivals import LET_IN

LEDGER_SLACK_S = 0.5
_CRASHES, _CRASH_WINDOW_US, _CRASH_BLOCK_US = 3, 60_000_000, 39_000_000
_PLACING_US = 1_000_000
_LIVE = ("STARTING", "READY", "ACTIVE", "TERMINATING")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be."""

    kind: str
    text: str


def prove(evidence: Evidence) -> list[Violation]:
    """Make every check; an empty list is a proof."""
    return [Violation(kind, text) for kind, check in CHECKS.items() for text in check(evidence)]


def acked_lost(evidence: Evidence) -> Iterable[str]:
    """Every create that was acknowledged exists."""
    known = evidence.final.sessions
    for each in evidence.operations:
        if each.kind == "create" and each.outcome == "OK" and each.session_id not in known:
            yield f"{each.client} was told of session {each.session_id} ({each.request_id}); it does not exist"


def unended(evidence: Evidence) -> Iterable[str]:
    """Every session whose end was acknowledged has ended, once all had time to settle."""
    for session_id in sorted(_terminated(evidence, acknowledged=True)):
        session = evidence.settled.sessions.get(session_id)
        if session is not None and not session.ended:
            yield f"the end of {session_id} was acknowledged, and it is {session.state}: {session.message}"


def not_idempotent(evidence: Evidence) -> Iterable[str]:
    """One request id is one session: in every answer, and in the store."""
    told: dict[str, set[str]] = defaultdict(set)
    for each in evidence.operations:
        if each.kind == "create" and each.outcome == "OK" and each.request_id:
            told[each.request_id].add(each.session_id)
    for session in evidence.final.sessions.values():
        if session.request_id:
            told[session.request_id].add(session.session_id)
    for request_id, sessions in sorted(told.items()):
        if len(sessions) > 1:
            yield f"request {request_id} made {len(sessions)} sessions: {', '.join(sorted(sessions))}"


def doubled(evidence: Evidence) -> Iterable[str]:
    """At most one lease holds a slot at any moment, and applications of two sessions never meet on one.

    A lease is held for certain between the first and the last time that it was seen. A slot is a lock: its history of
    acquiring and releasing is linearizable if, and only if, no two such spans of one slot have a moment in common.
    """
    slots: dict[Slot, list[Hold]] = defaultdict(list)
    for hold in evidence.holds:
        slots[hold.slot].append(hold)
    for slot, holds in sorted(slots.items()):
        for one, other in combinations(sorted(holds, key=lambda each: each.first), 2):
            if other.first <= one.last:
                yield f"{slot} was leased to {one.launch_id} and {other.launch_id} at {other.first:.3f}"
    for meeting in evidence.meetings:
        yield f"applications of {' and '.join(meeting.launches)} ran at once on {meeting.slot} at {meeting.at:.3f}"


def leaked_processes(evidence: Evidence) -> Iterable[str]:
    """No process of this cluster lives without a live session."""
    for name, snapshot in _snapshots(evidence):
        for kind, groups in (("process", snapshot.processes), ("shim", snapshot.shims)):
            for launch_id, pids in sorted(groups.items()):
                launch = snapshot.launches.get(launch_id)
                if launch is None or launch.ended:
                    how = "unknown" if launch is None else f"{launch.state} ({launch.reason})"
                    yield f"{name}: {kind} {pids} of launch {launch_id}, which is {how}"


def leaked_slots(evidence: Evidence) -> Iterable[str]:
    """Whatever is leased, is leased by a launch that has not ended; at the very end nothing is."""
    for name, snapshot in _snapshots(evidence):
        for lease in snapshot.leases:
            launch = snapshot.launches.get(lease.launch_id)
            if lease.released is None and (launch is None or launch.ended):
                yield f"{name}: lease {lease.lease_id} on {lease.slot} of {lease.launch_id}, which is over or unknown"
    for lease in evidence.final.leases:
        if lease.released is None:
            yield f"final: lease {lease.lease_id} on {lease.slot} of {lease.launch_id} is held"
    for place, count in sorted(evidence.final.slots_leased.items()):
        if count:
            yield f"final: the API says that {count} slots of {place} are leased"


def without_reason(evidence: Evidence) -> Iterable[str]:
    """Every session has ended with an end_reason, or is alive for a reason: it waits and says why, or it runs."""
    settled = evidence.settled
    for session in settled.sessions.values():
        if session.ended:
            if not session.end_reason or session.end_reason == "END_REASON_UNSPECIFIED":
                yield f"{session.session_id} is {session.state} without an end_reason"
        elif session.state == "PENDING":
            if not session.reasons:
                yield f"{session.session_id} waits and does not say why"
        elif problem := _hollow(session, settled):
            yield f"{session.session_id} is {session.state}, but {problem}"
    for session in evidence.final.sessions.values():
        if not session.ended:
            yield f"final: {session.session_id} was terminated and is {session.state}: {session.message}"
    listed = {each.session_id for each in settled.sessions.values() if not each.ended}
    if settled.listed != listed:
        yield f"the API lists other sessions than the store has: {sorted(settled.listed ^ listed)}"


def unexplained_ends(evidence: Evidence) -> Iterable[str]:
    """Every end is one that somebody asked for, that is the application's own, or that a fault explains."""
    asked = _terminated(evidence, acknowledged=False) | evidence.closed_by
    hurt = {launch_id for fault in evidence.faults for launch_id in fault.launches}
    lost = {fault.device for fault in evidence.faults if fault.device}
    for session in evidence.final.sessions.values():
        launch = evidence.final.launches.get(session.launch_id)
        reason = session.end_reason
        if not session.ended or reason in evidence.behaviors.get(session.application, ()):
            continue
        explained = {
            "USER_TERMINATED": session.session_id in asked,
            "MAX_DURATION": session.request_id.endswith(FORGOTTEN),
            "CRASHED": session.launch_id in hurt,
            "LAUNCH_FAILED": session.launch_id in hurt or _lived_unseen(evidence, session, launch),
            "NODE_LOST": session.launch_id in hurt,
            "GPU_LOST": launch is not None and launch.device in lost,
        }
        if not explained.get(reason, False):
            where = f"{launch.launch_id} on {launch.node}, {launch.reason or launch.state}" if launch else "no launch"
            yield f"{session.session_id} ({session.application}) ended as {reason}: {session.message} [{where}]"


def _lived_unseen(evidence: Evidence, session: SessionRow, launch: LaunchRow | None) -> bool:
    """Whether an application that ends by itself did all of its short life while its node's agent could not look."""
    brief = "COMPLETED" in evidence.behaviors.get(session.application, ())
    if launch is None or launch.reason != "EXITED_EARLY" or not brief:
        return False
    blind = [fault for fault in evidence.faults if fault.kind in _BLINDING and fault.target == launch.node]
    held = [hold for hold in evidence.holds if hold.launch_id == launch.launch_id]
    return any(fault.began <= hold.last and hold.first <= fault.ended for fault in blind for hold in held)


_BLINDING = ("stop_agent", "kill_agent")


def went_back(evidence: Evidence) -> Iterable[str]:
    """What one client is told of a session never goes back: an end is an end, a revision only grows."""
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    answers = [each for each in evidence.operations if each.outcome == "OK" and each.state and each.revision]
    for each in sorted(answers, key=lambda answer: answer.ended):
        if each.kind == "watch":
            continue  # what is told in a stream may have been on its way for long
        key = (each.client, each.session_id)
        revision, state = newest.get(key, (0, ""))
        if each.revision < revision:
            yield f"{each.client} was told revision {each.revision} of {each.session_id} after {revision}"
        if state in ("TERMINATED", "FAILED") and each.state != state:
            yield f"{each.client} was told that {each.session_id} is {each.state} after {state}"
        newest[key] = (each.revision, each.state)


def unbalanced(evidence: Evidence) -> Iterable[str]:
    """Leased = starting + used + ending: a slot is held from its launch's placing to its proved end, and not longer.

    In seconds of the server's wall clock: both sides have the same moments. One that was set back while a slot was held
    gives it a time below nothing, and nothing else does.
    """
    set_back = any(fault.kind == "jump_clock" and fault.target == "server" for fault in evidence.faults)
    for session in evidence.final.sessions.values():
        if session.launch_count != 1 or not session.ended:
            continue
        stages = dict(session.timeline)
        for lease in evidence.final.leases:
            # A launch that was refused is not in the timeline: its session went back to its place in the queue.
            if lease.launch_id != session.launch_id or lease.released is None:
                continue
            leased = (lease.released - lease.acquired) / 1e6
            if not {"PLACED", "ENDED"} <= stages.keys():
                yield f"{session.session_id} held a slot for {leased:.3f} s, and its timeline is {sorted(stages)}"
                continue
            accounted = (stages["ENDED"] - stages["PLACED"]) / 1e6
            if abs(leased - accounted) > LEDGER_SLACK_S or (leased < 0 and not set_back):
                yield f"{session.session_id} held a slot for {leased:.3f} s, its timeline has {accounted:.3f} s"


def strangers_killed(evidence: Evidence) -> Iterable[str]:
    """Nobody is ended who only has a pid that was once a session's."""
    yield from evidence.strangers_killed


def untold(evidence: Evidence) -> Iterable[str]:
    """Two agents with one identity that both had a link were told of each other."""
    for fault in evidence.faults:
        if fault.detail == LET_IN:
            yield f"{fault.kind} of {fault.target} at {fault.began:.3f}: {LET_IN}"


def tried_too_often(evidence: Evidence) -> Iterable[str]:
    """What failed to start three times within a minute on a node is left alone there for forty seconds, at least."""
    tries: dict[tuple[str, str], list[LaunchRow]] = defaultdict(list)
    for launch in evidence.final.launches.values():
        session = evidence.final.sessions.get(launch.session_id)
        if session is not None and launch.state == "FAILED" and launch.reason == "EXITED_EARLY":
            tries[session.application, launch.node].append(launch)
    for (application, node), launches in sorted(tries.items()):
        for launch in launches:
            # A launch that was being placed while the last one failed knows nothing of it.
            ends = sorted(each.ended_at for each in launches if each.ended_at < launch.created - _PLACING_US)
            recent = [end for end in ends if ends[-1] - end < _CRASH_WINDOW_US]
            after = launch.created - ends[-1] if ends else 0
            if len(recent) >= _CRASHES and after < _CRASH_BLOCK_US:
                yield f"{application} was tried on {node} again {after / 1e6:.1f} s after {len(recent)} failed starts"


CHECKS: Mapping[str, Callable[[Evidence], Iterable[str]]] = {
    "acked_lost": acked_lost,
    "unended": unended,
    "not_idempotent": not_idempotent,
    "doubled": doubled,
    "leaked_processes": leaked_processes,
    "leaked_slots": leaked_slots,
    "without_reason": without_reason,
    "unexplained_ends": unexplained_ends,
    "went_back": went_back,
    "unbalanced": unbalanced,
    "strangers_killed": strangers_killed,
    "untold": untold,
    "tried_too_often": tried_too_often,
}


def survived_agent_kills(evidence: Evidence) -> tuple[int, int]:
    """Of the launches that served when their agent died: how many lived on or ended for another cause, and of how
    many."""
    unexplained = {text.partition(" ")[0] for text in unexplained_ends(evidence)}
    hurt = {launch_id for fault in evidence.faults for launch_id in fault.launches}
    alive = total = 0
    for fault in evidence.faults:
        if fault.kind not in ("kill_agent", "restart_agent"):
            continue
        for launch_id in fault.running:
            launch = evidence.final.launches.get(launch_id)
            if launch_id in hurt:
                continue
            total += 1
            alive += launch is not None and launch.session_id not in unexplained
    return alive, total


def recoveries(evidence: Evidence) -> list[tuple[float, Fault]]:
    """For each fault: seconds from its healing until a session that was asked for after it was READY."""
    ready: dict[str, float] = {}
    asked: dict[str, float] = {}
    for each in evidence.operations:
        if each.outcome != "OK" or not each.session_id:
            continue
        if each.kind == "create":
            asked[each.session_id] = min(asked.get(each.session_id, each.began), each.began)
        if each.state in ("READY", "ACTIVE"):
            ready[each.session_id] = min(ready.get(each.session_id, each.ended), each.ended)
    starts = sorted((began, ready[session_id]) for session_id, began in asked.items() if session_id in ready)
    found: list[tuple[float, Fault]] = []
    for fault in evidence.faults:
        after = [done for began, done in starts if began >= fault.ended]
        if after:
            found.append((min(after) - fault.ended, fault))
    return found


def _terminated(evidence: Evidence, *, acknowledged: bool) -> frozenset[str]:
    outcomes = ("OK",) if acknowledged else ("OK", "UNKNOWN")
    return frozenset(
        each.session_id for each in evidence.operations if each.kind == "terminate" and each.outcome in outcomes
    )


def _hollow(session: SessionRow, settled: Snapshot) -> str:
    """What is missing of a session that says it runs."""
    launch = settled.launches.get(session.launch_id)
    if session.state not in _LIVE or launch is None or launch.ended:
        return "it has no launch that lives"
    if not any(lease.launch_id == launch.launch_id and lease.released is None for lease in settled.leases):
        return f"its launch {launch.launch_id} holds no slot"
    if session.state in ("READY", "ACTIVE"):
        if settled.launchers.get(session.application) == "process" and launch.launch_id not in settled.processes:
            return f"no process of its launch {launch.launch_id} lives"
        return ""
    return f"{session.state} is no state to stay in ({session.message})"


def _snapshots(evidence: Evidence) -> Iterable[tuple[str, Snapshot]]:
    return (("settled", evidence.settled), ("final", evidence.final))
