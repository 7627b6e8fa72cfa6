"""What the server does not understand is refused, and all at once, the same over REST and over gRPC on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import pytest
from footlights.v1 import application_pb2, profile_pb2, session_pb2, token_pb2
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from grpc_status import rpc_status

from footlights import errors
from footlights.control.call import validate
from footlights.status import from_status
from tests.control.harness import Control, declared, problem

UNKNOWN = b"\xfa\x7f\x03abc"
"""Field 2047, as a newer client may send it."""

Send = Callable[[str, Message], Any]


@pytest.fixture
async def send(plane: Control) -> AsyncIterator[Send]:
    """Send a request over a socket: ``(method, message)``; raise the error that comes back."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(plane.plane.grpc_handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def sent(method: str, message: Message) -> bytes:
        call: Any = channel.unary_unary(f"/footlights.v1.{method}")
        try:
            return bytes(
                await call(message.SerializeToString(), metadata=(("authorization", f"Bearer {plane.admin}"),))
            )
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)
            assert status is not None
            raise declared(from_status(status)) from None

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield sent
    await server.stop(None)


def newer(message: Message) -> Any:
    """Return a message as a newer client sends it: with a field that this release does not know."""
    return type(message).FromString(message.SerializeToString() + UNKNOWN)


def applied(**nested: Any) -> application_pb2.ApplyApplicationRequest:
    request = application_pb2.ApplyApplicationRequest()
    request.application.application = "fake"
    request.versions.add(version="1.0.0").fake.SetInParent()
    request.versions.add(**({"version": "1.0.1"} | nested)).fake.SetInParent()
    return request


ARGUMENT = application_pb2.Argument(name="a", type=application_pb2.Argument.STRING)
FAKES: list[dict[str, Any]] = [{"version": "1.0.0", "fake": {}}, {"version": "1.0.1", "fake": {}}]
APPLY = "ApplicationService/ApplyApplication", "PUT", "/applications/fake"


@pytest.mark.parametrize(
    ("method", "over_grpc", "verb", "path", "options", "reason", "fields"),
    [
        ("StreamingService/CreateSession", newer(session_pb2.CreateSessionRequest(application="fake")),
         "POST", "/stream", {"json": {"application": "fake", "novel": True}}, "UNKNOWN_FIELD", ("2047", "novel")),
        ("StreamingService/ListSessions", newer(session_pb2.ListSessionsRequest()),
         "GET", "/stream", {"params": {"novel": "1"}}, "UNKNOWN_FIELD", ("2047", "novel")),
        ("ProfileService/SetProfile",
         profile_pb2.SetProfileRequest(profile=profile_pb2.Profile(profile="p", needs=newer(application_pb2.Needs()))),
         "PUT", "/profiles/p", {"json": {"needs": {"novel": 1}}}, "UNKNOWN_FIELD",
         ("profile.needs.2047", "profile.needs.novel")),
        (APPLY[0], applied(arguments=[newer(ARGUMENT)]), *APPLY[1:],
         {"json": {"application": {}, "versions": [FAKES[0], FAKES[1] | {"arguments": [{"name": "a", "novel": 1}]}]}},
         "UNKNOWN_FIELD", ("versions[1].arguments[0].2047", "versions[1].arguments[0].novel")),
        (APPLY[0], applied(arguments=[application_pb2.Argument(name="a", type=99)]), *APPLY[1:],  # type: ignore[arg-type]
         {"json": {"application": {},
                   "versions": [FAKES[0], FAKES[1] | {"arguments": [{"name": "a", "type": "NOVEL"}]}]}},
         "UNKNOWN_VALUE", ("versions[1].arguments[0].type", "versions[1].arguments[0].type")),
        ("TokenService/CreateToken", token_pb2.CreateTokenRequest(subject="a", role=99),  # type: ignore[arg-type]
         "POST", "/tokens", {"json": {"subject": "a", "role": "NOVEL"}}, "UNKNOWN_VALUE", ("role", "role")),
        ("TokenService/CreateToken", token_pb2.CreateTokenRequest(subject="a", role=99),  # type: ignore[arg-type]
         "POST", "/tokens", {"json": {"subject": "a", "role": 99}}, "UNKNOWN_VALUE", ("role", "role")),
        ("StreamingService/ListSessions", session_pb2.ListSessionsRequest(state=[99]),  # type: ignore[list-item]
         "GET", "/stream", {"params": {"state": "NOVEL"}}, "UNKNOWN_VALUE", ("state", "state")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_is_not_known_is_refused_over_both_wires(
    plane: Control, send: Send, method: str, over_grpc: Message, verb: str, path: str, options: dict[str, Any],
    reason: str, fields: tuple[str, str],
) -> None:  # fmt: skip
    """The same code and reason; over gRPC a field has no name, so it is named by its number."""
    with pytest.raises(errors.InvalidArgument) as caught:
        await send(method, over_grpc)
    over_rest = await plane.rest(verb, path, **options)

    told = problem(over_rest)
    assert (caught.value.reason, caught.value.field) == (reason, fields[0])
    assert (over_rest.status_code, told["reason"], told["field"]) == (400, reason, fields[1])
    assert (await plane.rest("GET", "/stream")).json()["items"] == []


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (session_pb2.Session(routes={"80": newer(session_pb2.Session.Routes())}), "routes[80].2047"),
        (session_pb2.Session(queue=newer(session_pb2.Session().queue)), "queue.2047"),
    ],
    ids=str,
)
def test_an_unknown_field_is_found_wherever_it_is(message: Message, field: str) -> None:
    """Also in the values of a map."""
    with pytest.raises(errors.InvalidArgument) as caught:
        validate.checker(message.DESCRIPTOR)(message)

    assert field in [violation.field for violation in caught.value.violations]


def test_what_may_hold_anything_holds_anything() -> None:
    """A Struct is open."""
    arguments = Struct()
    arguments.update({"any": {"thing": [1]}})
    request = session_pb2.CreateSessionRequest(application="fake", application_arguments=newer(arguments))

    validate.checker(request.DESCRIPTOR)(request)


async def test_agents_and_replicas_may_be_newer(plane: Control) -> None:
    """All other requests are strict."""
    lenient = set()
    for rpc in plane.plane.registry.rpcs.values():
        try:
            rpc.check(rpc.request_type.FromString(UNKNOWN))
        except errors.InvalidArgument as error:
            if "UNKNOWN_FIELD" in [violation.reason for violation in error.violations]:
                continue
        lenient.add(rpc.service.rpartition(".")[2])

    assert lenient == {"AgentService", "CertificateService", "ReplicaService"}


async def test_an_rpc_of_a_newer_release_is_refused_with_a_reason(send: Send) -> None:
    """Whether its service is known or not."""
    for method in ("StreamingService/Novel", "NovelService/Get"):
        with pytest.raises(errors.Unimplemented) as caught:
            await send(method, session_pb2.GetSessionRequest())

        assert (caught.value.reason, method in caught.value.message) == ("UNIMPLEMENTED", True)


async def test_a_request_is_refused_with_all_that_is_wrong(plane: Control, send: Send) -> None:
    """Every violation, in the same words over both wires; the reason is that of the first."""
    request = session_pb2.CreateSessionRequest(
        priority=101, request_id="r" * 129, labels={str(n): "" for n in range(33)}
    )
    body = {"priority": 101, "request_id": "r" * 129, "labels": {str(n): "" for n in range(33)}}

    with pytest.raises(errors.InvalidArgument) as caught:
        await send("StreamingService/CreateSession", request)
    over_rest = (await plane.rest("POST", "/stream", json=body)).json()

    (listed,) = [detail["field_violations"] for detail in over_rest["details"] if "field_violations" in detail]
    assert [(each["field"], each["description"], each["reason"]) for each in listed] == list(caught.value.violations)
    assert {violation.field: violation.reason for violation in caught.value.violations} == {
        "application": "FIELD_REQUIRED",
        "priority": "OUT_OF_RANGE",
        "request_id": "TOO_LONG",
        "labels": "TOO_MANY",
    }
    assert over_rest["message"] == caught.value.message
    assert caught.value.reason == caught.value.violations[0].reason


async def test_all_arguments_and_all_of_a_recipe_are_checked_at_once(plane: Control, send: Send) -> None:
    """What handlers check beyond the rules: a session's arguments, and the versions of an application."""
    await plane.apply()
    arguments = Struct()
    arguments.update({"novel": 1, "usd_stage_uri": 5})
    request = session_pb2.CreateSessionRequest(application="fake", application_arguments=arguments)
    with pytest.raises(errors.InvalidArgument) as of_session:
        await send("StreamingService/CreateSession", request)

    wrong = applied(version="x", working_directory="not absolute")
    with pytest.raises(errors.InvalidArgument) as of_recipe:
        await send("ApplicationService/ApplyApplication", wrong)

    assert [violation.field for violation in of_session.value.violations] == [
        "application_arguments.novel", "application_arguments.usd_stage_uri",
    ]  # fmt: skip
    assert [violation.field for violation in of_recipe.value.violations] == [
        "versions[1].version", "versions[1].working_directory",
    ]  # fmt: skip
