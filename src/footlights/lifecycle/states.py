"""The states, by the names they have in the proto."""

from __future__ import annotations

import enum
from typing import TypeVar

EnumT = TypeVar("EnumT", bound=enum.StrEnum)


def known(kind: type[EnumT], text: str) -> EnumT | None:
    """Return the member that a stored or received text names; None where only a later release knows it.

    States are read with this alone: replicas and agents of two releases work side by side during an upgrade.
    """
    member = kind._value2member_map_.get(text)
    return member if isinstance(member, kind) else None


class Intent(enum.StrEnum):
    """What is wanted of a session. It goes from RUN to END once."""

    RUN = "RUN"
    END = "END"


class SessionState(enum.StrEnum):
    """Session.State."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    READY = "READY"
    ACTIVE = "ACTIVE"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    FAILED = "FAILED"

    @property
    def awaits_picture(self) -> bool:
        """Whether viewers cannot connect yet."""
        return self in (SessionState.PENDING, SessionState.STARTING)

    @property
    def has_picture(self) -> bool:
        """Whether viewers may connect."""
        return self in (SessionState.READY, SessionState.ACTIVE)

    @property
    def is_over(self) -> bool:
        """Whether viewers cannot connect any more; it may still hold its slots."""
        return not self.awaits_picture and not self.has_picture

    @property
    def ended(self) -> bool:
        """Whether the session holds nothing and never changes again."""
        return self in (SessionState.TERMINATED, SessionState.FAILED)


class Condition(enum.StrEnum):
    """Session.Condition."""

    OK = "OK"
    UNREACHABLE = "UNREACHABLE"


LIVE_STATES = tuple(state for state in SessionState if not state.ended)


class Desired(enum.StrEnum):
    """Assignment.Desired."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class LaunchState(enum.StrEnum):
    """LaunchReport.State."""

    ASSIGNED = "ASSIGNED"
    STARTING = "STARTING"
    READY = "READY"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    LOST = "LOST"

    @property
    def rank(self) -> int:
        """Its place in the only order in which states may follow each other; all final ones share the last."""
        return _RANKS[self]

    @property
    def final(self) -> bool:
        """Whether the launch is over and holds nothing."""
        return self.rank == _FINAL


_FINAL = 4
_RANKS = {
    LaunchState.ASSIGNED: 0,
    LaunchState.STARTING: 1,
    LaunchState.READY: 2,
    LaunchState.STOPPING: 3,
    LaunchState.EXITED: _FINAL,
    LaunchState.FAILED: _FINAL,
    LaunchState.REJECTED: _FINAL,
    LaunchState.LOST: _FINAL,
}


def merge(known: LaunchState, observed: LaunchState) -> LaunchState:
    """Return the later of two observations of one launch: the higher rank; among final ones the first known."""
    return observed if observed.rank > known.rank else known


class EndReason(enum.StrEnum):
    """Session.EndReason."""

    USER_TERMINATED = "USER_TERMINATED"
    COMPLETED = "COMPLETED"
    CRASHED = "CRASHED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    START_TIMEOUT = "START_TIMEOUT"
    NEVER_CONNECTED = "NEVER_CONNECTED"
    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    MAX_DURATION = "MAX_DURATION"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    NODE_LOST = "NODE_LOST"
    GPU_LOST = "GPU_LOST"
    DRAINED = "DRAINED"
    WRONG_DEVICE = "WRONG_DEVICE"
    ABANDONED = "ABANDONED"
    UNRESPONSIVE = "UNRESPONSIVE"
    NODE_FAILED = "NODE_FAILED"

    @property
    def state(self) -> SessionState:
        """The state in which a session ends for this reason."""
        return SessionState.TERMINATED if self in _AS_AGREED else SessionState.FAILED


_AS_AGREED = frozenset(
    {
        EndReason.USER_TERMINATED,
        EndReason.COMPLETED,
        EndReason.NEVER_CONNECTED,
        EndReason.IDLE_TIMEOUT,
        EndReason.MAX_DURATION,
        EndReason.DRAINED,
        EndReason.ABANDONED,
    }
)


class Stage(enum.StrEnum):
    """Session.Milestone.Stage."""

    QUEUED = "QUEUED"
    PLACED = "PLACED"
    PULLING = "PULLING"
    PROCESS_UP = "PROCESS_UP"
    APPLICATION_READY = "APPLICATION_READY"
    FIRST_VIEWER = "FIRST_VIEWER"
    ENDING = "ENDING"
    ENDED = "ENDED"
