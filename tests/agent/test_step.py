"""The step function: each line of the table that says what to do next about a launch."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footlights.agent.launches.step import (
    KILL_AFTER_GRACE_S,
    Do,
    Facts,
    LaunchEnding,
    OnDevice,
    Ready,
    application_failure,
    decide,
    with_kill,
)
from footlights.launch.launcher import Phase
from footlights.lifecycle import LaunchState

ASSIGNED = Facts(state=LaunchState.ASSIGNED)
ADMITTED = dataclasses.replace(ASSIGNED, admitted=True)
STARTING = Facts(state=LaunchState.STARTING, admitted=True, prepared=True, begun=True, phase=Phase.RUNNING)
READY = dataclasses.replace(STARTING, state=LaunchState.READY, ready=Ready.READY)
WISH = LaunchEnding(LaunchState.EXITED, "STOPPED")
STOPPING = dataclasses.replace(READY, state=LaunchState.STOPPING, ending=WISH, stopping_for=0.0)


def case(facts: Facts, do: Do, *ending: object, **changes: object) -> object:
    """One line: the facts, with changes, and what follows."""
    return pytest.param(dataclasses.replace(facts, **changes), do, ending)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "do", "ending"),
    [
        case(ASSIGNED, Do.ADMIT),
        case(ASSIGNED, Do.FINISH, LaunchState.EXITED, "STOPPED", ending=WISH),
        case(ADMITTED, Do.PREPARE),
        case(ADMITTED, Do.START, prepared=True),
        case(ADMITTED, Do.FINISH, LaunchState.FAILED, "START_TIMEOUT", preparation_left=0.0),
        case(ADMITTED, Do.FINISH, LaunchState.REJECTED, "PULL_TIMEOUT", preparation_left=0.0, pulls=True),
        case(ADMITTED, Do.START, preparation_left=0.0, pulls=True, prepared=True),
        case(STARTING, Do.WAIT),
        case(STARTING, Do.WAIT, phase=None),
        case(STARTING, Do.BECOME_READY, ready=Ready.READY),
        case(STARTING, Do.BECOME_READY, ready=Ready.READY, on_device=OnDevice.NOWHERE),
        case(STARTING, Do.BECOME_READY, ready=Ready.READY, on_device=OnDevice.RIGHT),
        case(STARTING, Do.WAIT, ready=Ready.READY, on_device=OnDevice.SUSPECT),
        case(STARTING, Do.END, LaunchState.FAILED, "WRONG_DEVICE", ready=Ready.READY, on_device=OnDevice.WRONG),
        case(STARTING, Do.END, LaunchState.FAILED, "PORT_TAKEN", ready=Ready.PORT_TAKEN),
        case(STARTING, Do.END, LaunchState.FAILED, "NO_OFFER", ready=Ready.NO_OFFER),
        case(STARTING, Do.END, LaunchState.FAILED, "GPU_LOST", device_lost="gone"),
        case(STARTING, Do.END, LaunchState.FAILED, "START_TIMEOUT", starting_for=900.0),
        case(STARTING, Do.END, LaunchState.FAILED, "SHIM_LOST", said="its shim is gone"),
        case(STARTING, Do.PROVE, LaunchState.FAILED, "EXITED_EARLY", phase=Phase.EXITED, exit_code=3),
        case(STARTING, Do.PROVE, LaunchState.REJECTED, "TRACES_GONE", phase=Phase.UNKNOWN),
        case(STARTING, Do.PROVE, LaunchState.REJECTED, "NODE_RESTARTED", phase=Phase.UNKNOWN, same_boot=False),
        case(READY, Do.WAIT),
        case(READY, Do.WAIT, starting_for=9000.0),
        case(READY, Do.WAIT, on_device=OnDevice.SUSPECT),
        case(READY, Do.END, LaunchState.EXITED, "GPU_LOST", device_lost="gone"),
        case(READY, Do.END, LaunchState.FAILED, "WRONG_DEVICE", on_device=OnDevice.WRONG),
        case(READY, Do.PROVE, LaunchState.EXITED, "", phase=Phase.EXITED, exit_code=0),
        case(READY, Do.PROVE, LaunchState.EXITED, "TRACES_GONE", phase=Phase.UNKNOWN),
        case(READY, Do.STOP, ending=WISH),
        case(STOPPING, Do.WAIT),
        case(STOPPING, Do.WAIT, phase=None),
        case(STOPPING, Do.WAIT, stopping_for=10.0 + KILL_AFTER_GRACE_S - 0.1),
        case(STOPPING, Do.KILL, stopping_for=10.0 + KILL_AFTER_GRACE_S),
        case(STOPPING, Do.WAIT, stopping_for=100.0, killed_for=1.0),
        case(STOPPING, Do.KILL, stopping_for=100.0, killed_for=KILL_AFTER_GRACE_S),
        case(STOPPING, Do.PROVE, LaunchState.EXITED, "STOPPED", phase=Phase.EXITED, exit_code=-15),
        case(STOPPING, Do.PROVE, LaunchState.EXITED, "STOPPED", phase=Phase.UNKNOWN),
    ],
)
def test_table(facts: Facts, do: Do, ending: tuple[LaunchState, str]) -> None:
    """From these facts follows this step."""
    step = decide(facts)
    assert step.do is do
    if ending:
        assert step.ending is not None
        assert (step.ending.state, step.ending.reason) == ending


FAILED = LaunchEnding(LaunchState.FAILED, "EXITED_EARLY", "It exited.")
SAYS = 'FOOTLIGHTS_FAILURE: {"reason": "STAGE_NOT_FOUND", "message": "no such stage"}'


@pytest.mark.parametrize(
    ("lines", "reason", "message"),
    [
        ([SAYS], "STAGE_NOT_FOUND", "no such stage"),
        ([f"2026-11-30 [Error] {SAYS}", *["bye"] * 100], "STAGE_NOT_FOUND", "no such stage"),
        ([SAYS, 'FOOTLIGHTS_FAILURE: {"reason": "CUT_O'], "STAGE_NOT_FOUND", "no such stage"),
        (["FOOTLIGHTS_FAILURE: " + "[" * 100_000], "EXITED_EARLY", "It exited."),
        (["FOOTLIGHTS_FAILURE: []"], "EXITED_EARLY", "It exited."),
        (['FOOTLIGHTS_FAILURE: {"reason": "not mine", "message": "why"}'], "EXITED_EARLY", "why"),
        (['FOOTLIGHTS_FAILURE: {"reason": 7, "message": "why"}'], "EXITED_EARLY", "why"),
        (
            ['FOOTLIGHTS_FAILURE: {"reason": "PORT_TAKEN", "message": "my node did it"}'],
            "EXITED_EARLY",
            "my node did it",
        ),
        (['FOOTLIGHTS_FAILURE: {"reason": "X", "message": ""}'], "EXITED_EARLY", "It exited."),
        (['FOOTLIGHTS_FAILURE: {"reason": "ODD", "message": "a\\ud800b\\u001b[2J\\u0000"}'], "ODD", "a?b [2J "),
        ([], "EXITED_EARLY", "It exited."),
    ],
)
def test_what_an_application_says_of_its_failure(lines: list[str], reason: str, message: str) -> None:
    """Its last line that can be read; as text that every terminal and message takes."""
    found = application_failure(lines, FAILED)

    assert (found.state, found.reason, found.message) == (LaunchState.FAILED, reason, message)
    assert application_failure(lines, WISH) == WISH


@pytest.mark.parametrize(
    ("after_s", "killed", "exit_code", "says"),
    [
        (10.0, False, -9, "The application did not end within 10 s of SIGTERM (stop_grace_period), and was killed."),
        (3.0, False, -9, ""),
        (10.0, False, 0, ""),
        (10.0, True, -9, "The application did not end within 10 s of SIGTERM (stop_grace_period), and was killed."),
        (3.0, True, 0, "What the application had started did not end within 10 s of SIGTERM (stop_grace_period), and "
                       "was killed."),
    ],
)  # fmt: skip
def test_a_kill_is_said(after_s: float, killed: bool, exit_code: int, says: str) -> None:
    """Where its grace was over, not where somebody else killed it before."""
    found = with_kill(WISH, grace_s=10.0, ended_after_s=after_s, killed=killed, exit_code=exit_code)

    assert found == dataclasses.replace(WISH, message=says)


@pytest.mark.parametrize("state", [LaunchState.STARTING, LaunchState.READY])
def test_a_cause_that_the_launcher_knows_is_said(state: LaunchState) -> None:
    """That memory ran out is more than a signal's number."""
    ended = dataclasses.replace(READY, state=state, phase=Phase.EXITED, exit_code=-9, cause="it used too much memory")
    found = decide(ended).ending

    assert found is not None
    assert found.message.startswith("The application was killed by signal 9")
    assert found.message.endswith(": it used too much memory.")


ENDINGS = st.none() | st.builds(LaunchEnding, st.sampled_from([s for s in LaunchState if s.final]), st.just("X"))
ANY = st.builds(
    Facts,
    state=st.sampled_from(LaunchState),
    ending=ENDINGS,
    admitted=st.booleans(),
    prepared=st.booleans(),
    begun=st.booleans(),
    phase=st.none() | st.sampled_from(Phase),
    exit_code=st.none() | st.integers(-64, 255),
    said=st.sampled_from(["", "words"]),
    ready=st.sampled_from(Ready),
    on_device=st.sampled_from(OnDevice),
    device_lost=st.sampled_from(["", "gone"]),
    starting_for=st.floats(0, 2000),
    stopping_for=st.none() | st.floats(0, 2000),
    killed_for=st.none() | st.floats(0, 2000),
    same_boot=st.booleans(),
)


@settings(deadline=None)
@given(ANY)
def test_never_started_twice(facts: Facts) -> None:
    """Whatever else is known, what was begun is not begun again, and what is over is left alone."""
    do = decide(facts).do
    if facts.begun:
        assert do not in (Do.ADMIT, Do.PREPARE, Do.START, Do.FINISH)
    if facts.state.final:
        assert do is Do.WAIT


@settings(deadline=None)
@given(ANY)
def test_nothing_ends_on_ignorance(facts: Facts) -> None:
    """Where the launcher could not be asked, a launch that was begun is neither ended nor proved ended."""
    if facts.begun and facts.phase is None:
        assert decide(facts).do is Do.WAIT


@settings(deadline=None)
@given(ANY)
def test_an_end_is_told_only_without_a_process(facts: Facts) -> None:
    """A final state is never told of a launch whose tree the launcher sees running."""
    if facts.begun and facts.phase is Phase.RUNNING:
        assert decide(facts).do not in (Do.PROVE, Do.FINISH)


@settings(deadline=None)
@given(ANY, ENDINGS)
def test_the_first_ending_wins(facts: Facts, ending: LaunchEnding | None) -> None:
    """An ending that is decided is the one that is told, whatever happens after."""
    if ending is not None:
        step = decide(dataclasses.replace(facts, ending=ending))
        assert step.ending in (None, ending)
