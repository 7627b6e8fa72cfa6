"""Applications, versions, releases and profiles as data.

Covers ``services.applications``, ``services.profiles``, ``services.catalog`` and ``control.stored``.
"""

from __future__ import annotations

from typing import Any

import pytest
from footlights.v1 import application_pb2, profile_pb2
from google.protobuf.message import Message

from footlights import errors
from tests.control.harness import Control, problem, seconds, version

pb = application_pb2


async def call(plane: Control, rpc: str, request: Message) -> Any:
    return await plane.call(f"ApplicationService.{rpc}", request)


async def test_an_application_is_applied_as_a_whole(plane: Control) -> None:
    """Created with its versions and releases; applied again it changes nothing and says so."""
    first = await plane.apply(version("1.0.0"), version("1.1.0"), application="viewer", releases={"default": "1.1.0"})
    again = await plane.apply(version("1.0.0"), version("1.1.0"), application="viewer", releases={"default": "1.1.0"})

    assert list(first.created_versions) == ["1.0.0", "1.1.0"]
    assert list(first.changed_releases) == ["default"]
    assert (list(again.created_versions), list(again.changed_releases)) == ([], [])
    assert dict(again.application.releases) == {"default": "1.1.0"}


async def test_a_manifest_that_is_wrong_anywhere_changes_nothing(plane: Control) -> None:
    """All or nothing: neither the description nor the first version."""
    manifest = {
        "application": {"display_name": "New name"},
        "versions": [{"version": "1.5.0", "fake": {}}],
        "releases": {"default": "9.9.9"},
    }

    answer = await plane.rest("PUT", "/applications/fake", json=manifest)

    assert answer.status_code == 400
    assert problem(answer)["field"] == "releases[default]"
    assert "has no version '9.9.9'; choose from 1.0.0" in problem(answer)["message"]
    assert (await plane.rest("GET", "/applications/fake")).json()["display_name"] == ""
    assert (await plane.rest("GET", "/applications/fake/versions/1.5.0")).status_code == 404


async def test_a_version_never_changes(plane: Control) -> None:
    """The same again is well in a manifest; another recipe under its number is refused everywhere."""
    other = version(description="another recipe")

    with pytest.raises(errors.AlreadyExists, match=r"fake 1\.0\.0 exists and is different\. Versions are immutable"):
        await plane.apply(other)
    for recipe in (version(), other):
        with pytest.raises(errors.AlreadyExists) as caught:
            await call(plane, "CreateVersion", pb.CreateVersionRequest(application="fake", version=recipe))
        assert caught.value.reason == "VERSION_EXISTS"

    assert (
        await call(plane, "GetVersion", pb.GetVersionRequest(application="fake", version="1.0.0"))
    ).description == ""


async def test_versions_are_listed_newest_first_by_their_meaning(plane: Control) -> None:
    """1.10.0 is newer than 1.9.0, and a release than its candidate."""
    await plane.apply(*(version(number) for number in ("1.9.0", "1.10.0", "1.10.0-rc.1", "2.0.0-alpha")))

    listed = (await plane.rest("GET", "/applications/fake/versions")).json()["items"]

    assert [item["version"] for item in listed] == ["2.0.0-alpha", "1.10.0", "1.10.0-rc.1", "1.9.0", "1.0.0"]
    assert all(item["application"] == "fake" for item in listed)


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"version": "1"}, "version.version"),
        ({"version": ""}, "version.version"),
        ({"version": "2.0.0"}, "version.command"),
        ({"version": "2.0.0", "command": ["kit", "{nope}"]}, "version.command[1]"),
        ({"version": "2.0.0", "fake": {}, "arguments": [{"name": "A", "type": "STRING"}]}, "version.arguments[0].name"),
        ({"version": "2.0.0", "fake": {}, "needs": {"slots": 65}}, "version.needs.slots"),
        ({"version": "2.0.0", "fake": {}, "limits": {"max_duration": "-1s"}}, "version.limits.max_duration"),
        ({"version": "2.0.0", "container": {"image": "a", "pull_policy": "often"}}, "version.container.pull_policy"),
        ({"version": "2.0.0", "fake": {}, "description": "a\0b"}, "version.description"),
    ],
)
async def test_a_recipe_that_cannot_be_launched_is_refused_at_registration(
    plane: Control, recipe: dict[str, Any], field: str
) -> None:
    """By its path, alone and in a manifest."""
    alone = await plane.rest("POST", "/applications/fake/versions", json=recipe)
    within = await plane.rest("PUT", "/applications/fake", json={"application": {}, "versions": [recipe]})

    assert (alone.status_code, problem(alone)["field"]) == (400, field)
    assert (within.status_code, problem(within)["field"]) == (400, "versions[0]" + field.removeprefix("version"))


@pytest.mark.parametrize("name", ["Fake", "1st", "a_b", "a-", "", "x" * 64, "ünï"])
async def test_ids_have_one_form(plane: Control, name: str) -> None:
    """Lower-case letters, digits and hyphens."""
    with pytest.raises(errors.InvalidArgument) as caught:
        await plane.apply(application=name)
    assert caught.value.field == "application.application"
    with pytest.raises(errors.InvalidArgument) as caught:
        await call(plane, "SetRelease", pb.SetReleaseRequest(application="fake", release=name or "-", version="1.0.0"))
    assert caught.value.field == "release"


async def test_releases_are_pointed_listed_and_removed(plane: Control) -> None:
    """A release that is not there, or a version that is not, is said by name."""
    await plane.apply(version("2.0.0"), releases={})

    made = await plane.rest("PUT", "/applications/fake/releases/canary", json={"version": "2.0.0"})
    wrong = await plane.rest("PUT", "/applications/fake/releases/canary", json={"version": "3.0.0"})
    listed = (await plane.rest("GET", "/applications/fake/releases")).json()["items"]
    gone = await plane.rest("DELETE", "/applications/fake/releases/canary")
    again = await plane.rest("DELETE", "/applications/fake/releases/canary")

    assert made.json()["version"] == "2.0.0"
    assert (wrong.status_code, problem(wrong)["reason"]) == (400, "RELEASE_VERSION_MISSING")
    assert [(item["release"], item["version"]) for item in listed] == [("canary", "2.0.0"), ("default", "1.0.0")]
    assert (gone.status_code, again.status_code) == (200, 404)


async def test_what_is_in_use_cannot_be_deleted(plane: Control) -> None:
    """A version that a release points at or a session runs; an application with a living session."""
    await plane.apply(version("2.0.0"))
    living = await plane.create(application_version="1.0.0")
    paths = {
        "/applications/fake/versions/2.0.0": ("VERSION_IN_USE", "the release 'default' points at 2.0.0"),
        "/applications/fake/versions/1.0.0": ("SESSIONS_ALIVE", "fake 1.0.0 has 1 session"),
        "/applications/fake": ("SESSIONS_ALIVE", "fake has 1 session"),
    }

    for path, (reason, says) in paths.items():
        answer = await plane.rest("DELETE", path)
        assert (answer.status_code, problem(answer)["reason"]) == (400, reason)
        assert says in problem(answer)["message"]

    await plane.terminate(living.session_id)
    assert (await plane.rest("DELETE", "/applications/fake/versions/1.0.0")).status_code == 200
    assert (await plane.rest("DELETE", "/applications/fake")).status_code == 200
    assert (await plane.rest("GET", "/applications/fake")).status_code == 404
    assert (await plane.rest("GET", f"/stream/{living.session_id}")).json()["state"] == "TERMINATED"


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("GET", "/applications/nope", None, "APPLICATION_NOT_FOUND"),
        ("DELETE", "/applications/nope", None, "APPLICATION_NOT_FOUND"),
        ("GET", "/applications/nope/versions", None, "APPLICATION_NOT_FOUND"),
        ("GET", "/applications/nope/releases", None, "APPLICATION_NOT_FOUND"),
        ("POST", "/applications/nope/versions", {"version": "1.0.0", "fake": {}}, "APPLICATION_NOT_FOUND"),
        ("PUT", "/applications/nope/releases/a", {"version": "1.0.0"}, "APPLICATION_NOT_FOUND"),
        ("GET", "/applications/fake/versions/3.0.0", None, "VERSION_NOT_FOUND"),
        ("DELETE", "/applications/fake/versions/3.0.0", None, "VERSION_NOT_FOUND"),
        ("GET", "/profiles/nope", None, "PROFILE_NOT_FOUND"),
        ("DELETE", "/profiles/nope", None, "PROFILE_NOT_FOUND"),
        ("GET", "/nodes/nope", None, "NODE_NOT_FOUND"),
        ("DELETE", "/nodes/nope", None, "NODE_NOT_FOUND"),
        ("POST", "/nodes/nope:cordon", {}, "NODE_NOT_FOUND"),
        ("POST", "/nodes/nope:uncordon", {}, "NODE_NOT_FOUND"),
        ("POST", "/nodes/nope:drain", {}, "NODE_NOT_FOUND"),
        ("DELETE", "/tokens/nope", None, "TOKEN_NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_404_by_name(
    plane: Control, method: str, path: str, body: dict[str, Any] | None, reason: str
) -> None:
    """With where to look."""
    options: dict[str, Any] = {} if body is None else {"json": body}

    answer = await plane.rest(method, path, **options)

    assert (answer.status_code, problem(answer)["reason"]) == (404, reason)
    assert "GET /" in problem(answer)["message"]


async def test_applications_are_paged_by_id(plane: Control) -> None:
    """Each once, in order; the last page has no token."""
    for name in ("b", "a", "c"):
        await plane.apply(application=name)

    first = (await plane.rest("GET", "/applications", params={"limit": 3})).json()
    second = (
        await plane.rest("GET", "/applications", params={"limit": 3, "page_token": first["next_page_token"]})
    ).json()

    assert [item["application"] for item in first["items"] + second["items"]] == ["a", "b", "c", "fake"]
    assert second["next_page_token"] == ""
    assert (await plane.rest("GET", "/applications", params={"limit": 0})).status_code == 400


async def test_profiles_are_set_replaced_listed_and_deleted(plane: Control) -> None:
    """A whole profile at a time; what it leaves unset is unset, and stays so."""
    profile = {"matches": [{"application": "usd-*"}], "needs": {"gpu": True}, "limits": {"max_duration": "60s"}}

    made = await plane.rest("PUT", "/profiles/big", json=profile)
    replaced = await plane.rest("PUT", "/profiles/big", json={"needs": {"min_memory_bytes": "5"}})
    await plane.rest("PUT", "/profiles/usd", json={"matches": [{"application": "usd-*"}]})

    assert made.status_code == 200
    assert made.json()["needs"]["slots"] == 0
    assert replaced.json()["matches"] == []
    assert replaced.json()["needs"]["gpu"] is False
    names = [item["profile"] for item in (await plane.rest("GET", "/profiles")).json()["items"]]
    assert names == ["big", "usd"]
    fitting = (await plane.rest("GET", "/profiles", params={"application": "fake"})).json()["items"]
    assert [item["profile"] for item in fitting] == ["big"]
    assert (await plane.rest("DELETE", "/profiles/big")).status_code == 200
    assert (await plane.rest("GET", "/profiles/big")).status_code == 404


@pytest.mark.parametrize(
    ("profile", "field"),
    [
        (profile_pb2.Profile(profile="Big"), "profile.profile"),
        (profile_pb2.Profile(), "profile.profile"),
        (profile_pb2.Profile(profile="a", limits=pb.Limits(max_duration=seconds(0))), "profile.limits.max_duration"),
        (profile_pb2.Profile(profile="a", needs=pb.Needs(slots=65)), "profile.needs.slots"),
        (profile_pb2.Profile(profile="a", needs=pb.Needs(min_memory_bytes=-1)), "profile.needs.min_memory_bytes"),
        (profile_pb2.Profile(profile="a", matches=[profile_pb2.Profile.Match()]), "profile.matches[0].application"),
    ],
)
async def test_a_wrong_profile_is_refused(plane: Control, profile: profile_pb2.Profile, field: str) -> None:
    """By its path."""
    with pytest.raises(errors.InvalidArgument) as caught:
        await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))

    assert caught.value.field == field
