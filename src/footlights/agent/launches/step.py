"""What to do next about one launch: a function of what is known of it, and of nothing else."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from footlights.launch.launcher import Phase
from footlights.lifecycle import REASONS, LaunchState

if TYPE_CHECKING:
    from collections.abc import Sequence

KILL_AFTER_GRACE_S = 5.0
"""The shim kills when the grace is over; this long after that we no longer believe it will, and ask for it."""


_FAILURE = "FOOTLIGHTS_FAILURE: "
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]")
_SIGKILL = -9
_LONGEST_MESSAGE = 2000
_ITS_OWN_END = ("", "EXITED_EARLY")


@dataclass(frozen=True, slots=True)
class LaunchEnding:
    """How a launch is going to end, or has: decided once, reported when proved."""

    state: LaunchState
    reason: str = ""
    message: str = ""


class Ready(enum.Enum):
    """What the application's readiness check last said."""

    NOT_YET = "NOT_YET"
    READY = "READY"
    PORT_TAKEN = "PORT_TAKEN"
    NO_OFFER = "NO_OFFER"
    """It is ready for the rest, and has offered no picture for a long time."""
    STAGE_REFUSED = "STAGE_REFUSED"
    """It is ready for the rest, and does not take its stage."""


class OnDevice(enum.Enum):
    """Where the driver lists the launch."""

    UNKNOWN = "UNKNOWN"
    """Unknown: a software renderer, or processes that cannot be read."""
    NOWHERE = "NOWHERE"
    """On no device: not yet, or an application that uses none."""
    RIGHT = "RIGHT"
    SUSPECT = "SUSPECT"
    """On another device than its own, which may be a glance at all there are."""
    WRONG = "WRONG"
    """On another device than its own, and it stays there."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may depend on. Times are seconds."""

    state: LaunchState
    ending: LaunchEnding | None = None
    admitted: bool = False
    """Whether the node has taken it on: it has its ports and its plan."""
    prepared: bool = False
    begun: bool = False
    """Whether the launcher was ever asked to start it."""
    phase: Phase | None = None
    """How the launcher sees it; None where it could not be asked just now."""
    exit_code: int | None = None
    said: str = ""
    """What the launcher adds to its phase; for one that runs, why it cannot go on."""
    cause: str = ""
    """Why it ended, beyond its exit status, where the launcher knows."""
    ready: Ready = Ready.NOT_YET
    detail: str = ""
    on_device: OnDevice = OnDevice.UNKNOWN
    device_lost: str = ""
    """Why its device can no longer be used; empty while it can."""
    preparation_left: float = inf
    prepare_timeout: float = inf
    pulls: bool = False
    """Whether preparing it means to pull an image."""
    starting_for: float = 0.0
    start_timeout: float = 900.0
    stopping_for: float | None = None
    """Since it was asked to end; None while it was not."""
    grace: float = 10.0
    killed_for: float | None = None
    must_take_up: bool = False
    """Whether it was handed over to a session that it has not taken up."""
    same_boot: bool = True
    """Whether the machine has not been restarted since it was begun."""


class Do(enum.Enum):
    """The kinds of steps."""

    ADMIT = "ADMIT"
    """Look at the device, take ports, render and journal the plan."""
    PREPARE = "PREPARE"
    START = "START"
    BECOME_READY = "BECOME_READY"
    TAKE_UP = "TAKE_UP"
    """Have an application that was started ahead take up its session."""
    END = "END"
    """Adopt ``Step.ending`` as how it ends."""
    STOP = "STOP"
    KILL = "KILL"
    PROVE = "PROVE"
    """It is over as far as the launcher knows: prove it, and report ``Step.ending``."""
    FINISH = "FINISH"
    """Nothing was ever started: report ``Step.ending``."""
    WAIT = "WAIT"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    do: Do
    ending: LaunchEnding | None = None


def decide(facts: Facts) -> Step:
    """Choose the next step."""
    if facts.state.final:
        return Step(Do.WAIT)
    if not facts.begun:
        return _before_start(facts)
    if facts.phase is None:
        return Step(Do.WAIT)
    if facts.phase is not Phase.RUNNING:
        return Step(Do.PROVE, facts.ending or _own_end(facts))
    if facts.ending is not None:
        return _ending(facts)
    if facts.said:
        state = LaunchState.EXITED if facts.state is LaunchState.READY else LaunchState.FAILED
        return Step(Do.END, LaunchEnding(state, "SHIM_LOST", f"The application cannot go on: {facts.said}"))
    if facts.state is LaunchState.READY:
        return _ready(facts)
    return _starting(facts)


def with_kill(
    ending: LaunchEnding, *, grace_s: float, ended_after_s: float, killed: bool, exit_code: int | None
) -> LaunchEnding:
    """Say of an end that was asked for that the application had to be killed, where it was.

    Args:
        ending: How it ends.
        grace_s: How long it had.
        ended_after_s: How long after it was asked to end its end was seen.
        killed: Whether the launcher says so. Not all of them know.
        exit_code: Its exit status.
    """
    if not killed and not (exit_code == _SIGKILL and ended_after_s >= grace_s):
        return ending
    who = "The application" if exit_code in (_SIGKILL, None) else "What the application had started"
    text = f"{who} did not end within {grace_s:g} s of SIGTERM (stop_grace_period), and was killed."
    return replace(ending, message=f"{ending.message} {text}".strip())


def application_failure(log_tail: Sequence[str], ending: LaunchEnding) -> LaunchEnding:
    """Give ``ending`` the application's own reason, where it ended by itself and its output says why.

    Part of the launch contract: ``FOOTLIGHTS_FAILURE: {"reason": "STAGE_NOT_FOUND", "message": "..."}``.
    """
    if ending.reason not in _ITS_OWN_END:
        return ending
    for line in reversed(log_tail):
        _, marked, text = line.partition(_FAILURE)
        if not marked:
            continue
        try:
            said = json.loads(text)
            reason, message = said["reason"], said["message"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if not isinstance(message, str) or not message.strip():
            continue
        # What agents say, an application cannot: it would blame its node, or call off its own crash.
        good = isinstance(reason, str) and _REASON.fullmatch(reason) and reason not in REASONS
        return LaunchEnding(ending.state, reason if good else ending.reason, _plain(message)[:_LONGEST_MESSAGE])
    return ending


def _plain(text: str) -> str:
    """Return text that any terminal, database and message takes."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(each if each.isprintable() or each == "\n" else " " for each in whole)


def _before_start(facts: Facts) -> Step:
    if facts.ending is not None:
        return Step(Do.FINISH, facts.ending)
    if not facts.admitted:
        return Step(Do.ADMIT)
    if not facts.prepared and facts.preparation_left <= 0:
        return Step(Do.FINISH, _prepare_timeout(facts))
    return Step(Do.START if facts.prepared else Do.PREPARE)


def _starting(facts: Facts) -> Step:
    if facts.device_lost:
        return Step(Do.END, LaunchEnding(LaunchState.FAILED, "GPU_LOST", facts.device_lost))
    if facts.ready is Ready.PORT_TAKEN:
        return Step(Do.END, LaunchEnding(LaunchState.FAILED, "PORT_TAKEN", facts.detail))
    if facts.ready is Ready.NO_OFFER:
        return Step(Do.END, LaunchEnding(LaunchState.FAILED, "NO_OFFER", facts.detail))
    if facts.ready is Ready.STAGE_REFUSED:
        return Step(Do.END, LaunchEnding(LaunchState.FAILED, "STAGE_REFUSED", facts.detail))
    if facts.on_device is OnDevice.WRONG:
        return Step(Do.END, LaunchEnding(LaunchState.FAILED, "WRONG_DEVICE", facts.detail))
    if facts.ready is Ready.READY and facts.on_device is not OnDevice.SUSPECT:
        return Step(Do.BECOME_READY)
    if facts.starting_for >= facts.start_timeout:
        return Step(Do.END, _start_timeout(facts, facts.detail or "its readiness check has not been answered"))
    return Step(Do.WAIT)


def _ready(facts: Facts) -> Step:
    if facts.device_lost:
        return Step(Do.END, LaunchEnding(LaunchState.EXITED, "GPU_LOST", facts.device_lost))
    if facts.on_device is OnDevice.WRONG:
        return Step(Do.END, LaunchEnding(LaunchState.FAILED, "WRONG_DEVICE", facts.detail))
    return Step(Do.TAKE_UP if facts.must_take_up else Do.WAIT)


def _ending(facts: Facts) -> Step:
    if facts.stopping_for is None:
        return Step(Do.STOP)
    overdue = facts.stopping_for - facts.grace
    if overdue >= KILL_AFTER_GRACE_S and (facts.killed_for is None or facts.killed_for >= KILL_AFTER_GRACE_S):
        return Step(Do.KILL)
    return Step(Do.WAIT)


def _own_end(facts: Facts) -> LaunchEnding:
    """How a launch ended that was not asked to end."""
    was_ready = facts.state is LaunchState.READY
    if facts.phase is Phase.UNKNOWN:
        why = "its traces are gone" if facts.same_boot else "the machine was restarted"
        # No viewer was connected where it was not ready, and nothing of it runs: another launch may be tried.
        state = LaunchState.EXITED if was_ready else LaunchState.REJECTED
        reason = "TRACES_GONE" if facts.same_boot else "NODE_RESTARTED"
        return LaunchEnding(
            state, reason, f"The application no longer runs, and {why}: its exit status cannot be known."
        )
    cause = f": {facts.cause}" if facts.cause else ""
    if was_ready:
        text = f"The application has ended: {facts.said}" if facts.exit_code is None and facts.said else ""
        return LaunchEnding(
            LaunchState.EXITED, "", f"The application {_how(facts.exit_code)}{cause}." if cause else text
        )
    text = f"The application {_how(facts.exit_code)} before it was ready{cause}."
    return LaunchEnding(LaunchState.FAILED, "EXITED_EARLY", text)


def _start_timeout(facts: Facts, what: str) -> LaunchEnding:
    text = f"The application was not ready within {facts.start_timeout:g} s of its start: {what.rstrip('.')}."
    return LaunchEnding(LaunchState.FAILED, "START_TIMEOUT", text)


def _prepare_timeout(facts: Facts) -> LaunchEnding:
    if not facts.pulls:
        text = f"The launcher was not ready to start the application within {facts.prepare_timeout:g} s."
        return LaunchEnding(LaunchState.FAILED, "START_TIMEOUT", text)
    text = f"The image was not pulled within {facts.prepare_timeout:g} s (pull_timeout of the node)."
    return LaunchEnding(
        LaunchState.REJECTED, "PULL_TIMEOUT", f"{text} Look at the way to its registry, or pull it by hand."
    )


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended, with an exit status that cannot be known,"
    if exit_code < 0:
        return f"was killed by signal {-exit_code}"
    return f"exited with status {exit_code}"
