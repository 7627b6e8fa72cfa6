"""From intent and observation to a session's state."""

from __future__ import annotations

import pytest

from footlights.lifecycle import (
    DerivedState,
    EndReason,
    Intent,
    LaunchFacts,
    LaunchState,
    SessionState,
    derive_state,
    may_retry,
)
from footlights.lifecycle.derivation import MAX_LAUNCHES

RUN, END = Intent.RUN, Intent.END
S, L, R = SessionState, LaunchState, EndReason


@pytest.mark.parametrize(
    ("launch", "state"),
    [
        (None, S.PENDING),
        (LaunchFacts(L.ASSIGNED), S.STARTING),
        (LaunchFacts(L.STARTING), S.STARTING),
        (LaunchFacts(L.READY), S.READY),
        (LaunchFacts(L.READY, viewers=0), S.READY),
        (LaunchFacts(L.READY, viewers=2), S.ACTIVE),
        (LaunchFacts(L.STARTING, viewers=2), S.STARTING),
        (LaunchFacts(L.READY, viewers=2, stopping=True), S.TERMINATING),
        (LaunchFacts(L.STOPPING), S.TERMINATING),
    ],
)
def test_a_session_that_is_to_run_follows_its_launch(launch: LaunchFacts | None, state: SessionState) -> None:
    """While its end is not asked for, a session stands where its launch stands."""
    assert derive_state(RUN, None, launch).state is state
    assert derive_state(RUN, None, launch).end_reason is None


@pytest.mark.parametrize(
    ("message", "why"),
    [("pid 7 is in state D.", "pid 7 is in state D."), ("", "its agent has not said why")],
)
def test_a_session_whose_end_is_overdue_says_why(message: str, why: str) -> None:
    """It is still TERMINATING: only proof frees its slots."""
    derived = derive_state(END, R.USER_TERMINATED, LaunchFacts(L.STOPPING, overdue=True, message=message))

    assert derived.state is S.TERMINATING
    assert (
        derived.message == f"The end is overdue, and its slots are withheld until the application is proved gone: {why}"
    )


@pytest.mark.parametrize("state", [state for state in L if not state.final])
def test_a_session_that_is_to_end_is_terminating_until_its_launch_is_gone(state: LaunchState) -> None:
    """Wanting the end frees nothing: only proof does."""
    derived = derive_state(END, R.USER_TERMINATED, LaunchFacts(state, viewers=1), wish_message="Terminated by ann.")

    assert derived == DerivedState(S.TERMINATING, message="Terminated by ann.")


@pytest.mark.parametrize("wish", list(R))
@pytest.mark.parametrize("launch", [None, *(LaunchFacts(state, exit_code=9) for state in L if state.final)])
def test_the_wish_explains_an_end_that_was_asked_for(wish: EndReason, launch: LaunchFacts | None) -> None:
    """However the launch went once its end was wanted, the session ended for what was wished."""
    assert derive_state(END, wish, launch, wish_message="why") == DerivedState(wish.state, wish, "why")


@pytest.mark.parametrize(
    ("launch", "reason", "says"),
    [
        (LaunchFacts(L.EXITED, exit_code=0), R.COMPLETED, "exited by itself"),
        (LaunchFacts(L.EXITED, exit_code=3), R.CRASHED, "status 3"),
        (LaunchFacts(L.EXITED, exit_code=-9), R.CRASHED, "signal 9"),
        (LaunchFacts(L.EXITED), R.CRASHED, "could not be learnt"),
        (LaunchFacts(L.EXITED, exit_code=1, reason="GPU_LOST", message="fell off"), R.GPU_LOST, "fell off"),
        (LaunchFacts(L.EXITED, exit_code=1, message="segfault"), R.CRASHED, "segfault"),
        (LaunchFacts(L.FAILED), R.LAUNCH_FAILED, "could not be launched"),
        (LaunchFacts(L.FAILED, reason="NO_SUCH_PROGRAM", message="no kit"), R.LAUNCH_FAILED, "no kit"),
        (LaunchFacts(L.FAILED, reason="START_TIMEOUT", message="900 s"), R.START_TIMEOUT, "900 s"),
        (LaunchFacts(L.FAILED, reason="WRONG_DEVICE", message="on GPU-2"), R.WRONG_DEVICE, "on GPU-2"),
        (LaunchFacts(L.EXITED, exit_code=-15, reason="AGENT_STOPPED", message="stopped"), R.DRAINED, "stopped"),
        # The control plane wanted it to end, and its database was restored since.
        (LaunchFacts(L.EXITED, exit_code=-15, reason="STOPPED"), R.USER_TERMINATED, ""),
        (LaunchFacts(L.EXITED, exit_code=-15, reason="ABANDONED", message="cut off"), R.ABANDONED, "cut off"),
        (LaunchFacts(L.EXITED, reason="NODE_RESTARTED", message="reboot"), R.NODE_LOST, "reboot"),
        (LaunchFacts(L.EXITED, reason="TRACES_GONE", message="wiped"), R.NODE_LOST, "wiped"),
        (LaunchFacts(L.LOST), R.NODE_LOST, "no longer knows"),
        (LaunchFacts(L.LOST, message="forgotten"), R.NODE_LOST, "forgotten"),
    ],
)
def test_an_end_that_was_not_asked_for_has_its_own_reason(launch: LaunchFacts, reason: EndReason, says: str) -> None:
    """A session never ends without a reason and a sentence for its owner."""
    derived = derive_state(RUN, None, launch)

    assert (derived.state, derived.end_reason) == (reason.state, reason)
    assert says in derived.message


@pytest.mark.parametrize("failures", [0, 1, MAX_LAUNCHES, 10 * MAX_LAUNCHES])
def test_a_refusal_sends_a_session_back_to_the_queue_however_often(failures: int) -> None:
    """A node that refuses has run nothing: it costs the session none of its launches."""
    refused = LaunchFacts(L.REJECTED, reason="FOREIGN_PROCESS", message="3.1 GiB by pid 4711")

    assert derive_state(RUN, None, refused, failures=failures) == DerivedState(S.PENDING, message="3.1 GiB by pid 4711")


@pytest.mark.parametrize(("reason", "end"), [("PORT_TAKEN", R.LAUNCH_FAILED), ("AGENT_STOPPED", R.DRAINED)])
def test_a_failure_that_another_launch_may_not_meet_is_retried_a_bounded_number_of_times(
    reason: str, end: EndReason
) -> None:
    """So a session gets MAX_LAUNCHES launches and then ends for what it met last."""
    failed = LaunchFacts(L.FAILED, reason=reason, message="taken")

    outcomes = [derive_state(RUN, None, failed, failures=before).state for before in range(MAX_LAUNCHES)]

    assert outcomes == [S.PENDING] * (MAX_LAUNCHES - 1) + [end.state]
    assert derive_state(RUN, None, failed, failures=MAX_LAUNCHES - 1).end_reason is end


@pytest.mark.parametrize("state", [L.EXITED, L.FAILED, L.LOST])
def test_what_ran_or_cannot_run_is_never_retried(state: LaunchState) -> None:
    """A second launch of what has run could show a viewer another world; of what cannot run it would loop."""
    assert not may_retry(LaunchFacts(state, reason="CRASHED"), failures=0)
