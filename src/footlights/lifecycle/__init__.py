"""The life of sessions and launches: their states, and what follows from what. Pure: no clock, no store.

* `states` names the states, intents, end reasons and stages as the API does, and says which states have a picture,
  await one, or are over. ``known`` reads them: a value that only a later release knows is None.
* `derivation` derives a session's state. It is never set: it follows from what is wanted of the session (its intent)
  and from what its current launch was last observed to do. A writer that changes one of these inputs stores the
  derived state in the same transaction.
* `reasons` is the table of what the reason of a launch's end means: whose fault it is, and what is done about it.
* `timers` says which limit of a ready session has been reached; `blocking` for how long something that failed is left
  alone; `phases` how long a launch started, was used and ended.

Launch states only grow, and among final ones the first wins, so reports may arrive late, twice or out of order.
"""

from footlights.lifecycle.blocking import BackoffPolicy, Block, Failure, blocked
from footlights.lifecycle.derivation import DerivedState, LaunchFacts, derive_state, is_a_try, may_retry
from footlights.lifecycle.phases import Phases, phases
from footlights.lifecycle.reasons import REASONS, Fault, Meaning, Retry, meaning
from footlights.lifecycle.states import (
    LIVE_STATES,
    Condition,
    Desired,
    EndReason,
    Intent,
    LaunchState,
    SessionState,
    Stage,
    known,
    merge,
)
from footlights.lifecycle.timers import SessionClock, TimeLimits, due, warned_ahead_s

__all__ = [
    "Block",
    "Condition",
    "Desired",
    "EndReason",
    "Failure",
    "Fault",
    "Intent",
    "LIVE_STATES",
    "LaunchFacts",
    "LaunchState",
    "Meaning",
    "BackoffPolicy",
    "Phases",
    "REASONS",
    "Retry",
    "SessionClock",
    "SessionState",
    "DerivedState",
    "Stage",
    "TimeLimits",
    "blocked",
    "due",
    "is_a_try",
    "known",
    "may_retry",
    "meaning",
    "merge",
    "phases",
    "warned_ahead_s",
    "derive_state",
]
