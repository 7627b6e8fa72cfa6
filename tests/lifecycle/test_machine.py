"""A launch and its session as a state machine: reports late, twice and out of order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from footlights.lifecycle import (
    DerivedState,
    EndReason,
    Intent,
    LaunchFacts,
    LaunchState,
    SessionState,
    derive_state,
    merge,
)
from footlights.lifecycle.derivation import MAX_LAUNCHES

states = st.sampled_from(LaunchState)


@given(st.lists(states, min_size=1))
def test_a_launch_only_grows_and_its_first_final_state_wins(reports: list[LaunchState]) -> None:
    """Whatever is reported in whatever order: ranks never fall, and what is final stays what it was."""
    known = LaunchState.ASSIGNED
    for report in reports:
        after = merge(known, report)
        assert after.rank >= known.rank
        assert after in (known, report)
        if known.final:
            assert after is known
        known = after

    finals = [report for report in reports if report.final]
    assert known is (finals[0] if finals else max([LaunchState.ASSIGNED, *reports], key=lambda state: state.rank))


@given(states, states)
def test_the_same_report_twice_is_the_same_as_once(known: LaunchState, report: LaunchState) -> None:
    """Reports may be repeated."""
    once = merge(known, report)

    assert merge(once, report) is once


class Life(RuleBasedStateMachine):
    """One session: placed, reported on, ended and retried in every order there is."""

    def __init__(self) -> None:
        super().__init__()
        self.intent, self.wish = Intent.RUN, None
        self.launch: LaunchFacts | None = None
        self.failures = 0
        self.launches = 0
        self.settled = DerivedState(SessionState.PENDING)
        self.was = self.settled

    intent: Intent
    wish: EndReason | None

    def _resettle(self) -> None:
        self.was = self.settled
        if self.was.state.ended:
            return
        self.settled = derive_state(self.intent, self.wish, self.launch, failures=self.failures)
        if self.settled.state is SessionState.PENDING and self.launch is not None:
            self.failures += self.launch.state is LaunchState.FAILED
            self.launch = None

    @precondition(lambda self: self.settled.state is SessionState.PENDING)
    @rule()
    def place(self) -> None:
        self.launch = LaunchFacts(LaunchState.ASSIGNED)
        self.launches += 1
        self._resettle()

    @precondition(lambda self: self.launch is not None)
    @rule(
        state=states,
        viewers=st.none() | st.integers(0, 3),
        exit_code=st.none() | st.integers(-15, 3),
        reason=st.sampled_from(["", "PORT_TAKEN", "START_TIMEOUT", "GPU_LOST", "FOREIGN_PROCESS"]),
    )
    def report(self, state: LaunchState, viewers: int | None, exit_code: int | None, reason: str) -> None:
        assert self.launch is not None
        if self.launch.state.final:
            return
        self.launch = replace(
            self.launch,
            state=merge(self.launch.state, state),
            viewers=viewers,
            exit_code=exit_code,
            reason=reason,
        )
        self._resettle()

    @rule(reason=st.sampled_from(EndReason))
    def end(self, reason: EndReason) -> None:
        if self.intent is Intent.RUN:
            self.intent, self.wish = Intent.END, reason
            if self.launch is not None:
                self.launch = replace(self.launch, stopping=True)
        self._resettle()

    @invariant()
    def ended_never_changes(self) -> None:
        if self.was.state.ended:
            assert self.settled == self.was

    @invariant()
    def an_end_has_its_reason_and_no_other_state_has_one(self) -> None:
        assert self.settled.state.ended == (self.settled.end_reason is not None)
        if self.settled.end_reason is not None:
            assert self.settled.end_reason.state is self.settled.state

    @invariant()
    def an_ended_session_holds_no_launch_that_lives(self) -> None:
        if self.settled.state.ended:
            assert self.launch is None or self.launch.state.final

    @invariant()
    def a_session_that_is_to_end_never_goes_back_to_the_queue(self) -> None:
        if self.intent is Intent.END:
            assert self.settled.state in (SessionState.TERMINATING, SessionState.TERMINATED, SessionState.FAILED)

    @invariant()
    def failures_are_bounded(self) -> None:
        assert self.failures < MAX_LAUNCHES


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
