"""The states (`states`) have the names that the API gives them."""

from __future__ import annotations

import enum

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import session_pb2
from google.protobuf.descriptor import EnumDescriptor

from footlights.lifecycle import LIVE_STATES, Condition, Desired, EndReason, LaunchState, SessionState, Stage


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SessionState, session_pb2.Session.State.DESCRIPTOR),
        (EndReason, session_pb2.Session.EndReason.DESCRIPTOR),
        (Stage, session_pb2.Session.Milestone.Stage.DESCRIPTOR),
        (LaunchState, agent_pb2.LaunchReport.State.DESCRIPTOR),
        (Condition, session_pb2.Session.Condition.DESCRIPTOR),
        (Desired, agent_pb2.Assignment.Desired.DESCRIPTOR),
    ],
)
def test_every_value_of_the_api_is_a_state_here_and_the_other_way_round(
    ours: type[enum.StrEnum], theirs: EnumDescriptor
) -> None:
    """A session can never be stored in a state that the API cannot say, nor miss one that it can."""
    assert [member.name for member in ours] == [value.name for value in theirs.values if value.number != 0]
    assert all(member.value == member.name for member in ours)


def test_a_session_is_alive_in_every_state_but_the_two_in_which_it_has_ended() -> None:
    """LIVE_STATES and ``ended`` are two sides of one thing."""
    assert {state for state in SessionState if state.ended} == {SessionState.TERMINATED, SessionState.FAILED}
    assert set(LIVE_STATES) == set(SessionState) - {SessionState.TERMINATED, SessionState.FAILED}


def test_every_end_reason_says_in_which_state_a_session_ends() -> None:
    """What was asked for or agreed terminates; what went wrong fails."""
    failures = {reason for reason in EndReason if reason.state is SessionState.FAILED}

    assert failures == {
        EndReason.CRASHED,
        EndReason.LAUNCH_FAILED,
        EndReason.START_TIMEOUT,
        EndReason.QUEUE_TIMEOUT,
        EndReason.NODE_LOST,
        EndReason.GPU_LOST,
        EndReason.WRONG_DEVICE,
        EndReason.UNRESPONSIVE,
        EndReason.NODE_FAILED,
    }
    assert all(reason.state is SessionState.TERMINATED for reason in set(EndReason) - failures)


def test_a_session_has_no_picture_yet_has_one_or_had_one() -> None:
    """In each state exactly one of the three, in this order."""
    told = [(state.awaits_picture, state.has_picture, state.is_over) for state in SessionState]

    assert told == [(True, False, False)] * 2 + [(False, True, False)] * 2 + [(False, False, True)] * 3
