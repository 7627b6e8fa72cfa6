"""Which of a session's timers has run out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.lifecycle import EndReason, SessionClock, TimeLimits, due

ALL = TimeLimits(never_connected_s=60, idle_s=120, max_s=600)
GONE = TimeLimits(idle_s=60, reconnect_s=120)
HANGS = TimeLimits(unresponsive_s=30)


@pytest.mark.parametrize(
    ("clock", "limits", "reason", "says"),
    [
        (SessionClock(599, True, 0), ALL, None, ""),
        (SessionClock(600, True, 0), ALL, EndReason.MAX_DURATION, "10 minutes"),
        (SessionClock(600, False, 600), ALL, EndReason.MAX_DURATION, "10 minutes"),
        (SessionClock(59, False, 59), ALL, None, ""),
        (SessionClock(60, False, 60), ALL, EndReason.NEVER_CONNECTED, "60 seconds"),
        (SessionClock(300, True, 119), ALL, None, ""),
        (SessionClock(300, True, 120), ALL, EndReason.IDLE_TIMEOUT, "2 minutes"),
        (SessionClock(300, True, None), ALL, None, ""),
        (SessionClock(300, False, None), ALL, None, ""),
        (SessionClock(600, False, None), ALL, EndReason.MAX_DURATION, "10 minutes"),
        (SessionClock(300, False, 300), TimeLimits(idle_s=120), None, ""),
        (SessionClock(1e9, True, 1e9), TimeLimits(), None, ""),
        (SessionClock(7200, True, 0), TimeLimits(max_s=7200), EndReason.MAX_DURATION, "2 hours"),
        (SessionClock(300, True, 300, 119), GONE, None, ""),
        (SessionClock(300, True, 300, 120), GONE, EndReason.IDLE_TIMEOUT, "came back within 2 minutes"),
        (SessionClock(300, True, 300, 120), TimeLimits(idle_s=60), EndReason.IDLE_TIMEOUT, "60 seconds"),
        (SessionClock(300, True, 59), GONE, None, ""),
        (SessionClock(300, True, 60), GONE, EndReason.IDLE_TIMEOUT, "no input for 60 seconds"),
        (SessionClock(300, False, 300, 300), GONE, None, ""),
        (SessionClock(300, True, None, None, 29), HANGS, None, ""),
        (SessionClock(300, False, None, None, 30), HANGS, EndReason.UNRESPONSIVE, "did not answer for 30 seconds"),
        (SessionClock(300, True, 9, None, 1e9), TimeLimits(idle_s=10), None, ""),
        (SessionClock(1.5, True, 0), TimeLimits(max_s=1.5), EndReason.MAX_DURATION, "1.5 seconds"),
    ],
)
def test_a_timer_runs_out_at_its_limit(
    clock: SessionClock, limits: TimeLimits, reason: EndReason | None, says: str
) -> None:
    """Maximum first, then no answer; where presence is known, never connected before the first viewer, idle after."""
    over = due(clock, limits)

    assert (over[0] if over else None) is reason
    assert says in (over[1] if over else "")


spans = st.floats(0, 1e6)


@given(ready=spans, idle=spans | st.none(), connected=st.booleans(), limit=spans, more=spans)
def test_a_timer_that_has_run_out_stays_so(
    ready: float, idle: float | None, connected: bool, limit: float, more: float
) -> None:
    """With more time gone by nothing that was over becomes not over: a lost report only delays an end."""
    limits = TimeLimits(limit, limit, limit)

    if due(SessionClock(ready, connected, idle), limits) is not None:
        later = SessionClock(ready + more, connected, None if idle is None else idle + more)
        assert due(later, limits) is not None
