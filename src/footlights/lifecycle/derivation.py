"""From intent and observation to a session's state."""

from __future__ import annotations

from dataclasses import dataclass

from footlights.lifecycle.reasons import Fault, Retry, meaning
from footlights.lifecycle.states import EndReason, Intent, LaunchState, SessionState

MAX_LAUNCHES = 5
"""How many launches a session gets in all; those that were refused before anything was tried are not counted."""


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """What is known of a session's current launch."""

    state: LaunchState
    stopping: bool = False
    """Whether its end has been asked for."""
    being_taken: bool = False
    """Whether it was started ahead, and its agent has not yet taken up the session that it was handed over to."""
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
    again: bool = True,
) -> DerivedState:
    """Return a session's state; ``wish`` is why its end was asked for, ``failures`` how many launches failed before.

    ``notice`` is what its owner should know while it runs, such as that its node is being drained. Where nobody waits
    for it, as for a warm instance, it is not placed ``again``.
    """
    if launch is None:
        if intent is Intent.RUN:
            return DerivedState(SessionState.PENDING)
        return _ended(wish or EndReason.USER_TERMINATED, wish_message)
    if not launch.state.final:
        return _live(intent, launch, wish_message, notice)
    if intent is Intent.END and wish is not None:
        return _ended(wish, " ".join(filter(None, (wish_message, launch.message))))
    return _ended_by_itself(launch, failures, again=again)


def may_retry(launch: LaunchFacts, failures: int) -> bool:
    """Say whether a session whose launch ended so goes back to the queue instead of ending."""
    if launch.state is LaunchState.REJECTED and not is_a_try(launch):
        # What no node can carry out is not offered to others.
        return not launch.reason or meaning(launch.reason).fault is not Fault.VERSION
    return is_a_try(launch) and failures + 1 < MAX_LAUNCHES


def is_a_try(launch: LaunchFacts) -> bool:
    """Say whether a launch that ended so is one of the ``MAX_LAUNCHES`` of a session that is placed again after it."""
    retry = meaning(launch.reason).retry
    if launch.state is LaunchState.EXITED:
        # Its session was not there when it was started, and has had nothing of it.
        return launch.being_taken
    if launch.state is LaunchState.REJECTED:
        return retry is Retry.ELSEWHERE
    return launch.state is LaunchState.FAILED and retry in (Retry.AGAIN, Retry.ELSEWHERE)


_OVERDUE = "The end is overdue, and its slots are withheld until the application is proved gone"

_BEING_TAKEN = "An application that was started ahead takes up the session."

_OF_A_START = frozenset({EndReason.LAUNCH_FAILED, EndReason.START_TIMEOUT, EndReason.NODE_FAILED})
"""The ends of sessions that were never ready."""


def _live(intent: Intent, launch: LaunchFacts, wish_message: str, notice: str) -> DerivedState:
    if intent is Intent.END or launch.stopping or launch.state is LaunchState.STOPPING:
        if launch.overdue:
            why = launch.message or "its agent has not said why"
            return DerivedState(SessionState.TERMINATING, message=f"{_OVERDUE}: {why}")
        return DerivedState(SessionState.TERMINATING, message=launch.message or wish_message)
    if launch.state is LaunchState.READY and launch.being_taken:
        return DerivedState(SessionState.STARTING, message=notice or _BEING_TAKEN)
    if launch.state is LaunchState.READY:
        return DerivedState(
            SessionState.ACTIVE if launch.viewers else SessionState.READY, message=notice or launch.message
        )
    return DerivedState(SessionState.STARTING, message=notice or launch.message)


def _ended(reason: EndReason, message: str) -> DerivedState:
    return DerivedState(reason.state, reason, message)


def _ended_by_itself(launch: LaunchFacts, failures: int, *, again: bool) -> DerivedState:
    if again and may_retry(launch, failures):
        return DerivedState(SessionState.PENDING, message=launch.message)
    if launch.state is LaunchState.LOST:
        return _ended(EndReason.NODE_LOST, launch.message or "The node no longer knows the launch.")
    end = meaning(launch.reason).end
    if launch.state in (LaunchState.FAILED, LaunchState.REJECTED):
        message = launch.message or f"The application could not be launched: {meaning(launch.reason).says}."
        return _ended(end, f"Tried {failures + 1} times, the last time: {message}" if failures else message)
    if launch.reason and end not in _OF_A_START:
        return _ended(end, launch.message)
    if launch.exit_code == 0:
        return _ended(EndReason.COMPLETED, launch.message or "The application exited by itself.")
    return _ended(EndReason.CRASHED, launch.message or _crash(launch.exit_code))


def _crash(exit_code: int | None) -> str:
    if exit_code is None:
        return "The application ended; its exit status could not be learnt."
    if exit_code < 0:
        return f"The application was killed by signal {-exit_code}."
    return f"The application exited with status {exit_code}."
