"""Who may call what, and whose sessions they see.

Covers ``call.authenticate``, ``sessions.access``, ``sessions.terminate`` and ``services.tokens``.
"""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1 import permission_pb2, session_pb2, token_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from footlights import errors
from footlights.auth.roles import PERMISSIONS, Role, is_open
from tests.control.harness import SERVICES, Control, problem, seconds

METHODS: list[MethodDescriptor] = [
    method
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
    if not method.client_streaming and not is_open(method.GetOptions().Extensions[permission_pb2.permission])
]


async def _outcome(plane: Control, method: MethodDescriptor, token: str, request: Any = None) -> errors.Error | None:
    name = f"{method.containing_service.name}.{method.name}"
    request = request or message_factory.GetMessageClass(method.input_type)()
    try:
        if method.server_streaming:
            async for _ in plane.stream(name, request, token):
                return None
        else:
            await plane.call(name, request, token)
    except errors.Error as error:
        return error
    return None


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.REPLICA, Role.ANYONE)])
async def test_every_rpc_is_open_to_exactly_the_roles_that_hold_its_permission(plane: Control, role: Role) -> None:
    """Who lacks it is told which role has it; who holds it gets past the door, whatever comes then."""
    token = await plane.token(role.value, "node-a" if role is Role.NODE else "ann")
    await plane.create(username="ann")
    for method in METHODS:
        permission = method.GetOptions().Extensions[permission_pb2.permission]
        error = await _outcome(plane, method, token)
        refused = error is not None and error.reason == "ROLE_LACKS_PERMISSION"
        assert refused == (permission not in PERMISSIONS[role]), method.full_name
        if error is not None:
            assert error.code != errors.Internal.code, (method.full_name, error)
        if refused and error is not None:
            assert permission in error.message
            assert ("use a token with role" in error.message) == (permission != "replicas.call")


@pytest.mark.parametrize("token", ["", "fl_nonsense", "Bearer"])
async def test_nothing_is_open_without_a_token(plane: Control, token: str) -> None:
    """Every RPC: 401 with what to send, and nothing of the request is looked at."""
    for method in METHODS:
        error = await _outcome(plane, method, token)
        assert isinstance(error, errors.Unauthenticated), method.full_name
        assert error.reason == ("TOKEN_INVALID" if token else "TOKEN_MISSING")

    answer = await plane.rest("GET", "/stream", token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_scheme_that_is_not_bearer_is_named(plane: Control) -> None:
    """So that a client that sends Basic learns what is wrong."""
    answer = await plane.rest("GET", "/stream", "", headers={"authorization": "Basic YTpi"})

    assert answer.status_code == 401
    assert "'Basic'" in problem(answer)["message"]
    assert (await plane.rest("GET", "/stream", "", headers={"authorization": f"bearer {plane.admin}"})).is_success


# Somebody else's session


def _touch(session_id: str) -> list[tuple[str, Any]]:
    return [
        ("GetSession", session_pb2.GetSessionRequest(session_id=session_id)),
        ("TerminateSession", session_pb2.TerminateSessionRequest(session_id=session_id)),
        ("ConnectSession", session_pb2.ConnectSessionRequest(session_id=session_id)),
        ("ExtendSession", session_pb2.ExtendSessionRequest(session_id=session_id, extend_by=seconds(60))),
        ("GetSessionLog", session_pb2.GetSessionLogRequest(session_id=session_id)),
        ("WatchSession", session_pb2.WatchSessionRequest(session_id=session_id)),
        ("TailSessionLog", session_pb2.TailSessionLogRequest(session_id=session_id)),
    ]


async def test_somebody_elses_session_is_not_there(plane: Control) -> None:
    """404 in every RPC, word for word as for a session that never was, and it stays as it is."""
    theirs = await plane.create(await plane.token(subject="bob"))
    mine = await plane.token(subject="ann")
    never = "01890000-0000-7000-8000-000000000000"

    for name, request in _touch(theirs.session_id):
        descriptor = next(method for method in METHODS if method.name == name)
        told = []
        for session_id in (theirs.session_id, never):
            request.session_id = session_id
            error = await _outcome(plane, descriptor, mine, request)
            assert isinstance(error, errors.NotFound), name
            told.append(error.message.replace(session_id, "ID"))
        assert told[0] == told[1], name

    assert await plane.get(theirs.session_id) == theirs


async def test_services_and_operators_see_all_sessions_and_developers_their_own(plane: Control) -> None:
    """Naming another user is refused where it is not allowed: a list that is empty would say that there is nothing."""
    ann, bob = await plane.token(subject="ann"), await plane.token(subject="bob")
    mine, theirs = await plane.create(ann), await plane.create(bob)

    async def seen(token: str | None, **params: str) -> set[str]:
        answer = (await plane.rest("GET", "/stream", token, params=params)).json()
        assert answer["count"] == len(answer["items"])
        return {item["session_id"] for item in answer["items"]}

    assert await seen(ann) == {mine.session_id}
    assert await seen(ann, username="ann") == {mine.session_id}
    refused = await plane.rest("GET", "/stream", ann, params={"username": "bob"})
    watched = await plane.rest("GET", "/stream:watch", ann, params={"username": "bob"})
    assert refused.status_code == watched.status_code == 403
    assert problem(refused)["message"] == problem(watched)["message"]
    assert problem(refused)["metadata"] == {"field": "username", "permission": "sessions.all"}
    for token in (await plane.token("SERVICE", "portal"), None):
        assert await seen(token) == {mine.session_id, theirs.session_id}
        assert await seen(token, username="bob") == {theirs.session_id}
        assert (await plane.get(theirs.session_id, token)).username == "bob"


async def test_creating_for_others_takes_a_service(plane: Control) -> None:
    """A developer may name herself; a service names whom it acts for, who then sees the session."""
    ann, portal = await plane.token(subject="ann"), await plane.token("SERVICE", "portal")

    assert (await plane.create(ann, username="ann")).username == "ann"
    with pytest.raises(errors.PermissionDenied, match=r"username: 'bob' is not you \(ann\).*service's token") as caught:
        await plane.create(ann, username="bob")
    made = await plane.create(portal, username="ann")

    assert caught.value.metadata["field"] == "username"
    assert (await plane.get(made.session_id, ann)).username == "ann"


async def test_priority_above_0_takes_a_service(plane: Control) -> None:
    """Everybody may step back, only some may push forward by himself."""
    ann, portal = await plane.token(subject="ann"), await plane.token("SERVICE", "portal")

    assert (await plane.create(ann, priority=-5)).priority == -5
    assert (await plane.create(portal, priority=5)).priority == 5
    with pytest.raises(errors.PermissionDenied, match="5 is above 0"):
        await plane.create(ann, priority=5)


# Tokens


async def _create(plane: Control, **members: Any) -> token_pb2.CreateTokenResponse:
    known: dict[str, Any] = {"role": token_pb2.Token.DEVELOPER, "subject": "ann"}
    request = token_pb2.CreateTokenRequest(**(known | members))
    answer: token_pb2.CreateTokenResponse = await plane.call("TokenService.CreateToken", request)
    return answer


async def _caller(plane: Control, token: str) -> token_pb2.Caller:
    caller: token_pb2.Caller = await plane.call("TokenService.GetCaller", token_pb2.GetCallerRequest(), token)
    return caller


async def test_the_first_token_is_an_operators_and_lies_in_a_file_of_its_own(plane: Control) -> None:
    """Mode 0600, and only where the store has no token yet."""
    path = plane.settings.data_dir / "admin.token"

    assert path.stat().st_mode & 0o777 == 0o600
    caller = await _caller(plane, plane.admin)
    assert (caller.subject, caller.role) == ("admin", token_pb2.Token.OPERATOR)
    assert "nodes.write" in caller.permissions
    assert caller.server_version


async def test_a_secret_is_shown_once_and_never_again(plane: Control) -> None:
    """Lists have the token without it, and the database has a digest."""
    plane.clock.pass_s(1)
    made = await _create(plane, description="laptop")

    listed = await plane.rest("GET", "/tokens")

    assert made.secret not in listed.text
    assert made.secret.rpartition("_")[2] not in listed.text
    assert [item["description"] for item in listed.json()["items"]] == ["laptop", "The first token"]
    database = b"".join(path.read_bytes() for path in plane.settings.data_dir.glob("footlights.db*"))
    assert made.secret.rpartition("_")[2].encode() not in database


async def test_a_revoked_token_is_refused_at_once_also_where_it_was_just_used(plane: Control) -> None:
    """Revoking twice gives the same answer; an unknown one is 404."""
    made = await _create(plane)
    await _caller(plane, made.secret)
    revoke = token_pb2.RevokeTokenRequest(token_id=made.token.token_id)

    first = await plane.call("TokenService.RevokeToken", revoke)
    plane.clock.pass_s(60)
    second = await plane.call("TokenService.RevokeToken", revoke)

    assert first == second
    assert first.HasField("revoked_time")
    with pytest.raises(errors.Unauthenticated) as caught:
        await _caller(plane, made.secret)
    assert caught.value.reason == "TOKEN_REVOKED"
    with pytest.raises(errors.NotFound, match="no token 'x'"):
        await plane.call("TokenService.RevokeToken", token_pb2.RevokeTokenRequest(token_id="x"))


async def test_a_token_expires_when_its_time_is_over(plane: Control) -> None:
    """To the moment, also where it was proved a moment ago."""
    made = await _create(plane, ttl=seconds(60))
    plane.clock.pass_s(59)
    await _caller(plane, made.secret)
    plane.clock.pass_s(1)

    with pytest.raises(errors.Unauthenticated) as caught:
        await _caller(plane, made.secret)

    assert caught.value.reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"role": 0}, "role"),
        ({"role": 99}, "role"),
        ({"subject": ""}, "subject"),
        ({"subject": "s" * 257}, "subject"),
        ({"ttl": seconds(0)}, "ttl"),
        ({"ttl": seconds(11 * 366 * 86400)}, "ttl"),
        ({"role": token_pb2.Token.NODE, "subject": "Not A Node"}, "subject"),
    ],
)
async def test_a_wrong_token_is_refused(plane: Control, members: dict[str, Any], field: str) -> None:
    """By field, and no token is made."""
    with pytest.raises(errors.InvalidArgument) as caught:
        await _create(plane, **members)

    assert caught.value.field == field
    assert len((await plane.rest("GET", "/tokens")).json()["items"]) == 1


async def test_a_request_id_goes_through_and_comes_back(plane: Control) -> None:
    """What a client sends is used where it is one; else one is made."""
    given = await plane.rest("GET", "/stream", headers={"x-request-id": "mine-1"})
    made = await plane.rest("GET", "/stream")
    odd = await plane.rest("GET", "/nowhere", headers={"x-request-id": "not one"})

    assert given.headers["x-request-id"] == "mine-1"
    assert len(made.headers["x-request-id"]) >= 16
    assert odd.headers.get("x-request-id") != "not one"
