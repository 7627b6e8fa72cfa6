"""Who watches, who has gone and who does not answer: what of it counts as idle, on a clock that is moved by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from footlights.agent.v1.agent_pb2 import Assignment

from footlights.agent.launches.notices import Notices
from footlights.agent.launches.record import Record
from footlights.launch.probes.notice import NoticeOutcome, SessionNotice
from footlights.lifecycle import LaunchState
from tests.agent.test_notices import Hand

IDLE_S, AHEAD_S = 600, 60


@dataclass
class Watched:
    """A launch that is ready, and whose application takes notices as it is told to."""

    clock: Hand = field(default_factory=Hand)
    outcome: NoticeOutcome = NoticeOutcome.DELIVERED
    shown: list[SessionNotice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record = Record(Assignment(launch_id="launch-1"), self.clock)
        self.record.assignment.limits.idle_timeout.FromSeconds(IDLE_S)
        self.record.move(LaunchState.READY)
        self.notices = Notices(self.record, self.clock)

    def answers(self, viewers: int | None, last_input_s: float | None = None, *, after_s: float = 0.0) -> str:
        """Ask once, ``after_s`` later; return the timer that has run out."""
        self.clock.at += after_s
        if (notice := self.notices.due()) is not None:
            self.notices.sent(notice, self.outcome)
            if self.outcome is NoticeOutcome.DELIVERED:
                self.shown.append(notice)
        self.record.heard()
        self.record.observe(viewers, last_input_s)
        if viewers:
            self.record.confirm_viewer()
        return self.record.overdue()

    def hangs(self, *, after_s: float = 0.0) -> str:
        """Ask once in vain."""
        self.clock.at += after_s
        self.record.unheard("GET /: no answer")
        self.record.observe(None, None)
        return self.record.overdue()


def test_who_watches_is_warned_before_the_end() -> None:
    """Once, with what to do and how long there is; then the session ends when it was said."""
    launch = Watched()
    launch.answers(1, 0.0)
    for second in range(10, IDLE_S - AHEAD_S, 10):
        assert launch.answers(1, second, after_s=10) == ""
    assert launch.shown == []

    ends = [launch.answers(1, IDLE_S - AHEAD_S + n, after_s=10 if not n else 1) for n in range(AHEAD_S + 2)]

    [warning] = launch.shown
    assert (warning.reason, warning.ends_in_s) == ("IDLE_TIMEOUT", AHEAD_S)
    assert "Click into the picture to stay" in warning.message
    assert (ends[AHEAD_S - 1], ends[-1]) == ("", "IDLE_TIMEOUT")


def test_who_gives_input_stays() -> None:
    """The warning is withdrawn, and the next one comes after another long time."""
    launch = Watched()
    launch.answers(1, 0.0)
    launch.answers(1, 545.0, after_s=545)
    launch.answers(1, 546.0, after_s=1)
    launch.answers(1, 0.0, after_s=10)
    launch.answers(1, 1.0, after_s=1)

    assert [notice.reason for notice in launch.shown] == ["IDLE_TIMEOUT", ""]
    assert launch.answers(1, 530.0, after_s=529) == ""
    assert len(launch.shown) == 2
    assert launch.answers(1, 900.0, after_s=370) == ""
    assert launch.answers(1, 901.0, after_s=1) == ""
    assert [notice.reason for notice in launch.shown] == ["IDLE_TIMEOUT", "", "IDLE_TIMEOUT"]
    assert launch.answers(1, 962.0, after_s=61) == "IDLE_TIMEOUT"


@pytest.mark.parametrize("outcome", [NoticeOutcome.UNSUPPORTED, NoticeOutcome.NOT_NOW])
def test_nobody_is_ended_whom_nothing_was_shown(outcome: NoticeOutcome) -> None:
    """An application that shows no notices keeps who watches; once it shows one, the whole time of it is given."""
    launch = Watched(outcome=outcome)
    launch.answers(1, 0.0)
    assert [launch.answers(1, 5000.0 + n, after_s=5000.0 if not n else 1) for n in range(3)] == [""] * 3

    if outcome is NoticeOutcome.NOT_NOW:
        launch.outcome = NoticeOutcome.DELIVERED
        assert launch.answers(1, 5003.0, after_s=1) == ""
        assert launch.shown[-1].ends_in_s == AHEAD_S
        assert launch.answers(1, 5062.0, after_s=59) == ""
        assert launch.answers(1, 5064.0, after_s=2) == "IDLE_TIMEOUT"


def test_who_leaves_may_come_back_for_the_whole_time() -> None:
    """However long there was no input before: a lost connection is no idleness."""
    launch = Watched()
    launch.answers(1, 0.0)
    launch.answers(1, 535.0, after_s=535)

    assert launch.answers(0, after_s=100) == ""
    assert launch.answers(0, after_s=IDLE_S - 1) == ""
    assert launch.answers(0, after_s=1) == "IDLE_TIMEOUT"


def test_a_reconnect_window_is_apart_from_idle() -> None:
    """Shorter or longer than it; and it counts from when the last one left, each time."""
    for window in (30, 3600):
        launch = Watched()
        launch.record.assignment.limits.reconnect_timeout.FromSeconds(window)
        launch.answers(2, 0.0)
        launch.answers(1, 0.0, after_s=100)
        assert launch.record.report().HasField("unwatched_for") is False
        launch.answers(0, after_s=1)
        assert launch.answers(0, after_s=window - 1) == ""
        launch.answers(1, 0.0, after_s=0.5)
        launch.answers(0, after_s=1)
        assert launch.answers(0, after_s=window - 1) == ""
        assert launch.record.report().unwatched_for.seconds == window - 1
        assert launch.answers(0, after_s=1) == "IDLE_TIMEOUT"


def test_an_application_that_hangs_lets_timers_go_on() -> None:
    """Never connected, idle, and the limit on not answering, where there is one."""
    launch = Watched()
    launch.record.assignment.limits.never_connected_timeout.FromSeconds(50)
    assert launch.hangs(after_s=49) == ""
    assert launch.hangs(after_s=1) == "NEVER_CONNECTED"

    launch = Watched()
    launch.answers(1, 0.0)
    launch.answers(0, after_s=1)
    assert launch.hangs(after_s=IDLE_S - 1) == ""
    assert launch.hangs(after_s=1) == "IDLE_TIMEOUT"

    launch = Watched()
    launch.record.assignment.limits.unresponsive_timeout.FromSeconds(20)
    launch.answers(1, 0.0)
    assert launch.hangs(after_s=19) == ""
    assert launch.record.report().message == "The application does not answer: GET /: no answer."
    launch.answers(1, 0.0)
    assert launch.record.report().message == ""
    assert launch.record.report().HasField("unanswered_for") is False
    assert launch.hangs(after_s=20) == "UNRESPONSIVE"


def test_who_watched_when_it_hung_is_not_ended_at_once() -> None:
    """However long there was no input: time begins with its last answer, since nothing can be shown."""
    launch = Watched(outcome=NoticeOutcome.UNSUPPORTED)
    launch.answers(1, 0.0)
    launch.answers(1, 7200.0, after_s=7200)

    assert launch.hangs(after_s=3) == ""
    assert launch.hangs(after_s=IDLE_S - 4) == ""
    assert launch.hangs(after_s=1) == "IDLE_TIMEOUT"
