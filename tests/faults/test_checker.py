"""The checker sees: a history made up by hand is proved, and each kind of violation planted in it is caught."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.checker import prove, recoveries, survived_agent_kills
from tests.faults.evidence import Evidence, Hold, LaunchRow, LeaseRow, Meeting, SessionRow, Snapshot
from tests.faults.history import Fault, Operation
from tests.faults.report import NAMES, Tally
from tests.faults.rivals import LET_IN

SLOT = ("node-a", "GPU-1", 0)
SECOND = 1_000_000


def session(name: str, state: str = "TERMINATED", reason: str = "USER_TERMINATED", **changes: object) -> SessionRow:
    row = SessionRow(
        session_id=name,
        application="app",
        state=state,
        end_reason=reason,
        message="",
        request_id=f"request-{name}",
        created_by="admin",
        intent="END",
        launch_id=f"launch-{name}",
        launch_count=1,
        timeline=(("PLACED", 1 * SECOND), ("APPLICATION_READY", 2 * SECOND), ("ENDED", 9 * SECOND)),
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # members by name


def launch(name: str, *, ended: bool = True) -> LaunchRow:
    state = "EXITED" if ended else "READY"
    return LaunchRow(f"launch-{name}", name, "node-a", "GPU-1", state, "RUNNING", "", ended)


def lease(name: str, *, held: bool = False) -> LeaseRow:
    return LeaseRow(f"lease-{name}", f"launch-{name}", name, SLOT, 1 * SECOND, None if held else 9 * SECOND)


def told(kind: str, name: str, at: float, **changes: object) -> Operation:
    operation = Operation("client-0", "REST", kind, at, at + 0.1, "OK", session_id=name)
    if kind == "create":
        operation = replace(operation, request_id=f"request-{name}")
    return replace(operation, **changes)  # type: ignore[arg-type]  # members by name


def snapshot(*, running: bool) -> Snapshot:
    """Session one is over; two is still there if ``running``."""
    two = session("two", "READY", "") if running else session("two")
    return Snapshot(
        sessions={"one": session("one"), "two": two},
        launches={"launch-one": launch("one"), "launch-two": launch("two", ended=not running)},
        leases=(lease("one"), lease("two", held=running)),
        processes={"launch-two": (4711,)} if running else {},
        shims={"launch-two": (4710,)} if running else {},
        slots_leased={("node-a", "GPU-1"): int(running)},
        listed=frozenset({"two"}) if running else frozenset(),
        launchers={"app": "process"},
    )


GOOD = Evidence(
    operations=(told("create", "one", 0.0), told("terminate", "one", 5.0), told("create", "two", 6.0)),
    holds=(
        Hold("lease-one", "launch-one", "one", SLOT, 0.2, 5.5),
        Hold("lease-two", "launch-two", "two", SLOT, 6.2, 9.0),
    ),
    settled=snapshot(running=True),
    final=snapshot(running=False),
    behaviors={"app": frozenset()},
    closed_by=frozenset({"two"}),
)


def kinds(evidence: Evidence) -> set[str]:
    return {violation.kind for violation in prove(evidence)}


def test_a_good_history_is_proved() -> None:
    """Nothing is found where nothing is wrong."""
    assert prove(GOOD) == []


def test_an_acknowledged_session_that_does_not_exist_is_lost() -> None:
    """A create that was answered must be found in the store."""
    assert kinds(replace(GOOD, operations=(*GOOD.operations, told("create", "three", 7.0)))) == {"acked_lost"}


def test_an_acknowledged_end_that_did_not_come_is_caught() -> None:
    """A terminated session that still runs after everything settled is not ended."""
    assert kinds(replace(GOOD, operations=(*GOOD.operations, told("terminate", "two", 7.0)))) == {"unended"}


def test_a_retry_that_made_a_second_session_is_caught() -> None:
    """The same request id answered with two sessions is no idempotency, nor is it when only the store shows it."""
    again = told("create", "two", 7.0, request_id="request-one")
    assert kinds(replace(GOOD, operations=(*GOOD.operations, again))) == {"not_idempotent"}

    twice = replace(GOOD.final, sessions={**GOOD.final.sessions, "two": session("two", request_id="request-one")})
    assert kinds(replace(GOOD, operations=GOOD.operations[:2], final=twice)) == {"not_idempotent"}


def test_two_leases_at_once_are_caught() -> None:
    """Spans in which a slot was certainly held must not meet, not even in one moment."""
    late = replace(GOOD.holds[0], last=6.2)
    assert kinds(replace(GOOD, holds=(late, GOOD.holds[1]))) == {"doubled"}


def test_two_applications_at_once_are_caught() -> None:
    """Processes of two sessions on one slot are a doubled slot, whatever the leases say."""
    meeting = Meeting(5.0, SLOT, ("launch-one", "launch-two"))
    assert kinds(replace(GOOD, meetings=(meeting,))) == {"doubled"}


@pytest.mark.parametrize("member", ["processes", "shims"])
@pytest.mark.parametrize("launch_id", ["launch-one", "launch-of-nobody"])
def test_a_process_without_a_session_is_caught(member: str, launch_id: str) -> None:
    """What carries the cluster's mark belongs to a launch that has not ended; shims too."""
    leaking = replace(GOOD.final, **{member: {launch_id: (99,)}})  # type: ignore[arg-type]  # members by name
    assert kinds(replace(GOOD, final=leaking)) == {"leaked_processes"}


def test_a_lease_of_an_ended_launch_is_caught() -> None:
    """A slot that nobody uses and nobody can have is leaked."""
    leaking = replace(GOOD.settled, leases=(lease("one", held=True), lease("two", held=True)))
    assert kinds(replace(GOOD, settled=leaking)) == {"leaked_slots"}


def test_a_slot_that_only_the_api_holds_is_caught() -> None:
    """After everything has ended the API says that every slot is free."""
    assert kinds(replace(GOOD, final=replace(GOOD.final, slots_leased={("node-a", "GPU-1"): 1}))) == {"leaked_slots"}


@pytest.mark.parametrize(
    "changes",
    [
        {"processes": {}, "shims": {}},
        {"leases": (lease("one"), lease("two"))},
        {"sessions": {"one": session("one"), "two": session("two", "PENDING", "", launch_id="")}},
        {"sessions": {"one": session("one"), "two": session("two", "STARTING", "")}},
        {"sessions": {"one": session("one"), "two": session("two", "FAILED", "")}, "listed": frozenset()},
        {"listed": frozenset()},
    ],
)
def test_a_session_alive_without_a_reason_is_caught(changes: dict[str, object]) -> None:
    """READY without a process or slot, waiting or failed without a reason, stuck, or not listed: each is caught."""
    settled = replace(GOOD.settled, **changes)  # type: ignore[arg-type]  # members by name
    assert kinds(replace(GOOD, settled=settled)) == {"without_reason"}


@pytest.mark.parametrize(
    "reason",
    [
        "USER_TERMINATED",
        "MAX_DURATION",
        "CRASHED",
        "NODE_LOST",
        "GPU_LOST",
        "LAUNCH_FAILED",
        "QUEUE_TIMEOUT",
        "COMPLETED",
    ],
)
def test_an_end_that_nothing_explains_is_caught(reason: str) -> None:
    """No fault, no client and no application's nature: then no session ends."""
    final = replace(GOOD.final, sessions={**GOOD.final.sessions, "two": session("two", reason=reason)})
    assert kinds(replace(GOOD, final=final, closed_by=frozenset())) == {"unexplained_ends"}


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("CRASHED", Fault("kill_application", "node-a", 6.5, 6.5, launches=("launch-two",))),
        ("GPU_LOST", Fault("lose_gpu", "node-a", 6.5, 8.0, device="GPU-1")),
        ("LAUNCH_FAILED", Fault("kill_shim", "node-a", 6.5, 8.0, launches=("launch-two",))),
    ],
)
def test_an_end_that_a_fault_explains_is_none(reason: str, fault: Fault) -> None:
    """What was done to a session's process, device or disk explains its end; done to another's, it does not."""
    final = replace(GOOD.final, sessions={**GOOD.final.sessions, "two": session("two", reason=reason)})
    assert prove(replace(GOOD, final=final, closed_by=frozenset(), faults=(fault,))) == []

    elsewhere = replace(fault, target="node-b", launches=("another",), device="GPU-2" if fault.device else "")
    assert kinds(replace(GOOD, final=final, closed_by=frozenset(), faults=(elsewhere,))) == {"unexplained_ends"}


def test_a_short_life_that_no_agent_saw_is_explained() -> None:
    """By the stop of its own node's agent while it had its slot; of one that ends by itself only."""
    final = replace(
        GOOD.final,
        sessions={**GOOD.final.sessions, "two": session("two", reason="LAUNCH_FAILED")},
        launches={**GOOD.final.launches, "launch-two": replace(launch("two"), reason="EXITED_EARLY")},
    )
    stop = Fault("stop_agent", "node-a", 6.5, 8.0)
    brief = replace(
        GOOD, final=final, closed_by=frozenset(), faults=(stop,), behaviors={"app": frozenset({"COMPLETED"})}
    )

    assert prove(brief) == []
    for other in (
        replace(brief, behaviors=GOOD.behaviors),
        replace(brief, faults=(replace(stop, target="node-b"),)),
        replace(brief, faults=(replace(stop, began=1.0, ended=2.0),)),
    ):
        assert kinds(other) == {"unexplained_ends"}


def test_an_answer_that_goes_back_is_caught() -> None:
    """A client that was told of an end is not told of life afterwards, nor of an older revision."""
    ended = told("get", "one", 7.0, state="TERMINATED", revision=9)
    alive = told("get", "one", 8.0, state="READY", revision=10)
    older = told("get", "one", 8.0, state="TERMINATED", revision=8)
    assert kinds(replace(GOOD, operations=(*GOOD.operations, ended, alive))) == {"went_back"}
    assert kinds(replace(GOOD, operations=(*GOOD.operations, ended, older))) == {"went_back"}


def test_a_slot_held_longer_than_its_session_used_it_is_caught() -> None:
    """What was leased must be what the timeline accounts for."""
    longer = replace(lease("one"), released=30 * SECOND)
    assert kinds(replace(GOOD, final=replace(GOOD.final, leases=(longer, lease("two"))))) == {"unbalanced"}


def test_a_clock_that_is_set_back_may_make_a_slots_time_negative() -> None:
    """Where the server's was, and lease and timeline agree; not where nobody touched it."""
    one = lease("one")
    assert one.released is not None
    session = GOOD.final.sessions["one"]
    back = one.released - 40 * SECOND
    timeline = tuple((stage, back if stage == "ENDED" else moment) for stage, moment in session.timeline)
    sessions = {**GOOD.final.sessions, "one": replace(session, timeline=timeline)}
    final = replace(GOOD.final, sessions=sessions, leases=(replace(one, released=back), lease("two")))
    jump = Fault("jump_clock", "server", 6.5, 8.0, detail="-40 s")

    assert kinds(replace(GOOD, final=final)) == {"unbalanced"}
    assert kinds(replace(GOOD, final=final, faults=(jump,))) == set()


def test_a_refused_launch_owes_the_timeline_nothing() -> None:
    """Its session went back to the queue and was terminated there: the lease was held, and no step is left of it."""
    waited = session("one", launch_id="", timeline=(("QUEUED", 0), ("ENDED", 9 * SECOND)))
    assert prove(replace(GOOD, final=replace(GOOD.final, sessions={**GOOD.final.sessions, "one": waited}))) == []


def test_a_killed_stranger_is_caught() -> None:
    """A process that only has a pid which was a session's is not ours to end."""
    assert kinds(replace(GOOD, strangers_killed=("pid 7",))) == {"strangers_killed"}


def test_two_agents_that_nobody_told_are_caught() -> None:
    """A clone that was let in beside the original, without a word to either."""
    clone = Fault("clone_agent", "node-a", 6.5, 8.0, detail=LET_IN)
    assert kinds(replace(GOOD, faults=(clone,))) == {"untold"}
    assert prove(replace(GOOD, faults=(replace(clone, detail="told"),))) == []


@pytest.mark.parametrize(("later_s", "caught"), [(2, True), (38, True), (41, False)])
def test_a_crash_loop_that_goes_on_is_caught(later_s: int, caught: bool) -> None:
    """Three failed starts within a minute, and a fourth before forty seconds are over."""
    begins = [0, 2, 4, 4 + 1 + later_s]
    names = [f"broken-{number}" for number in range(4)]
    behaviors = {**GOOD.behaviors, "broken": frozenset({"LAUNCH_FAILED"})}
    ends = {name: session(name, "FAILED", "LAUNCH_FAILED", application="broken") for name in names}
    failed = {
        f"launch-{name}": replace(
            launch(name), state="FAILED", reason="EXITED_EARLY", created=at * SECOND, ended_at=(at + 1) * SECOND
        )
        for name, at in zip(names, begins, strict=True)
    }
    final = replace(GOOD.final, sessions={**GOOD.final.sessions, **ends}, launches={**GOOD.final.launches, **failed})
    assert kinds(replace(GOOD, final=final, behaviors=behaviors)) == ({"tried_too_often"} if caught else set())


def test_several_runs_are_summed() -> None:
    """Counts and violations add up, the ratio is over all, the figures have the issue's names and no others."""
    kill = Fault("kill_agent", "node-a", 7.0, 7.5, running=("launch-one", "launch-two"))
    good = replace(GOOD, faults=(kill,))
    lost = replace(good.final, sessions={**good.final.sessions, "two": session("two", reason="NODE_LOST")})
    bad = replace(good, final=lost, closed_by=frozenset())
    total = Tally.of(good, prove(good)) + Tally.of(bad, prove(bad))

    assert tuple(total.figures()) == NAMES
    assert total.figures()["faults_injected"] == 2
    assert total.figures()["sessions_survived_agent_kill"] == 0.75
    assert (total.figures()["unexplained_ends"], total.violations) == (1, 1)


def test_survival_counts_those_that_nobody_hurt() -> None:
    """Of what served when its agent died, what ended for no reason did not survive; what was hurt does not count."""
    kill = Fault("kill_agent", "node-a", 7.0, 7.5, running=("launch-one", "launch-two"))
    assert survived_agent_kills(replace(GOOD, faults=(kill,))) == (2, 2)

    lost = replace(GOOD.final, sessions={**GOOD.final.sessions, "two": session("two", reason="NODE_LOST")})
    assert survived_agent_kills(replace(GOOD, faults=(kill,), final=lost, closed_by=frozenset())) == (1, 2)

    hurt = Fault("kill_shim", "node-a", 7.0, 7.0, launches=("launch-two",))
    assert survived_agent_kills(replace(GOOD, faults=(kill, hurt), final=lost, closed_by=frozenset())) == (1, 1)


def test_recovery_is_until_a_later_wish_is_ready() -> None:
    """A session asked for before the fault was healed proves nothing; the first one asked for after it does."""
    fault = Fault("kill_server", "server", 1.0, 2.0)
    operations = (
        told("create", "one", 1.5),
        told("get", "one", 2.1, state="READY"),
        told("create", "two", 2.5),
        told("get", "two", 3.4, state="READY"),
    )
    assert [round(took, 3) for took, _ in recoveries(replace(GOOD, operations=operations, faults=(fault,)))] == [1.5]
