"""From intent and observation to a session's state."""

from __future__ import annotations

from dataclasses import dataclass

from footlights.lifecycle.states import EndReason, Intent, LaunchState, SessionState

MAX_LAUNCHES = 5
"""How many launches a session gets in all, refusals by a node not counted."""


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """What is known of a session's current launch."""

    state: LaunchState
    stopping: bool = False
    """Whether its end has been asked for."""
    overdue: bool = False
    """Whether its end should have been proved long ago."""
    viewers: int | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class DerivedState:
    """What follows: the state, and for an ended session why."""

    state: SessionState
    end_reason: EndReason | None = None
    message: str = ""


def derive_state(
    intent: Intent,
    wish: EndReason | None,
    launch: LaunchFacts | None,
    *,
    wish_message: str = "",
    failures: int = 0,
    notice: str = "",
) -> DerivedState:
    """Return a session's state; ``wish`` is why its end was asked for, ``failures`` how many launches failed before.

    ``notice`` is what its owner should know while it runs, such as that its node is being drained.
    """
    if launch is None:
        if intent is Intent.RUN:
            return DerivedState(SessionState.PENDING)
        return _ended(wish or EndReason.USER_TERMINATED, wish_message)
    if not launch.state.final:
        return _live(intent, launch, wish_message, notice)
    if intent is Intent.END and wish is not None:
        return _ended(wish, " ".join(filter(None, (wish_message, launch.message))))
    return _ended_by_itself(launch, failures)


def may_retry(launch: LaunchFacts, failures: int) -> bool:
    """Say whether a session whose launch ended so goes back to the queue instead of ending."""
    if launch.state is LaunchState.REJECTED:
        return True
    return launch.state is LaunchState.FAILED and launch.reason in _RETRYABLE and failures + 1 < MAX_LAUNCHES


_OVERDUE = "The end is overdue, and its slots are withheld until the application is proved gone"

_RETRYABLE = frozenset({"PORT_TAKEN", "AGENT_STOPPED"})
"""Failures that are not the application's fault and that another launch may not meet."""

_BY_REASON = {
    "START_TIMEOUT": EndReason.START_TIMEOUT,
    "GPU_LOST": EndReason.GPU_LOST,
    "WRONG_DEVICE": EndReason.WRONG_DEVICE,
    "AGENT_STOPPED": EndReason.DRAINED,
    "ABANDONED": EndReason.ABANDONED,
    "NODE_RESTARTED": EndReason.NODE_LOST,
    "TRACES_GONE": EndReason.NODE_LOST,
}
"""What an agent says of an end that was not the application's own doing -> why the session ended."""


def _live(intent: Intent, launch: LaunchFacts, wish_message: str, notice: str) -> DerivedState:
    if intent is Intent.END or launch.stopping or launch.state is LaunchState.STOPPING:
        if launch.overdue:
            why = launch.message or "its agent has not said why"
            return DerivedState(SessionState.TERMINATING, message=f"{_OVERDUE}: {why}")
        return DerivedState(SessionState.TERMINATING, message=launch.message or wish_message)
    if launch.state is LaunchState.READY:
        return DerivedState(
            SessionState.ACTIVE if launch.viewers else SessionState.READY, message=notice or launch.message
        )
    return DerivedState(SessionState.STARTING, message=notice or launch.message)


def _ended(reason: EndReason, message: str) -> DerivedState:
    return DerivedState(reason.state, reason, message)


def _ended_by_itself(launch: LaunchFacts, failures: int) -> DerivedState:
    if may_retry(launch, failures):
        return DerivedState(SessionState.PENDING, message=launch.message)
    if launch.state is LaunchState.LOST:
        return _ended(EndReason.NODE_LOST, launch.message or "The node no longer knows the launch.")
    if launch.reason in _BY_REASON:
        return _ended(_BY_REASON[launch.reason], launch.message)
    if launch.state is LaunchState.FAILED:
        return _ended(EndReason.LAUNCH_FAILED, launch.message or "The application could not be launched.")
    if launch.exit_code == 0:
        return _ended(EndReason.COMPLETED, launch.message or "The application exited by itself.")
    return _ended(EndReason.CRASHED, launch.message or _crash(launch.exit_code))


def _crash(exit_code: int | None) -> str:
    if exit_code is None:
        return "The application ended; its exit status could not be learnt."
    if exit_code < 0:
        return f"The application was killed by signal {-exit_code}."
    return f"The application exited with status {exit_code}."
