"""What every write keeps to: request ids, ``validate_only``, etags. The cases are made from the descriptors.

Covers ``writes``, ``etags``, ``streams`` and ``call.idempotency_key``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from footlights.http.v1.annotations_pb2 import reply
from footlights.ovc.v2 import application_streaming_pb2 as ovc_pb2
from footlights.v1 import (
    application_pb2,
    enrollment_pb2,
    node_pb2,
    pool_pb2,
    profile_pb2,
    session_pb2,
    token_pb2,
    viewer_pb2,
)
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from sqlalchemy import event, select

from footlights import errors
from footlights.control.assembly import REST_SERVICES
from footlights.control.services import etags
from footlights.gateway.upstream import OutgoingCall, UpstreamError
from footlights.redaction import redact
from footlights.status import from_status
from footlights.store import Transaction
from footlights.store.schema import REMEMBERED_CALL, metadata
from footlights.store.sessions import session_rows, viewers
from tests.control.harness import Control, problem, seconds, version

METHODS: dict[str, MethodDescriptor] = {
    f"{method.containing_service.name}.{method.name}": method
    for service in REST_SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
    if not method.client_streaming
}
KEYED = [name for name, method in METHODS.items() if "request_id" in method.input_type.fields_by_name]
VALIDATED = [name for name, method in METHODS.items() if "validate_only" in method.input_type.fields_by_name]
CONDITIONAL = [name for name, method in METHODS.items() if "etag" in method.input_type.fields_by_name]
BODIES = {
    name: field.name
    for name in CONDITIONAL
    for field in METHODS[name].input_type.fields
    if field.message_type is not None and "etag" in field.message_type.fields_by_name
}
"""The writes whose request has a resource with an etag, and the name of that member."""


SECRETS = {"code", "secret"}
"""Members of answers that nothing may keep."""


class World:
    """A control plane with one of everything, and its ids."""

    def __init__(self, plane: Control, session_id: str, token_id: str) -> None:
        self.plane, self.session_id, self.token_id = plane, session_id, token_id


@pytest.fixture
async def world(plane: Control) -> World:
    """One application with versions and releases, a profile, a node that is gone, a token, and a session that waits."""
    limits = application_pb2.Limits(max_duration=seconds(600))
    await plane.apply(version(), version("2.0.0"), version("3.0.0", limits=limits), releases={"old": "1.0.0"})
    profile = profile_pb2.Profile(profile="small", description="Small.")
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await plane.call(
        "ApplicationService.ApplyApplication",
        application_pb2.ApplyApplicationRequest(application=application_pb2.Application(application="other")),
    )
    await plane.call("PoolService.SetPool", pool_pb2.SetPoolRequest(pool=_pool(1)))
    agent = await plane.agent("node-a")
    await agent.close()
    await plane.unlinked()
    made = await plane.create(application_version="3.0.0", max_duration=seconds(60))
    token = await plane.call(
        "TokenService.CreateToken", token_pb2.CreateTokenRequest(role=token_pb2.Token.DEVELOPER, subject="x")
    )
    now = plane.clock()

    def look(tx: Transaction) -> None:
        viewers.connect(tx, made.session_id, "v1", subject="x", connection="/whep/1", now=now)

    await plane.store.write(look)
    return World(plane, made.session_id, token.token.token_id)


Make = Callable[[World], Message]

MASK = FieldMask(paths=["labels"])
SAMPLES: dict[str, tuple[Make, Make]] = {
    "TokenService.CreateToken": (
        lambda _: token_pb2.CreateTokenRequest(role=token_pb2.Token.DEVELOPER, subject="new"),
        lambda _: token_pb2.CreateTokenRequest(role=token_pb2.Token.OPERATOR, subject="new"),
    ),
    "TokenService.RevokeToken": (
        lambda world: token_pb2.RevokeTokenRequest(token_id=world.token_id),
        lambda _: token_pb2.RevokeTokenRequest(token_id="another"),
    ),
    "EnrollmentService.InviteNode": (
        lambda _: enrollment_pb2.InviteNodeRequest(node="node-b"),
        lambda _: enrollment_pb2.InviteNodeRequest(node="node-c"),
    ),
    "EnrollmentService.RevokeNode": (
        lambda _: enrollment_pb2.RevokeNodeRequest(node="node-a"),
        lambda _: enrollment_pb2.RevokeNodeRequest(node="node-b"),
    ),
    "EnrollmentService.RotateAuthority": (
        lambda _: enrollment_pb2.RotateAuthorityRequest(),
        lambda _: enrollment_pb2.RotateAuthorityRequest(ttl=seconds(100 * 86400)),
    ),
    "EnrollmentService.RetireAuthorities": (
        lambda _: enrollment_pb2.RetireAuthoritiesRequest(),
        lambda _: enrollment_pb2.RetireAuthoritiesRequest(force=True),
    ),
    "NodeService.CordonNode": (
        lambda _: node_pb2.CordonNodeRequest(node="node-a", message="new memory"),
        lambda _: node_pb2.CordonNodeRequest(node="node-a"),
    ),
    "NodeService.UncordonNode": (
        lambda _: node_pb2.UncordonNodeRequest(node="node-a"),
        lambda _: node_pb2.UncordonNodeRequest(node="node-b"),
    ),
    "NodeService.AcceptNode": (
        lambda _: node_pb2.AcceptNodeRequest(node="node-a"),
        lambda _: node_pb2.AcceptNodeRequest(node="node-b"),
    ),
    "NodeService.DrainNode": (
        lambda _: node_pb2.DrainNodeRequest(node="node-a", drain_timeout=seconds(60)),
        lambda _: node_pb2.DrainNodeRequest(node="node-a"),
    ),
    "NodeService.UpdateNode": (
        lambda _: node_pb2.UpdateNodeRequest(node=_cordoned("node-a")),
        lambda _: node_pb2.UpdateNodeRequest(node=_cordoned("node-b")),
    ),
    "NodeService.ForgetNode": (
        lambda _: node_pb2.ForgetNodeRequest(node="node-a"),
        lambda _: node_pb2.ForgetNodeRequest(node="node-b"),
    ),
    "ProfileService.SetProfile": (
        lambda _: profile_pb2.SetProfileRequest(profile=_profile("Other.")),
        lambda _: profile_pb2.SetProfileRequest(profile=_profile("Another.")),
    ),
    "ProfileService.UpdateProfile": (
        lambda _: profile_pb2.UpdateProfileRequest(profile=_profile("Other.")),
        lambda _: profile_pb2.UpdateProfileRequest(profile=_profile("Another.")),
    ),
    "ProfileService.DeleteProfile": (
        lambda _: profile_pb2.DeleteProfileRequest(profile="small"),
        lambda _: profile_pb2.DeleteProfileRequest(profile="large"),
    ),
    "PoolService.SetPool": (
        lambda _: pool_pb2.SetPoolRequest(pool=_pool(2)),
        lambda _: pool_pb2.SetPoolRequest(pool=_pool(3)),
    ),
    "PoolService.DeletePool": (
        lambda _: pool_pb2.DeletePoolRequest(pool="warm"),
        lambda _: pool_pb2.DeletePoolRequest(pool="cold"),
    ),
    "ApplicationService.ApplyApplication": (
        lambda _: application_pb2.ApplyApplicationRequest(
            application=application_pb2.Application(application="fake", description="Other."),
            versions=[version("4.0.0")],
            releases={"default": "4.0.0"},
        ),
        lambda _: application_pb2.ApplyApplicationRequest(
            application=application_pb2.Application(application="fake", description="Another.")
        ),
    ),
    "ApplicationService.DeleteApplication": (
        lambda _: application_pb2.DeleteApplicationRequest(application="other"),
        lambda _: application_pb2.DeleteApplicationRequest(application="fake"),
    ),
    "ApplicationService.CreateVersion": (
        lambda _: application_pb2.CreateVersionRequest(application="fake", version=version("4.0.0")),
        lambda _: application_pb2.CreateVersionRequest(application="fake", version=version("5.0.0")),
    ),
    "ApplicationService.DeleteVersion": (
        lambda _: application_pb2.DeleteVersionRequest(application="fake", version="2.0.0"),
        lambda _: application_pb2.DeleteVersionRequest(application="fake", version="1.0.0"),
    ),
    "ApplicationService.SetRelease": (
        lambda _: application_pb2.SetReleaseRequest(application="fake", release="old", version="2.0.0"),
        lambda _: application_pb2.SetReleaseRequest(application="fake", release="old", version="3.0.0"),
    ),
    "ApplicationService.UpdateRelease": (
        lambda _: application_pb2.UpdateReleaseRequest(release=_release("2.0.0")),
        lambda _: application_pb2.UpdateReleaseRequest(release=_release("3.0.0")),
    ),
    "ApplicationService.DeleteRelease": (
        lambda _: application_pb2.DeleteReleaseRequest(application="fake", release="old"),
        lambda _: application_pb2.DeleteReleaseRequest(application="fake", release="default"),
    ),
    "StreamingService.CreateSession": (
        lambda _: session_pb2.CreateSessionRequest(application="fake"),
        lambda _: session_pb2.CreateSessionRequest(application="fake", labels={"team": "a"}),
    ),
    "StreamingService.UpdateSession": (
        lambda world: session_pb2.UpdateSessionRequest(
            session=session_pb2.Session(session_id=world.session_id, labels={"team": "a"}), update_mask=MASK
        ),
        lambda world: session_pb2.UpdateSessionRequest(
            session=session_pb2.Session(session_id=world.session_id), update_mask=MASK
        ),
    ),
    "StreamingService.ExtendSession": (
        lambda world: session_pb2.ExtendSessionRequest(session_id=world.session_id, extend_by=seconds(60)),
        lambda world: session_pb2.ExtendSessionRequest(session_id=world.session_id, extend_by=seconds(61)),
    ),
    "StreamingService.TerminateSession": (
        lambda world: session_pb2.TerminateSessionRequest(session_id=world.session_id),
        lambda _: session_pb2.TerminateSessionRequest(session_id="another"),
    ),
    "ViewerService.DisconnectViewer": (
        lambda world: viewer_pb2.DisconnectViewerRequest(session_id=world.session_id, viewer_id="v1"),
        lambda world: viewer_pb2.DisconnectViewerRequest(session_id=world.session_id, viewer_id="v2"),
    ),
    "ApplicationStreamingService.CreateStream": (
        lambda _: ovc_pb2.CreateStreamRequest(application="fake"),
        lambda _: ovc_pb2.CreateStreamRequest(application="fake", labels={"team": "a"}),
    ),
}
"""For each write one request that it accepts in this world, and another one."""


def _cordoned(name: str) -> node_pb2.Node:
    return node_pb2.Node(node=name, scheduling=node_pb2.Node.Scheduling(cordoned=True))


def _profile(description: str) -> profile_pb2.Profile:
    return profile_pb2.Profile(profile="small", description=description)


def _pool(size: int) -> pool_pb2.Pool:
    return pool_pb2.Pool(pool="warm", application="fake", size=size)


def _release(name: str) -> application_pb2.Release:
    return application_pb2.Release(application="fake", release="old", version=name)


def _request(name: str, world: World, *, other: bool = False, **members: Any) -> Message:
    request = SAMPLES[name][other](world)
    for member, value in members.items():
        if isinstance(value, Message):
            getattr(request, member).CopyFrom(value)
        else:
            setattr(request, member, value)
    return request


async def _call(plane: Control, name: str, request: Message, **headers: str) -> tuple[Any, dict[str, Any]]:
    """Call an RPC; return the answer and its initial metadata."""
    token = headers.pop("token", plane.admin)
    call = OutgoingCall((*headers.items(), ("authorization", f"Bearer {token}")), 20)
    try:
        answer = await plane.upstream.unary(METHODS[name])(request.__deepcopy__({}), call)
    except UpstreamError as error:
        raise from_status(error.status) from None
    return answer, dict(call.initial)


async def _dump(plane: Control) -> dict[str, list[str]]:
    """Everything in the database."""

    def read(tx: Transaction) -> dict[str, list[str]]:
        return {
            table.name: sorted(str(tuple(row)) for row in tx.execute(select(table))) for table in metadata.sorted_tables
        }

    return await plane.store.read(read)


def _leaves(value: Any) -> Any:
    """A value, of a node's scheduling what a caller sets."""
    return value.cordoned if isinstance(value, node_pb2.Node.Scheduling) else value


def _changed(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    return [name for name, rows in after.items() if rows != before[name]]


def test_every_write_is_tried_here() -> None:
    """A new RPC with a request id needs samples; what has one can be validated, and the reverse, except NVIDIA's."""
    assert set(SAMPLES) == set(KEYED)
    assert set(KEYED) - set(VALIDATED) == {"ApplicationStreamingService.CreateStream"}
    assert set(VALIDATED) <= set(KEYED)
    assert set(CONDITIONAL) <= set(KEYED)


@pytest.mark.parametrize("name", KEYED)
async def test_the_same_call_twice_has_one_effect_and_equal_answers(world: World, name: str) -> None:
    """The second answer is marked; the id may be in the request or in its metadata."""
    plane, request = world.plane, _request(name, world)
    before = await _dump(plane)
    by_member: Any = request.__deepcopy__({})
    by_member.request_id = "k"

    first, first_metadata = await _call(plane, name, by_member)
    after = await _dump(plane)
    second, second_metadata = await _call(plane, name, request, **{"idempotency-key": "k"})

    assert second == first
    assert "idempotency-replayed" not in first_metadata
    assert second_metadata["idempotency-replayed"] == "true"
    assert _changed(before, after)
    assert _changed(after, await _dump(plane)) == []


@pytest.mark.parametrize("name", KEYED)
async def test_another_call_under_the_same_id_is_refused(world: World, name: str) -> None:
    """And changes nothing."""
    await _call(world.plane, name, _request(name, world, request_id="k"))
    after = await _dump(world.plane)

    with pytest.raises(errors.AlreadyExists) as caught:
        await _call(world.plane, name, _request(name, world, other=True, request_id="k"))

    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert (caught.value.metadata["field"], caught.value.metadata["request_id"]) == ("request_id", "k")
    assert _changed(after, await _dump(world.plane)) == []


@pytest.mark.parametrize("name", KEYED)
async def test_no_secret_is_remembered(world: World, name: str) -> None:
    """Neither in an answer, sealed as it is, nor what a secret is computed from; a repetition has it all the same."""
    request_id = "long-and-hard-to-guess"
    box = world.plane.key.box()

    answer, _ = await _call(world.plane, name, _request(name, world, request_id=request_id))

    def read(tx: Transaction) -> list[Any]:
        return list(tx.execute(select(REMEMBERED_CALL)))

    for row in await world.plane.store.read(read):
        answered = row.answer
        if row.method.rpartition("/")[2] == name.partition(".")[2]:
            bound = "\0".join(("call", row.subject, row.method, row.request_id)).encode()
            remembered: Any = type(answer).FromString(box.open(answered, bound))
            assert not [field.name for field, _ in remembered.ListFields() if field.name in SECRETS]
            assert redact(str(remembered)) == str(remembered)
            assert request_id not in row.request_id


def test_the_secrets_of_answers_are_known() -> None:
    """An answer that no cache may store has a secret: a new one of a write is to be kept out of what is remembered."""
    unstored = {name: METHODS[name] for name in KEYED if METHODS[name].GetOptions().Extensions[reply].no_store}

    assert set(unstored) == {"TokenService.CreateToken", "EnrollmentService.InviteNode"}
    assert all(SECRETS & set(method.output_type.fields_by_name) for method in unstored.values())


@pytest.mark.parametrize("name", VALIDATED)
async def test_what_only_validates_heeds_a_request_id_that_was_used(world: World, name: str) -> None:
    """It is refused with another request as the call is, and answers with the first answer; but shows no secret."""
    real, _ = await _call(world.plane, name, _request(name, world, request_id="k"))
    after = await _dump(world.plane)

    again, metadata = await _call(world.plane, name, _request(name, world, request_id="k", validate_only=True))
    with pytest.raises(errors.AlreadyExists) as caught:
        await _call(world.plane, name, _request(name, world, other=True, request_id="k", validate_only=True))

    assert metadata["idempotency-replayed"] == "true"
    for each in SECRETS & set(real.DESCRIPTOR.fields_by_name):
        real.ClearField(each)
    assert again == real
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert _changed(after, await _dump(world.plane)) == []


@pytest.mark.parametrize("name", VALIDATED)
async def test_a_call_that_only_validates_leaves_the_database_as_it_is(world: World, name: str) -> None:
    """Also with a request id, which stays free; it answers as the call does, and wakes nothing."""
    plane = world.plane
    before = await _dump(plane)
    signals = plane.plane.signals
    heard = [
        topic.subscribe()
        for topic in (signals.sessions, signals.placing, signals.catalogue, signals.assignments, signals.decisions)
    ]

    tried, tried_metadata = await _call(plane, name, _request(name, world, request_id="k", validate_only=True))
    again, _ = await _call(plane, name, _request(name, world, request_id="k", validate_only=True))

    assert _changed(before, await _dump(plane)) == []
    assert [subscription.pending for subscription in heard] == [False] * len(heard)
    for subscription in heard:
        subscription.close()
    real, real_metadata = await _call(plane, name, _request(name, world, request_id="k"))
    assert "idempotency-replayed" not in {**tried_metadata, **real_metadata}
    assert "etag" not in str(tried)
    assert "revision" not in str(tried)
    for answer in (tried, again, real):
        _without_what_is_new(answer)
    assert tried == again == real


def _without_what_is_new(message: Any) -> None:
    """Take out what no two calls have in common: ids and secrets that were made, and what depends on the queue."""
    if isinstance(message, enrollment_pb2.Authorities):
        for name in ("authority_id", "certificate"):
            message.items[0].ClearField(name)
    for name in (
        "code",
        "invitation_id",
        "secret",
        "session_id",
        "request_id",
        "queue",
        "status_message",
        "revision",
        "etag",
    ):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for name in ("token", "session", "application"):
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is not None and field.message_type is not None and message.HasField(name):
            _without_what_is_new(getattr(message, name))
    if "token_id" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("token_id")


REFUSED: dict[str, Make] = {
    "TokenService.CreateToken": lambda _: token_pb2.CreateTokenRequest(subject="x"),
    "StreamingService.CreateSession": lambda _: session_pb2.CreateSessionRequest(application="no-such"),
}
"""Of which no other sample is refused."""


@pytest.mark.parametrize("name", VALIDATED)
async def test_what_only_validates_is_refused_as_the_call_would_be(world: World, name: str) -> None:
    """The same error: here after what it needs is gone."""
    other = REFUSED[name](world) if name in REFUSED else _request(name, world, other=True)
    told: list[tuple[type[errors.Error], str, str] | None] = []
    for validate_only in (True, False):
        asked: Any = other.__deepcopy__({})
        asked.validate_only = validate_only
        try:
            await _call(world.plane, name, asked)
        except errors.Error as error:
            told.append((type(error), error.reason, error.message))
        else:
            told.append(None)

    assert told[0] == told[1]


@pytest.mark.parametrize("name", CONDITIONAL)
async def test_a_change_is_bound_to_what_was_read(world: World, name: str) -> None:
    """An etag that is not the resource's is refused and says what is; ``*`` and the right one are taken."""
    before = await _dump(world.plane)
    with pytest.raises(errors.Conflict) as caught:
        await _call(world.plane, name, _request(name, world, etag="stale"))

    assert caught.value.reason == "ETAG_MISMATCH"
    assert caught.value.metadata["field"] == "etag"
    assert _changed(before, await _dump(world.plane)) == []
    for etag in ("*", caught.value.metadata["etag"]):
        await _call(world.plane, name, _request(name, world, etag=etag, validate_only=True))
    await _call(world.plane, name, _request(name, world, etag=caught.value.metadata["etag"]))


@pytest.mark.parametrize("name", BODIES)
async def test_the_etag_of_a_resource_counts_as_the_requests(world: World, name: str) -> None:
    """Who sends back what was read is bound to it; two etags that differ are refused."""
    before = await _dump(world.plane)

    def request(etag: str, own: str = "", **members: Any) -> Message:
        made = _request(name, world, etag=own, **members)
        getattr(made, BODIES[name]).etag = etag
        return made

    with pytest.raises(errors.Conflict) as stale:
        await _call(world.plane, name, request("stale" * 1000))
    current = stale.value.metadata["etag"]
    with pytest.raises(errors.InvalidArgument) as two:
        await _call(world.plane, name, request(current, "another"))

    assert (stale.value.reason, len(stale.value.message) < 1000) == ("ETAG_MISMATCH", True)
    assert (two.value.reason, two.value.field) == ("VALUE_CONFLICT", f"{BODIES[name]}.etag")
    assert _changed(before, await _dump(world.plane)) == []
    await _call(world.plane, name, request(current, current, validate_only=True))
    await _call(world.plane, name, request(current))


READ: list[tuple[str, Make, str]] = [
    ("ApplicationService.GetApplication", lambda _: application_pb2.GetApplicationRequest(application="fake"),
     "ApplicationService.ApplyApplication"),
    ("ApplicationService.GetRelease", lambda _: application_pb2.GetReleaseRequest(application="fake", release="old"),
     "ApplicationService.SetRelease"),
    ("ProfileService.GetProfile", lambda _: profile_pb2.GetProfileRequest(profile="small"),
     "ProfileService.UpdateProfile"),
    ("NodeService.GetNode", lambda _: node_pb2.GetNodeRequest(node="node-a"), "NodeService.CordonNode"),
    ("StreamingService.GetSession", lambda world: session_pb2.GetSessionRequest(session_id=world.session_id),
     "StreamingService.UpdateSession"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "get", "write"), READ)
async def test_the_etag_that_is_read_is_the_one_that_is_compared(
    world: World, read: str, get: Make, write: str
) -> None:
    """It is the same until the resource changes, in every answer; then it is another."""
    before, _ = await _call(world.plane, read, get(world))
    again, _ = await _call(world.plane, read, get(world))
    world.plane.clock.pass_s(1)
    written, _ = await _call(world.plane, write, _request(write, world, etag=before.etag))
    after, _ = await _call(world.plane, read, get(world))

    assert before.etag == again.etag
    assert after.etag not in ("", before.etag)
    shown = written.application if isinstance(written, application_pb2.ApplyApplicationResponse) else written
    assert shown.etag == after.etag
    with pytest.raises(errors.Conflict):
        await _call(world.plane, write, _request(write, world, etag=before.etag))


async def test_a_sessions_etag_does_not_come_again_with_its_revision(world: World) -> None:
    """After a restore of the database revisions do."""
    row = await world.plane.store.read(lambda tx: session_rows.get(tx, world.session_id))
    assert row is not None
    later = row._replace(updated_time=world.plane.clock() + timedelta(seconds=1))

    assert etags.of_session(row) != etags.of_session(later)
    assert etags.of_session(row) != etags.of_session(row._replace(revision=row.revision + 1))


BACK: dict[str, tuple[str, Make, str, dict[str, Any]]] = {
    "ApplicationService.UpdateRelease": (
        "ApplicationService.GetRelease",
        lambda _: application_pb2.GetReleaseRequest(application="fake", release="old"),
        "/v1/applications/fake/releases/old",
        {"version": "2.0.0"},
    ),
    "ProfileService.UpdateProfile": (
        "ProfileService.GetProfile",
        lambda _: profile_pb2.GetProfileRequest(profile="small"),
        "/v1/profiles/small",
        {"display_name": "x"},
    ),
    "NodeService.UpdateNode": (
        "NodeService.GetNode",
        lambda _: node_pb2.GetNodeRequest(node="node-a"),
        "/v1/nodes/node-a",
        {"scheduling": {"cordoned": True}},
    ),
    "StreamingService.UpdateSession": (
        "StreamingService.GetSession",
        lambda world: session_pb2.GetSessionRequest(session_id=world.session_id),
        "/v1/sessions/{session_id}",
        {"labels": {"team": "b"}},
    ),
}
"""For each update how its resource is read, its path, and a change."""


def test_every_update_is_written_back_here() -> None:
    """A new one needs a change."""
    assert set(BACK) == {name for name in METHODS if "update_mask" in METHODS[name].input_type.fields_by_name}


@pytest.mark.parametrize("wire", ["grpc", "rest"])
@pytest.mark.parametrize("name", BACK)
async def test_what_was_read_can_be_changed_and_written_back(world: World, name: str, wire: str) -> None:
    """Whole, without a mask: what only answers have is passed over, and what was read is not written over twice."""
    plane, (read, get, path, change) = world.plane, BACK[name]
    path = path.format(session_id=world.session_id)
    before, _ = await _call(plane, read, get(world))
    plane.clock.pass_s(1)

    async def write(changes: dict[str, Any]) -> Any:
        if wire == "rest":
            body = (await plane.rest("GET", path)).json()
            return await plane.rest("PATCH", path, json={**body, "etag": before.etag, **changes})
        request = message_factory.GetMessageClass(METHODS[name].input_type)()
        member: Any = getattr(request, BODIES[name])
        member.CopyFrom(before)
        json_format.ParseDict(changes, member)
        return (await _call(plane, name, request))[0]

    same = await write({})
    unchanged, _ = await _call(plane, read, get(world))
    assert wire == "grpc" or same.status_code == 200, same.text
    for message in (unchanged, before):
        for member in {"revision", "etag", "updated_time"} & set(message.DESCRIPTOR.fields_by_name):
            message.ClearField(member)
    assert unchanged == before
    before, _ = await _call(plane, read, get(world))
    await write(change)
    after, _ = await _call(plane, read, get(world))

    assert after.etag != before.etag
    expected = before.__deepcopy__({})
    json_format.ParseDict(change, expected)
    for member in change:
        assert _leaves(getattr(after, member)) == _leaves(getattr(expected, member))
    with pytest.raises(errors.InvalidArgument) as named:
        await _call(plane, name, _request(name, world, update_mask=FieldMask(paths=["etag"])))
    assert named.value.reason == "FIELD_IMMUTABLE"


async def test_what_does_not_exist_has_no_etag(plane: Control) -> None:
    """``*`` does not create."""
    request = profile_pb2.SetProfileRequest(profile=profile_pb2.Profile(profile="new"), etag="*")

    with pytest.raises(errors.Conflict, match="profile new does not exist") as caught:
        await plane.call("ProfileService.SetProfile", request)

    assert caught.value.metadata == {"field": "etag", "etag": ""}


async def test_a_call_that_failed_may_be_tried_again_under_its_id(plane: Control) -> None:
    """A refusal changes nothing, so it is not remembered."""
    request = application_pb2.SetReleaseRequest(application="fake", release="next", version="2.0.0", request_id="k")
    with pytest.raises(errors.InvalidArgument):
        await plane.call("ApplicationService.SetRelease", request)
    await plane.apply(version("2.0.0"))

    made = await plane.call("ApplicationService.SetRelease", request)

    assert made.version == "2.0.0"


async def test_an_id_is_one_callers_and_one_rpcs(world: World) -> None:
    """Another caller's same id, and the same id for another RPC, are other calls."""
    plane = world.plane
    service = await plane.token("OPERATOR", "second")
    request = _request("NodeService.CordonNode", world, request_id="k")

    _, first = await _call(plane, "NodeService.CordonNode", request)
    _, second = await _call(plane, "NodeService.CordonNode", request, token=service)
    _, third = await _call(plane, "NodeService.DrainNode", _request("NodeService.DrainNode", world, request_id="k"))

    assert not any("idempotency-replayed" in metadata for metadata in (first, second, third))


async def test_ids_are_forgotten_after_a_day(world: World) -> None:
    """Then the same call is a new one."""
    plane, request = world.plane, _request("TokenService.CreateToken", world, request_id="k")
    first, _ = await _call(plane, "TokenService.CreateToken", request)
    plane.clock.pass_s(86_000)
    await plane.reap()
    second, _ = await _call(plane, "TokenService.CreateToken", request)
    plane.clock.pass_s(1000)
    await plane.reap()
    third, _ = await _call(plane, "TokenService.CreateToken", request)

    assert first == second
    assert third.token.token_id != first.token.token_id


async def test_a_remembered_secret_is_sealed(world: World) -> None:
    """A copy of the database gives no token; one that was only validated was never shown."""
    plane = world.plane
    made, _ = await _call(
        plane, "TokenService.CreateToken", _request("TokenService.CreateToken", world, request_id="k")
    )
    tried, _ = await _call(
        plane, "TokenService.CreateToken", _request("TokenService.CreateToken", world, validate_only=True)
    )

    word = made.secret.rpartition("_")[2]
    database = b"".join(path.read_bytes() for path in plane.settings.data_dir.glob("footlights.db*"))
    assert word
    assert word.encode() not in database
    assert await plane.store.read(lambda tx: len(tx.execute(select(REMEMBERED_CALL)).all())) == 1
    assert (tried.secret, tried.token.token_id, tried.token.subject) == ("", "", "new")


async def test_ends_of_sessions_that_share_a_commit_keep_their_ids_apart(plane: Control) -> None:
    """Many at once, half of them repeated: each session ends once, and each repetition is marked."""
    made = [await plane.create() for _ in range(20)]
    requests = [
        session_pb2.TerminateSessionRequest(session_id=session.session_id, request_id=f"k{number}")
        for number, session in enumerate(made)
    ]

    answers = await asyncio.gather(
        *(_call(plane, "StreamingService.TerminateSession", request) for request in [*requests, *requests])
    )

    assert [answer.session_id for answer, _ in answers] == [session.session_id for session in made] * 2
    assert sum("idempotency-replayed" in found for _, found in answers) == 20
    assert {answer.session.state for answer, _ in answers} == {session_pb2.Session.TERMINATED}


@pytest.mark.parametrize("running", [False, True])
async def test_an_end_costs_no_statement_for_its_answer(plane: Control, running: bool) -> None:
    """The session is shown by what was read to end it, in the transaction that all writes wait for."""
    agent = await plane.agent()
    made = await plane.create()
    if running:
        assert await plane.place() == 1
        await agent.assignment(made.session_id)
    else:
        made = await plane.create()
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(plane.store.engine.writer, "before_cursor_execute", note)
    try:
        request = session_pb2.TerminateSessionRequest(session_id=made.session_id)
        answer, _ = await _call(plane, "StreamingService.TerminateSession", request)
    finally:
        event.remove(plane.store.engine.writer, "before_cursor_execute", note)

    last = max(number for number, statement in enumerate(statements) if statement.startswith("UPDATE session"))
    assert [each for each in statements[last:] if each.startswith("SELECT")] == []
    shown = await plane.get(made.session_id)
    assert shown.node == ("node-a" if running else "")
    shown.ClearField("device_name")
    assert answer.session == shown
    assert len(statements) == (7 if running else 4), statements


async def test_a_session_that_is_only_validated_takes_no_device(plane: Control) -> None:
    """Nor a place in the queue: the next one gets the only device."""
    agent = await plane.agent()
    request = session_pb2.CreateSessionRequest(application="fake", validate_only=True)

    tried = [(await _call(plane, "StreamingService.CreateSession", request))[0] for _ in range(5)]
    made = await plane.create()

    assert await plane.place() == 1
    assert {(answer.session_id, answer.state) for answer in tried} == {("", session_pb2.Session.PENDING)}
    assert (await agent.assignment(made.session_id)).session_id == made.session_id


# Idempotency-Key


def _unkeyed() -> Iterator[Any]:
    for name, method in METHODS.items():
        if "request_id" not in method.input_type.fields_by_name:
            harmless = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
            yield pytest.param(name, harmless, id=name)


@pytest.mark.parametrize(("name", "harmless"), list(_unkeyed()))
async def test_a_key_is_refused_where_it_would_have_no_effect(plane: Control, name: str, harmless: bool) -> None:
    """Only what changes nothing takes it."""
    request = message_factory.GetMessageClass(METHODS[name].input_type)()
    metadata = {"idempotency-key": "k"}
    refused = None
    try:
        if METHODS[name].server_streaming:
            call = OutgoingCall((*metadata.items(), ("authorization", f"Bearer {plane.admin}")), 20)
            responses = plane.upstream.stream(METHODS[name])(request, call)
            try:
                await responses.read()
            finally:
                responses.cancel()
        else:
            await _call(plane, name, request, **metadata)
    except UpstreamError as error:
        refused = from_status(error.status)
    except errors.Error as error:
        refused = error

    told = isinstance(refused, errors.InvalidArgument) and refused.field == "Idempotency-Key"
    assert told == (not harmless), refused


async def test_a_key_that_differs_from_the_request_is_refused(world: World) -> None:
    """And one that is too long."""
    request = _request("NodeService.CordonNode", world, request_id="a")

    with pytest.raises(errors.InvalidArgument, match="'a' differs from the Idempotency-Key header, 'b'"):
        await _call(world.plane, "NodeService.CordonNode", request, **{"idempotency-key": "b"})
    with pytest.raises(errors.InvalidArgument, match="has 129 characters") as caught:
        await _call(world.plane, "NodeService.UncordonNode", _request("NodeService.UncordonNode", world),
                    **{"idempotency-key": "x" * 129})  # fmt: skip

    assert caught.value.field == "Idempotency-Key"


async def test_over_rest_the_key_and_the_mark_are_headers(plane: Control) -> None:
    """The mark is there for every repeated write."""
    headers = {"Idempotency-Key": "k"}
    body = {"role": "DEVELOPER", "subject": "ann"}

    first = await plane.rest("POST", "/v1/tokens", json=body, headers=headers)
    second = await plane.rest("POST", "/v1/tokens", json=body, headers=headers)
    other = await plane.rest("POST", "/v1/tokens", json=body | {"subject": "bob"}, headers=headers)

    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert (other.status_code, problem(other)["reason"]) == (409, "REQUEST_ID_REUSED")


# Two replicas


async def test_two_replicas_that_get_one_call_at_once_write_it_once(replicas: tuple[Control, Control]) -> None:
    """Both answer the same; so do calls that share commits."""
    one, other = replicas
    requests = [
        token_pb2.CreateTokenRequest(role=token_pb2.Token.DEVELOPER, subject=f"s{number}", request_id=f"k{number}")
        for number in range(12)
    ]

    answers = await asyncio.gather(
        *(
            _call(plane, "TokenService.CreateToken", request, token=one.admin)
            for request in requests
            for plane in (one, other, one)
        )
    )

    for number in range(12):
        mine = answers[3 * number : 3 * number + 3]
        assert len({answer.secret for answer, _ in mine}) == 1
        assert sum("idempotency-replayed" in found for _, found in mine) == 2
    listed = await one.call("TokenService.ListTokens", token_pb2.ListTokensRequest(limit=1000))
    assert len(listed.items) == 13


async def test_what_is_validated_at_a_replica_is_not_there_for_the_other(replicas: tuple[Control, Control]) -> None:
    """Nothing of it is committed on Postgres either, and the id stays free."""
    one, other = replicas
    request = token_pb2.CreateTokenRequest(
        role=token_pb2.Token.DEVELOPER, subject="s", request_id="k", validate_only=True
    )
    before = await _dump(other)

    await _call(one, "TokenService.CreateToken", request)

    assert _changed(before, await _dump(other)) == []
    request.validate_only = False
    _, made = await _call(other, "TokenService.CreateToken", request, token=one.admin)
    assert "idempotency-replayed" not in made


async def test_two_replicas_that_create_one_session_at_once_create_one(replicas: tuple[Control, Control]) -> None:
    """One of the answers is marked."""
    one, other = replicas
    request = session_pb2.CreateSessionRequest(application="fake", request_id="k")

    answers = await asyncio.gather(
        *(_call(plane, "StreamingService.CreateSession", request, token=one.admin) for plane in (one, other))
    )

    assert len({answer.session_id for answer, _ in answers}) == 1
    assert sum("idempotency-replayed" in found for _, found in answers) == 1


async def _race(planes: tuple[Control, ...], admin: str, name: str, requests: list[Message]) -> list[str]:
    """Send requests with one etag at once; return how each went."""

    async def went(plane: Control, request: Message) -> str:
        try:
            await _call(plane, name, request, token=admin)
        except errors.Conflict as error:
            return error.reason
        return "OK"

    pairs = zip(planes * len(requests), requests, strict=False)
    return sorted(await asyncio.gather(*(went(plane, request) for plane, request in pairs)))


async def _races(planes: tuple[Control, ...]) -> None:
    first = planes[0]
    await first.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=_profile("First.")))
    await first.apply(version("1.0.0"), version("2.0.0"), version("3.0.0"), releases={"old": "1.0.0"})
    agent = await first.agent("node-a")
    made = await first.create()
    for number in range(5):
        profile = await first.call("ProfileService.GetProfile", profile_pb2.GetProfileRequest(profile="small"))
        node = await first.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
        session = await first.get(made.session_id)
        first.clock.pass_s(1)
        asked: list[tuple[str, list[Message]]] = [
            (
                "ProfileService.UpdateProfile",
                [
                    profile_pb2.UpdateProfileRequest(profile=_profile(f"{number}.{n}."), etag=profile.etag)
                    for n in range(4)
                ],
            ),
            (
                "NodeService.CordonNode",
                [
                    node_pb2.CordonNodeRequest(node="node-a", message=f"{node.etag}{n}", etag=node.etag)
                    for n in range(4)
                ],
            ),
            (
                "StreamingService.UpdateSession",
                [
                    session_pb2.UpdateSessionRequest(
                        session=session_pb2.Session(session_id=made.session_id, labels={"n": f"{session.revision}{n}"}),
                        etag=session.etag,
                    )
                    for n in range(4)
                ],
            ),
        ]
        for name, requests in asked:
            assert await _race(planes, first.admin, name, requests) == ["ETAG_MISMATCH"] * 3 + ["OK"], name
    await agent.close()


async def test_of_changes_with_one_etag_exactly_one_is_made(plane: Control) -> None:
    """However many are sent at once, on SQLite."""
    await _races((plane,))


async def test_of_changes_at_two_replicas_with_one_etag_exactly_one_is_made(
    replicas: tuple[Control, Control],
) -> None:
    """On Postgres too: the second one compares with what the first has written."""
    await _races(replicas)
