"""Requests against the rules that stand in their descriptors."""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1 import application_pb2, profile_pb2, session_pb2, token_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from footlights.control.call import validate
from footlights.errors import InvalidArgument

List = session_pb2.ListSessionsRequest
Version = application_pb2.Version
Apply = application_pb2.ApplyApplicationRequest
GPU_ONLY = profile_pb2.Profile(profile="a", needs=application_pb2.Needs(gpu=True))


@pytest.mark.parametrize(
    ("request_", "filled"),
    [
        (List(), List(limit=50, offset=0, sort_by="created_time", order="ASC")),
        (List(limit=1001), List(limit=1000, offset=0, sort_by="created_time", order="ASC")),
        (session_pb2.GetSessionLogRequest(session_id="a"),
         session_pb2.GetSessionLogRequest(session_id="a", tail_lines=200)),
        (session_pb2.TailSessionLogRequest(session_id="a", tail_lines=0),
         session_pb2.TailSessionLogRequest(session_id="a", tail_lines=0)),
        (profile_pb2.SetProfileRequest(profile=GPU_ONLY), profile_pb2.SetProfileRequest(profile=GPU_ONLY)),
    ],
    ids=str,
)  # fmt: skip
def test_a_request_is_filled_with_its_defaults(request_: Message, filled: Message) -> None:
    """What is absent, where a default stands; what may be lowered is lowered; a resource inside is left alone."""
    validate.checker(request_.DESCRIPTOR)(request_)

    assert request_ == filled


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Apply(), "application"),
        (Apply(application=application_pb2.Application()), "application.application"),
        (Apply(application=application_pb2.Application(application="a", tags=["t"] * 33)), "application.tags"),
        (Apply(application=application_pb2.Application(application="a"), versions=[Version()]),
         "versions[0].version"),
        (Apply(application=application_pb2.Application(application="a"),
               versions=[Version(version="1.0.0", needs=application_pb2.Needs(slots=-1))]), "versions[0].needs.slots"),
        (Apply(application=application_pb2.Application(application="a"),
               versions=[Version(version="1.0.0", arguments=[application_pb2.Argument(name="a", type=99)])]),  # type: ignore[arg-type]
         "versions[0].arguments[0].type"),
        (Apply(application=application_pb2.Application(application="a"),
               versions=[Version(version="1.0.0", command=["x", "a\0"])]), "versions[0].command"),
        (Apply(application=application_pb2.Application(application="a"), releases={"a\0": "1"}), "releases"),
        (Apply(application=application_pb2.Application(application="a"),
               releases={str(n): "1" for n in range(101)}), "releases"),
        (token_pb2.CreateTokenRequest(subject="a"), "role"),
        (List(sort_by="x"), "sort-by"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named_by_its_path(request_: Message, field: str) -> None:
    """As the client wrote it: published names, indexes of items."""
    with pytest.raises(InvalidArgument) as caught:
        validate.checker(request_.DESCRIPTOR)(request_)

    assert caught.value.field == field
    assert caught.value.metadata["field"] == field


parts = {"seconds": st.integers(-(2**63), 2**63 - 1), "nanos": st.integers(-(2**31), 2**31 - 1)}


@given(st.builds(Duration, **parts) | st.builds(Duration, seconds=st.integers(-5, 5), nanos=st.integers(-3, 3)))
@settings(deadline=None)
def test_a_duration_passes_exactly_if_protobuf_can_write_it(span: Duration) -> None:
    """What JSON could not say must never be kept."""
    _passes_if_writable(session_pb2.CreateSessionRequest(application="a", max_duration=span), span)


@given(st.builds(Timestamp, **parts) | st.builds(Timestamp, seconds=st.integers(-5, 5), nanos=st.integers(-3, 3)))
@settings(deadline=None)
def test_a_timestamp_passes_exactly_if_protobuf_can_write_it(moment: Timestamp) -> None:
    """The years 1 to 9999."""
    _passes_if_writable(List(from_time=moment), moment)


def _passes_if_writable(request: Message, value: Any) -> None:
    try:
        value.ToJsonString()
        writable = True
    except ValueError:
        writable = False
    try:
        validate.checker(request.DESCRIPTOR)(request)
        passed = True
    except InvalidArgument:
        passed = False
    assert passed == writable
