"""Profiles that carry environment, arguments and secrets, and the sessions that get them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from footlights.v1 import application_pb2, profile_pb2
from google.protobuf.struct_pb2 import Struct, Value

from footlights.protocol import handshake
from footlights.store import applications
from tests.control.harness import Agent, Control, control, gpu, problem, version
from tests.control.services.test_create import logged

Argument = application_pb2.Argument
SECRET = "hunter2-of-the-service"
REDACTED = "[redacted]"
VERSION: dict[str, Any] = {
    "arguments": [
        Argument(name="count", type=Argument.INTEGER, default_value=Value(number_value=1)),
        Argument(name="omni_user", type=Argument.STRING, secret=True, required=True),
    ],
    "environment": {"OMNI_USER": "{omni_user}", "MODE": "plain", "KEPT": "1"},
}
NUCLEUS: dict[str, Any] = {
    "environment": {"OMNI_PASS": "{omni_pass}", "MODE": "fast"},
    "arguments": {"count": 5},
    "secrets": {"omni_pass": SECRET, "omni_user": "service"},
}


async def put(plane: Control, content: dict[str, Any], **options: Any) -> Any:
    return await plane.rest("PUT", "/v1/profiles/nucleus", json=content, **options)


async def linked(plane: Control) -> Agent:
    """An agent of this release: one of the release before puts no secrets into an environment."""
    return await plane.agent(former=False)


async def test_no_answer_list_log_or_database_has_a_secret(plane: Control) -> None:
    """Of a profile, its changes, its errors, its sessions and their explanation."""
    await plane.apply(version("2.0.0", **VERSION))
    with logged() as log:
        agent = await linked(plane)
        texts = [
            (await put(plane, NUCLEUS)).text,
            (await put(plane, NUCLEUS, headers={"Idempotency-Key": "once"})).text,
            (await put(plane, {"secrets": {"omni_pass": SECRET, "Wrong": SECRET}})).text,
            (await plane.rest("PATCH", "/v1/profiles/nucleus", json={"secrets": {"omni_pass": SECRET}})).text,
            (await put(plane, NUCLEUS)).text,
            (await plane.rest("GET", "/v1/profiles/nucleus")).text,
            (await plane.rest("GET", "/v1/profiles")).text,
        ]
        made = await plane.rest("POST", "/v1/sessions", json={"application": "fake", "profile": "nucleus"})
        await plane.place()
        session_id = made.json()["session_id"]
        assignment = await agent.ready(session_id)
        explained = {"application": "fake", "profile": "nucleus"}
        texts += [
            made.text,
            (await plane.rest("GET", f"/v1/sessions/{session_id}")).text,
            (await plane.rest("POST", "/v1/sessions:explain", json=explained)).text,
            str(assignment.version),
            str(assignment.arguments),
            log.getvalue(),
        ]

    assert json.loads(texts[5])["secrets"] == {"omni_pass": REDACTED, "omni_user": REDACTED}
    assert json.loads(assignment.secrets)["omni_pass"] == SECRET
    database = b"".join(path.read_bytes() for path in plane.settings.data_dir.glob("footlights.db*"))
    assert all(SECRET not in text for text in texts)
    assert SECRET.encode() not in database
    assert "session_created" in log.getvalue()


@pytest.mark.parametrize(
    "secrets",
    [
        {"omni_pass": f"{SECRET}\0"},
        {"omni_pass": f"{SECRET}\n"},
        {"omni_pass": SECRET * 1000},
        {"omni_pass": [SECRET]},
        {"omni_pass": {"password": SECRET}},
        {"omni_pass": SECRET, "count": SECRET},
        {"Not a name": SECRET},
        SECRET,
    ],
)
async def test_what_is_wrong_with_a_secret_is_said_without_it(plane: Control, secrets: Any) -> None:
    """Whatever it is: errors are kept where secrets are not, by clients and by what is between."""
    await plane.apply(version("2.0.0", **VERSION))
    await linked(plane)
    refused = await put(plane, NUCLEUS | {"secrets": secrets})
    session = {"application": "fake", "application_arguments": {"omni_user": secrets}}

    if refused.status_code == 200:
        refused = await plane.rest("POST", "/v1/sessions", json={"application": "fake", "profile": "nucleus"})
    made = await plane.rest("POST", "/v1/sessions", json=session)

    assert refused.status_code in (400, 409, 412, 422), refused.text
    assert SECRET not in refused.text + made.text


async def test_a_session_gets_what_its_profile_gives(plane: Control) -> None:
    """Over what its version has, and below what it gives itself; a later change of the profile is not its own."""
    await plane.apply(version("2.0.0", **VERSION))
    await put(plane, NUCLEUS)
    given = Struct()
    given.update({"count": 7, "omni_user": "ann"})

    plain = await plane.create(profile="nucleus")
    own = await plane.create(profile="nucleus", application_arguments=given)
    await put(plane, {"environment": {"MODE": "later"}, "secrets": {"omni_user": "x"}})
    later = await plane.create(profile="nucleus")
    agent = await linked(plane)
    told = []
    for each in (plain, own, later):
        await plane.place()
        told.append(await agent.ready(each.session_id))
        await plane.terminate(each.session_id)
        await agent.report(await agent.assignment(each.session_id, "STOPPED"), "EXITED")

    merged = {"OMNI_USER": "{omni_user}", "OMNI_PASS": "{omni_pass}", "MODE": "fast", "KEPT": "1"}
    assert [dict(each.version.environment) for each in told[:2]] == [merged, merged]
    assert [(each.name, each.secret) for each in told[0].version.arguments][2:] == [("omni_pass", True)]
    assert [dict(each.arguments) for each in told] == [{"count": 5}, {"count": 7}, {"count": 1}]
    assert [json.loads(each.secrets) for each in told] == [
        {"omni_user": "service", "omni_pass": SECRET},
        {"omni_user": "ann", "omni_pass": SECRET},
        {"omni_user": "x"},
    ]
    assert dict(told[2].version.environment) == {**VERSION["environment"], "MODE": "later"}
    shown = dict(plain.application_arguments)
    assert (shown["count"], shown["omni_user"]) == (5, REDACTED)


async def test_a_secret_of_a_profile_alone_is_no_sessions_to_give(plane: Control) -> None:
    """It is no argument of the version, so another user's password cannot be put in its place."""
    await plane.apply(version("2.0.0", **VERSION))
    await put(plane, NUCLEUS)

    answer = await plane.rest(
        "POST",
        "/v1/sessions",
        json={"application": "fake", "profile": "nucleus", "application_arguments": {"omni_pass": "mine"}},
    )

    assert answer.status_code == 400
    assert problem(answer)["reason"] == "ARGUMENT_UNKNOWN"


async def test_a_sessions_own_nucleus_account_goes_before_its_profiles(plane: Control) -> None:
    """Also where it gives it as the published API has it."""
    pair = [Argument(name=name, type=Argument.STRING, secret=True) for name in ("omni_user", "omni_pass")]
    kit = {"arguments": pair, "environment": {"OMNI_USER": "{omni_user}", "OMNI_PASS": "{omni_pass}"}}
    await plane.apply(version("2.0.0", **kit))
    await put(plane, {"secrets": {"omni_pass": SECRET, "omni_user": "service"}})
    agent = await plane.agent("node-a", gpu(slots=2), former=False)
    config = {"nucleus_connection_config": [{"username": "ann", "password": "hers"}]}
    wanted = {"application": "fake", "profile": "nucleus"}

    own = (await plane.rest("POST", "/v1/sessions", json=wanted | {"application_arguments": config})).json()
    other = (await plane.rest("POST", "/v1/sessions", json=wanted)).json()
    await plane.place()
    told = [json.loads((await agent.assignment(each["session_id"])).secrets) for each in (own, other)]

    assert told == [
        {"omni_user": "ann", "omni_pass": "hers", **config},
        {"omni_user": "service", "omni_pass": SECRET},
    ]
    assert "hers" not in str(own)


async def test_what_was_read_is_written_back_without_the_secrets(plane: Control) -> None:
    """A redacted value keeps what is stored; what is left out is gone; and the etag follows the values."""
    await plane.apply(version("2.0.0", **VERSION))
    first = (await put(plane, NUCLEUS)).json()
    same = (await put(plane, NUCLEUS)).json()
    read = (await plane.rest("GET", "/v1/profiles/nucleus")).json()

    kept = (await put(plane, {**read, "description": "d"})).json()
    other = (
        await plane.rest(
            "PATCH", "/v1/profiles/nucleus?update_mask=secrets.omni_user", json={"secrets": {"omni_user": "eve"}}
        )
    ).json()
    agent = await linked(plane)
    made = await plane.create(profile="nucleus")
    await plane.place()
    told = await agent.ready(made.session_id)
    unknown = await put(plane, {"secrets": {"new": REDACTED}})
    gone = (await put(plane, {"description": "d", "secrets": {"omni_user": REDACTED}})).json()

    assert first["etag"] == same["etag"]
    assert len({first["etag"], kept["etag"], other["etag"], gone["etag"]}) == 4
    assert json.loads(told.secrets) == {"omni_user": "eve", "omni_pass": SECRET}
    assert problem(unknown)["field"] == "profile.secrets['new']"
    assert gone["secrets"] == {"omni_user": REDACTED}


async def test_a_secret_that_an_older_replica_stored_as_it_came_is_shown_nowhere(plane: Control) -> None:
    """It does not know the member, and keeps it in what it stores; the value must then be given again."""
    stored = profile_pb2.Profile(profile="nucleus", secrets={"omni_pass": SECRET}, environment={"A": "{omni_pass}"})
    await plane.store.write(
        lambda tx: applications.put_profile(tx, "nucleus", stored.SerializeToString(), None, now=plane.clock())
    )

    read = await plane.rest("GET", "/v1/profiles/nucleus")
    again = await put(plane, read.json())

    assert read.json()["secrets"] == {"omni_pass": REDACTED}
    assert problem(again)["field"] == "profile.secrets['omni_pass']"
    assert SECRET not in read.text + again.text


async def test_a_profile_that_does_not_suit_is_said_at_creation(plane: Control) -> None:
    """With what does not, before anything is made."""
    await plane.apply(version("2.0.0", **VERSION))
    await put(plane, {"arguments": {"speed": 1}})

    answer = await plane.rest("POST", "/v1/sessions", json={"application": "fake", "profile": "nucleus"})

    assert answer.status_code == 400
    assert problem(answer)["reason"] == "PROFILE_NOT_APPLICABLE"
    assert "arguments.speed" in problem(answer)["message"]
    assert (await plane.rest("GET", "/v1/sessions")).json().get("items", []) == []


async def test_kit_app_streamings_profiles_give_the_same(tmp_path: Any, migrated: Any) -> None:
    """A client of Kit App Streaming names a profile; its secrets reach the application, and no client."""
    async with control(tmp_path, migrated, kas=True, kas_user="kas", min_isolation="none") as plane:
        await plane.apply(version("2.0.0", **VERSION))
        await plane.rest("PUT", "/v1/profiles/default", json=NUCLEUS)
        agent = await linked(plane)

        made = await plane.rest("POST", "/streaming/stream", "", json={"id": "fake", "profile": "default"})
        listed = await plane.rest("GET", "/cfg/apps/fake/versions/2.0.0/profiles", "")
        await plane.place()
        told = await agent.ready(made.json()["id"])

    assert made.status_code == 202
    assert json.loads(told.secrets) == {"omni_user": "service", "omni_pass": SECRET}
    assert SECRET not in made.text + listed.text
    assert handshake.SECRET_VARIABLES in handshake.ours().features
