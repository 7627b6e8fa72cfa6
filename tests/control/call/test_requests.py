"""Every parameter, default and bound of StreamingService, the same over REST and in process.

Covers ``call.bounds``, ``sessions.request_checks`` and ``sessions.service``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from footlights.v1 import application_pb2, session_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from footlights import errors
from footlights.store import Transaction
from footlights.store.cluster.revisions import last_revision
from footlights.store.sessions.listing import Filter, Order
from tests.control.harness import Control, problem, seconds, version
from tests.store import lists

UNKNOWN = "01890000-0000-7000-8000-000000000000"
Create = session_pb2.CreateSessionRequest
List = session_pb2.ListSessionsRequest


def struct(**members: Any) -> Struct:
    made = Struct()
    made.update(members)
    return made


@dataclass
class Wrong:
    """One request that is refused: as gRPC and as REST, and what is answered to both."""

    rpc: str
    request: Message
    method: str
    path: str
    code: int
    http: int
    field: str
    says: str
    reason: str = ""
    params: dict[str, str] = dataclasses.field(default_factory=dict)
    body: Any = None

    def __str__(self) -> str:
        return f"{self.rpc}-{self.field}-{str(self.request)[:40].strip()}"


def listing_(request: List, params: dict[str, str], field: str, says: str, reason: str = "") -> Wrong:
    return Wrong("ListSessions", request, "GET", "/stream", 3, 400, field, says, reason, params)


def creating(
    request: Create, body: Any, field: str, says: str, reason: str = "", code: int = 3, http: int = 400
) -> Wrong:
    return Wrong("CreateSession", request, "POST", "/stream", code, http, field, says, reason, {}, body)


WRONG = [
    listing_(List(limit=0), {"limit": "0"}, "limit", "must be at least 1 (got 0)", "OUT_OF_RANGE"),
    listing_(List(limit=-5), {"limit": "-5"}, "limit", "must be at least 1 (got -5)", "OUT_OF_RANGE"),
    listing_(List(offset=-1), {"offset": "-1"}, "offset", "must be at least 0 (got -1)", "OUT_OF_RANGE"),
    listing_(List(offset=100001), {"offset": "100001"}, "offset",
             "must be at most 100000 (got 100001)", "OUT_OF_RANGE"),
    listing_(List(sort_by="color"), {"sort-by": "color"}, "sort-by", "unknown value 'color'; choose from "
             "created_time, username", "NOT_ALLOWED"),
    listing_(List(order="asc"), {"order": "asc"}, "order", "unknown value 'asc'; choose from ASC, DESC"),
    listing_(List(page_token="x"), {"page_token": "x"}, "page_token", "is not a page token of this list"),
    listing_(List(page_token="x", offset=5), {"page_token": "x", "offset": "5"}, "page_token", "offset=5"),
    listing_(List(username="u" * 257), {"username": "u" * 257}, "username", "has 257 characters", "TOO_LONG"),
    listing_(List(username="a\0b"), {"username": "a\0b"}, "username", "NUL"),
    listing_(List(application="a" * 64), {"application": "a" * 64}, "application", "has 64 characters", "TOO_LONG"),
    creating(Create(), {}, "application", "is required.", "FIELD_REQUIRED"),
    creating(Create(application=""), {"application": ""}, "application", "is required", "FIELD_REQUIRED"),
    creating(Create(application="nope"), {"application": "nope"}, "application", "no application 'nope'. Known: fake",
             "APPLICATION_NOT_FOUND", 5, 404),
    creating(Create(application="fake", application_version="9.9.9"),
             {"application": "fake", "application_version": "9.9.9"}, "application_version",
             "'9.9.9'. Known: default (a release), 1.0.0", "VERSION_NOT_FOUND", 5, 404),
    creating(Create(application="fake", profile="nope"), {"application": "fake", "profile": "nope"}, "profile",
             "no profile 'nope'", "PROFILE_NOT_FOUND", 5, 404),
    creating(Create(application="fake", application_arguments=struct(color="red")),
             {"application": "fake", "application_arguments": {"color": "red"}}, "application_arguments.color",
             "declares no such argument", "ARGUMENT_UNKNOWN"),
    creating(Create(application="fake", application_arguments=struct(usd_stage_uri=5)),
             {"application": "fake", "application_arguments": {"usd_stage_uri": 5}},
             "application_arguments.usd_stage_uri", "5 is not text"),
    creating(Create(application="fake", application_arguments=struct(nucleus_connection_config="x")),
             {"application": "fake", "application_arguments": {"nucleus_connection_config": "x"}},
             "application_arguments.nucleus_connection_config", "not a list of objects"),
    creating(Create(application="fake", max_duration=Duration()), {"application": "fake", "max_duration": "0s"},
             "max_duration", "must be more than 0s (got 0s)"),
    creating(Create(application="fake", max_duration=seconds(40_000_000)),
             {"application": "fake", "max_duration": "40000000s"}, "max_duration",
             "must be at most 31622400s (got 40000000s)"),
    creating(Create(application="fake", idle_timeout=Duration(seconds=-1)),
             {"application": "fake", "idle_timeout": "-1s"}, "idle_timeout", "must be more than 0s (got -1s)"),
    creating(Create(application="fake", priority=101), {"application": "fake", "priority": 101}, "priority",
             "must be at most 100 (got 101)", "OUT_OF_RANGE"),
    creating(Create(application="fake", priority=-101), {"application": "fake", "priority": -101}, "priority",
             "must be at least -100 (got -101)", "OUT_OF_RANGE"),
    creating(Create(application="fake", request_id="r" * 129), {"application": "fake", "request_id": "r" * 129},
             "request_id", "has 129 characters. Give at most 128", "TOO_LONG"),
    creating(Create(application="fake", labels={"": "x"}), {"application": "fake", "labels": {"": "x"}}, "labels",
             "'' is too long or empty"),
    creating(Create(application="fake", labels={"k": "v" * 257}), {"application": "fake", "labels": {"k": "v" * 257}},
             "labels", "'k' is too long or empty"),
    creating(Create(application="fake", labels={str(n): "" for n in range(33)}),
             {"application": "fake", "labels": {str(n): "" for n in range(33)}}, "labels", "has 33 items", "TOO_MANY"),
    creating(Create(application="fake", labels={"k": "a\0b"}), {"application": "fake", "labels": {"k": "a\0b"}},
             "labels", "NUL"),
    Wrong("GetSession", session_pb2.GetSessionRequest(session_id=UNKNOWN), "GET", f"/stream/{UNKNOWN}", 5, 404,
          "session_id", f"no session '{UNKNOWN}'", "SESSION_NOT_FOUND"),
    Wrong("GetSession", session_pb2.GetSessionRequest(session_id="x' OR 1"), "GET", "/stream/x'%20OR%201", 5, 404,
          "session_id", "List yours with GET /v1/sessions", "SESSION_NOT_FOUND"),
    Wrong("TerminateSession", session_pb2.TerminateSessionRequest(session_id=UNKNOWN), "DELETE", f"/stream/{UNKNOWN}",
          5, 404, "session_id", "no session", "SESSION_NOT_FOUND"),
    Wrong("TerminateSession", session_pb2.TerminateSessionRequest(), "DELETE", "/stream", 3, 400, "session_id",
          "is required", "FIELD_REQUIRED", body={}),
    Wrong("ConnectSession", session_pb2.ConnectSessionRequest(session_id=UNKNOWN), "POST",
          f"/stream/{UNKNOWN}:connect", 5, 404, "session_id", "no session", "SESSION_NOT_FOUND", body={}),
    Wrong("ExtendSession", session_pb2.ExtendSessionRequest(session_id=UNKNOWN, extend_by=seconds(60)), "POST",
          f"/stream/{UNKNOWN}:extend", 5, 404, "session_id", "no session", "SESSION_NOT_FOUND",
          body={"extend_by": "60s"}),
    Wrong("ExtendSession", session_pb2.ExtendSessionRequest(session_id=UNKNOWN), "POST", f"/stream/{UNKNOWN}:extend",
          3, 400, "extend_by", "is required", "FIELD_REQUIRED", body={}),
    Wrong("GetSessionLog", session_pb2.GetSessionLogRequest(session_id=UNKNOWN, tail_lines=0), "GET",
          f"/stream/{UNKNOWN}/log", 3, 400, "tail_lines", "must be at least 1 (got 0)", "OUT_OF_RANGE",
          {"tail_lines": "0"}),
    Wrong("ExplainPlacement", session_pb2.ExplainPlacementRequest(), "POST", "/stream:explain", 3, 400,
          "application", "is required", "FIELD_REQUIRED", body={}),
    Wrong("ExplainPlacement", session_pb2.ExplainPlacementRequest(application="nope"), "POST", "/stream:explain", 5,
          404, "application", "no application 'nope'", "APPLICATION_NOT_FOUND", body={"application": "nope"}),
]  # fmt: skip


async def _all(plane: Control) -> tuple[int, int]:
    def read(tx: Transaction) -> tuple[int, int]:
        states = ("PENDING", "STARTING", "READY", "ACTIVE", "TERMINATING", "TERMINATED", "FAILED")
        return last_revision(tx), lists.page(tx, Filter(states=states), Order(), limit=1).count

    return await plane.store.read(read)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_wrong_request_is_refused_the_same_both_ways_and_changes_nothing(plane: Control, wrong: Wrong) -> None:
    """The right status, a reason for programs, and a message that names the field, the value and the fix."""
    before = await _all(plane)

    options: dict[str, Any] = {"params": wrong.params} if wrong.params else {}
    if wrong.body is not None:
        options["json"] = wrong.body
    over_rest = await plane.rest(wrong.method, wrong.path, **options)
    with pytest.raises(errors.Error) as over_grpc:
        await plane.call(f"StreamingService.{wrong.rpc}", wrong.request)

    told = problem(over_rest)
    assert (over_rest.status_code, told["code"]) == (wrong.http, wrong.code)
    assert over_grpc.value.code == wrong.code
    assert wrong.says in told["message"]
    assert told["message"] == over_grpc.value.message
    assert told["reason"] == over_grpc.value.reason
    assert told["metadata"]["field"] == over_grpc.value.metadata["field"] == wrong.field
    if wrong.code == 3:
        assert told["field"] == wrong.field
    if wrong.reason:
        assert told["reason"] == wrong.reason
    assert await _all(plane) == before


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        (List(state=[99]), "state", "unknown value 99; choose from PENDING, STARTING"),  # type: ignore[list-item]
        (List(from_time=Timestamp(seconds=10**15)), "from_time", "are not a valid timestamp"),
        (List(to_time=Timestamp(seconds=1, nanos=-1)), "to_time", "are not a valid timestamp"),
    ],
)
async def test_values_that_only_grpc_can_send_are_refused_too(
    plane: Control, request_: Message, field: str, says: str
) -> None:
    """Open enums and raw times: what JSON's reader would have refused."""
    with pytest.raises(errors.InvalidArgument) as caught:
        await plane.call("StreamingService.ListSessions", request_)

    assert caught.value.field == field
    assert says in caught.value.message


@pytest.mark.parametrize(
    "span",
    [
        Duration(seconds=10**18),
        Duration(seconds=-(10**18)),
        Duration(seconds=1, nanos=-5),
        Duration(seconds=-1, nanos=5),
        Duration(seconds=1, nanos=2 * 10**9),
    ],
)
async def test_a_span_that_is_none_is_refused_before_it_is_kept(plane: Control, span: Duration) -> None:
    """Kept, it would make every later list over REST fail."""
    for name in ("max_duration", "idle_timeout"):
        members: dict[str, Any] = {name: span}
        with pytest.raises(errors.InvalidArgument) as caught:
            await plane.create(**members)
        assert caught.value.field == name

    assert (await plane.rest("GET", "/stream")).json()["items"] == []


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ({"content": b"{"}, 400, ""),
        ({"content": b"[]"}, 400, ""),
        ({"content": b"\xff"}, 400, ""),
        ({"json": {"application": "fake", "colour": "red"}}, 400, ""),
        ({"json": {"application": 5}}, 400, ""),
        ({"json": {"application": "fake", "max_duration": "5 minutes"}}, 400, ""),
    ],
)
async def test_a_bad_body_is_refused(plane: Control, options: dict[str, Any], code: int, reason: str) -> None:
    """What cannot be read never reaches a servicer."""
    before = await _all(plane)

    answer = await plane.rest("POST", "/stream", **options)

    assert answer.status_code == code
    assert problem(answer)["code"] == 3
    assert problem(answer)["reason"]
    assert await _all(plane) == before


@pytest.mark.parametrize("params", [{"from_time": "yesterday"}, {"state": "RUNNING"}, {"limit": "many"}, {"x": "1"}])
async def test_a_bad_query_is_refused(plane: Control, params: dict[str, str]) -> None:
    """Unknown members, enum names and forms are refused, in our words."""
    answer = await plane.rest("GET", "/stream", params=params)

    assert answer.status_code == 400
    assert next(iter(params)) in problem(answer)["message"]


# Defaults


async def test_a_list_says_which_bounds_it_applied(plane: Control) -> None:
    """Defaults, echoes, and the limit lowered to 1000, the same both ways."""
    cases: list[tuple[dict[str, Any], int, int]] = [
        ({}, 50, 0),
        ({"limit": 5000, "offset": 3}, 1000, 3),
        ({"limit": 1}, 1, 0),
    ]
    for params, limit, offset in cases:
        over_rest = (await plane.rest("GET", "/stream", params=params)).json()
        over_grpc = await plane.call("StreamingService.ListSessions", List(**params))
        assert (over_rest["limit"], over_rest["offset"]) == (over_grpc.limit, over_grpc.offset) == (limit, offset)
        assert (over_rest["items"], over_rest["count"], over_rest["count_is_capped"]) == ([], 0, False)
        assert over_rest["next_page_token"] == ""


async def test_a_session_is_created_with_the_published_defaults(plane: Control) -> None:
    """Version ``default``, the two published arguments, the caller's own name, 202 and a Location."""
    answer = await plane.rest("POST", "/stream", json={"application": "fake"})

    session = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/stream/{session['session_id']}"
    assert (session["application"], session["application_version"]) == ("fake", "1.0.0")
    assert session["application_arguments"] == {"usd_stage_uri": "", "nucleus_connection_config": []}
    assert (session["username"], session["state"], session["condition"]) == ("admin", "PENDING", "OK")
    assert session["created_time"] == "2026-03-01T12:00:00Z"
    assert session["priority"] == 0
    assert [step["stage"] for step in session["timeline"]] == ["QUEUED"]
    over_grpc = await plane.get(session["session_id"])
    assert over_grpc.session_id == session["session_id"]
    assert over_grpc.revision == int(session["revision"])


async def test_the_status_says_whether_a_session_is_ready(plane: Control) -> None:
    """202 while pending or starting; 200 after, also when it has ended."""
    agent = await plane.agent()
    created = await plane.create()
    path = f"/stream/{created.session_id}"

    codes = [(await plane.rest("GET", path)).status_code]
    await plane.place()
    codes.append((await plane.rest("GET", path)).status_code)
    assignment = await agent.ready(created.session_id)
    codes.append((await plane.rest("GET", path)).status_code)
    await agent.report(assignment, "EXITED", exit_code=3)
    codes.append((await plane.rest("GET", path)).status_code)

    assert codes == [202, 202, 200, 200]


@pytest.mark.parametrize("way", ["path", "body"])
async def test_terminating_answers_as_published_and_twice_the_same(plane: Control, way: str) -> None:
    """Both spellings of the member, by path and by the published body."""
    created = await plane.create()
    options: dict[str, Any] = {"json": {"session_id": created.session_id}} if way == "body" else {}
    path = "/stream" if way == "body" else f"/stream/{created.session_id}"

    first = await plane.rest("DELETE", path, **options)
    second = await plane.rest("DELETE", path, **options)

    assert first.status_code == 200
    assert first.json() == {"session_id": created.session_id, "status": "deleted", "satus": "deleted"}
    assert (second.status_code, second.json()) == (200, first.json())


# Lists


async def test_a_list_is_filtered_sorted_and_paged(plane: Control) -> None:
    """Every published parameter and ours, over REST as over gRPC."""
    await plane.apply(version(), application="other")
    made = {}
    for name, username, application in (("a", "zoe", "fake"), ("b", "ann", "other"), ("c", "bob", "fake")):
        made[(await plane.create(username=username, application=application)).session_id] = name
        plane.clock.pass_s(60)
    [gone] = [session_id for session_id, name in made.items() if name == "c"]
    await plane.terminate(gone)

    async def names(**params: Any) -> str:
        over_rest = (await plane.rest("GET", "/stream", params=params)).json()
        found = "".join(made[item["session_id"]] for item in over_rest["items"])
        assert over_rest["count"] >= len(found)
        return found

    assert await names() == "ab"
    assert await names(order="DESC") == "ba"
    assert await names(**{"sort-by": "username"}) == "ba"
    assert await names(**{"sort-by": "username", "order": "DESC"}) == "ab"
    assert await names(state="TERMINATED") == "c"
    assert await names(state=["PENDING", "TERMINATED"]) == "abc"
    assert await names(username="ann") == "b"
    assert await names(application="fake") == "a"
    assert await names(from_time="2026-03-01T12:01:00Z") == "b"
    assert await names(to_time="2026-03-01T12:01:00Z") == "a"
    assert await names(from_time="2026-03-01T13:01:00+01:00", to_time="2026-03-01T12:02:00Z") == "b"
    assert await names(limit=1) == "a"
    assert await names(limit=1, offset=1) == "b"
    first = (await plane.rest("GET", "/stream", params={"limit": 1})).json()
    assert await names(limit=1, page_token=first["next_page_token"]) == "b"
    assert (await plane.call("StreamingService.ListSessions", List(limit=1))).next_page_token


async def test_arguments_have_the_types_that_the_version_declares(plane: Control) -> None:
    """A Struct turns 5 into 5.0: it is 5 again; a fraction for an integer is refused."""
    argument = application_pb2.Argument
    await plane.apply(
        version(
            "2.0.0",
            arguments=[
                argument(name="count", type=argument.INTEGER),
                argument(name="ratio", type=argument.NUMBER),
                argument(name="on", type=argument.BOOLEAN),
            ],
        )
    )
    given = {"count": 5, "ratio": 0.5, "on": True}

    answer = await plane.rest("POST", "/stream", json={"application": "fake", "application_arguments": given})
    refused = await plane.rest("POST", "/stream", json={"application": "fake", "application_arguments": {"count": 5.5}})

    shown = answer.json()["application_arguments"]
    assert {name: shown[name] for name in given} == given
    assert '"count":5.0' not in answer.text.replace(" ", "")
    assert problem(refused)["field"] == "application_arguments.count"
    assert "5.5 is not a whole number" in problem(refused)["message"]
