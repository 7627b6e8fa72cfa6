"""The life of sessions and launches: states, their transitions, and what follows from what. Pure.

A session's state is never set: it *follows* from what is wanted of it (intent), and from what its current launch
was last observed to do. ``settle`` is that function; whoever changes one of its inputs stores its answer in the same
transaction. Launch states only grow, and among final ones the first wins, so that reports may arrive late, twice or
out of order.
"""

from footlights.lifecycle.blocking import BackoffPolicy, Block, Failure, blocked
from footlights.lifecycle.derivation import LaunchFacts, Settled, may_retry, settle
from footlights.lifecycle.phases import Phases, phases
from footlights.lifecycle.states import (
    LIVE_STATES,
    EndReason,
    Intent,
    LaunchState,
    SessionState,
    Stage,
    merge,
)
from footlights.lifecycle.timers import SessionClock, TimeLimits, due

__all__ = [
    "Block",
    "EndReason",
    "Failure",
    "Intent",
    "LIVE_STATES",
    "LaunchFacts",
    "LaunchState",
    "BackoffPolicy",
    "Phases",
    "SessionClock",
    "SessionState",
    "Settled",
    "Stage",
    "TimeLimits",
    "blocked",
    "due",
    "may_retry",
    "merge",
    "phases",
    "settle",
]
