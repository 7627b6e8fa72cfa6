"""Applications, versions, releases and profiles as data.

Covers ``services.applications``, ``services.profiles``, ``services.catalog`` and ``control.stored``.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from footlights.v1 import application_pb2, profile_pb2
from google.protobuf.message import Message
from sqlalchemy import delete, update

from footlights import errors
from footlights.control.services.catalog import Catalog
from footlights.launch.recipe.limits import InstallationLimits
from footlights.store.applications import MOST_CHANGES
from footlights.store.schema import FORMER_VERSION, RELEASE, RELEASE_CHANGE
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


@pytest.mark.parametrize("remove", ["version", "application"])
async def test_a_version_that_was_removed_comes_back_as_it_was(plane: Control, remove: str) -> None:
    """With its recipe alone, however it was removed: what is known of its sessions stays true."""
    for path in {"version": ["/releases/default", "/versions/1.0.0"], "application": [""]}[remove]:
        assert (await plane.rest("DELETE", f"/applications/fake{path}")).status_code == 200

    other = {"application": {}, "versions": [{"version": "1.0.0", "fake": {}, "description": "another recipe"}]}
    refused = await plane.rest("PUT", "/applications/fake", json=other)
    back = await plane.apply(version())

    assert (refused.status_code, problem(refused)["reason"]) == (409, "VERSION_EXISTS")
    assert "fake 1.0.0 was removed, and its recipe was different" in problem(refused)["message"]
    assert list(back.created_versions) == ["1.0.0"]


async def test_a_versions_recipe_is_made_once(plane: Control) -> None:
    """Sessions that are created in the same moment share it; a version that came again under the name has its own."""
    await plane.apply(version("2.0.0", description="one"), releases={})
    catalog = Catalog(plane.store, plane.plane.signals, installation=InstallationLimits())
    first = [await catalog.resolve("fake", "2.0.0", "") for _ in range(2)]
    await call(plane, "DeleteVersion", pb.DeleteVersionRequest(application="fake", version="2.0.0"))
    # As a server of the release before has removed it.
    await plane.store.write(lambda tx: tx.changed(delete(FORMER_VERSION)))
    await plane.apply(version("2.0.0", description="another"), releases={})
    again = await catalog.resolve("fake", "2.0.0", "")

    assert first[0].recipe is first[1].recipe
    assert first[0].recipe.carried.recipe.description == "one"
    assert again.recipe.carried.recipe.description == "another"
    assert again.recipe.carried.digest != first[0].recipe.carried.digest


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
    assert made.json()["needs"]["gpu"] is True
    assert replaced.json()["matches"] == []
    assert "gpu" not in replaced.json()["needs"]
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
        (profile_pb2.Profile(profile="a", limits=pb.Limits(unlimited=["start_timeout"])), "profile.limits.unlimited"),
        (profile_pb2.Profile(profile="a", limits=pb.Limits(unlimited=["patience"])), "profile.limits.unlimited"),
        (
            profile_pb2.Profile(profile="a", limits=pb.Limits(idle_timeout=seconds(1), unlimited=["idle_timeout"])),
            "profile.limits.idle_timeout",
        ),
        (profile_pb2.Profile(profile="a", needs=pb.Needs(cleared=["gpu"])), "profile.needs.cleared"),
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


# The history of a release


async def _release(plane: Control, name: str = "default") -> pb.Release:
    release: pb.Release = await call(plane, "GetRelease", pb.GetReleaseRequest(application="fake", release=name))
    return release


def _history(release: pb.Release) -> list[tuple[str, str]]:
    return [(change.version, change.subject) for change in release.history]


async def test_a_release_says_who_pointed_it_where_and_when(plane: Control) -> None:
    """Newest first, by whichever call; a call that points it where it is adds nothing. Lists leave it out."""
    bo = await plane.token("OPERATOR", "bo")
    await plane.apply(version(), version("2.0.0"), releases={})
    plane.clock.pass_s(60)
    request = pb.SetReleaseRequest(application="fake", release="default", version="2.0.0")
    for _ in range(2):
        await plane.call("ApplicationService.SetRelease", request, bo)
    plane.clock.pass_s(60)
    await plane.rest("PATCH", "/v1/applications/fake/releases/default", json={"version": "1.0.0"})

    release = await _release(plane)
    listed = await call(plane, "ListReleases", pb.ListReleasesRequest(application="fake"))

    assert _history(release) == [("1.0.0", "admin"), ("2.0.0", "bo"), ("1.0.0", "admin")]
    times = [change.time.seconds for change in release.history]
    assert [later - earlier for later, earlier in itertools.pairwise(times)] == [60, 60]
    assert release.history[0].time == release.updated_time
    assert [list(item.history) for item in listed.items] == [[]]
    with pytest.raises(errors.NotFound):
        await _release(plane, "none")


async def test_what_an_older_server_does_to_a_release_is_in_its_history(plane: Control) -> None:
    """Without a name: it writes no history. Nothing of a release that was deleted comes back."""
    await plane.apply(version(), version("2.0.0"), releases={})
    plane.clock.pass_s(60)
    await plane.store.write(lambda tx: tx.changed(update(RELEASE).values(version="2.0.0", updated_time=plane.clock())))

    between = await _release(plane)
    plane.clock.pass_s(60)
    await plane.apply(releases={"default": "1.0.0"})
    after = await _release(plane)
    await plane.store.write(lambda tx: tx.changed(delete(RELEASE)))
    await plane.apply()

    assert _history(between) == [("2.0.0", ""), ("1.0.0", "admin")]
    assert _history(after) == [("1.0.0", "admin"), ("2.0.0", ""), ("1.0.0", "admin")]
    assert _history(await _release(plane)) == [("1.0.0", "admin")]


async def test_a_history_is_bounded(plane: Control) -> None:
    """The newest hundred changes are kept."""
    await plane.apply(version(), version("2.0.0"), releases={})
    for number in range(MOST_CHANGES + 5):
        request = pb.SetReleaseRequest(application="fake", release="default", version=f"{2 - number % 2}.0.0")
        await call(plane, "SetRelease", request)

    assert len((await _release(plane)).history) == MOST_CHANGES
    assert await plane.store.read(lambda tx: len(tx.execute(RELEASE_CHANGE.select()).all())) == MOST_CHANGES


async def test_a_release_that_does_not_exist_is_not_created_by_an_update(plane: Control) -> None:
    """404; and a version that does not exist, or is cleared, is refused."""
    path = "/v1/applications/fake/releases"

    missing = await plane.rest("PATCH", f"{path}/none", json={"version": "1.0.0"})
    unknown = await plane.rest("PATCH", f"{path}/default", json={"version": "9.0.0"})
    cleared = await plane.rest("PATCH", f"{path}/default", params={"update_mask": "version"}, json={})
    moved = await plane.rest(
        "PATCH",
        f"{path}/default",
        params={"update_mask": "updated_time"},
        json={"updated_time": "2026-03-01T12:00:00Z"},
    )

    assert missing.status_code == 404
    assert (unknown.status_code, problem(unknown)["field"]) == (400, "release.version")
    assert (cleared.status_code, problem(cleared)["field"]) == (400, "release.version")
    assert (moved.status_code, problem(moved)["reason"]) == (400, "FIELD_IMMUTABLE")


# What would erase by saying nothing


@pytest.mark.parametrize("body", [{}, {"needs": {}, "limits": {}}])
async def test_a_profile_is_not_erased_by_an_empty_body(plane: Control, body: dict[str, Any]) -> None:
    """Over both wires, with the way to what was meant; a new one may be empty, and one that says something replaces."""
    await plane.rest("PUT", "/v1/profiles/big", json={"description": "Big.", "needs": {"gpu": True}})

    refused = await plane.rest("PUT", "/v1/profiles/big", json=body)
    request = profile_pb2.SetProfileRequest(profile=profile_pb2.Profile(profile="big"))
    with pytest.raises(errors.FailedPrecondition) as caught:
        await plane.call("ProfileService.SetProfile", request)

    assert (refused.status_code, problem(refused)["reason"]) == (400, "EMPTY_RESOURCE")
    assert "Change members of it with PATCH, or remove it with DELETE" in problem(refused)["message"]
    assert caught.value.reason == "EMPTY_RESOURCE"
    assert (await plane.rest("GET", "/v1/profiles/big")).json()["description"] == "Big."
    for path in ("/v1/profiles/new", "/v1/profiles/new"):
        assert (await plane.rest("PUT", path, json=body)).status_code == 200
    assert (await plane.rest("PUT", "/v1/profiles/big", json={"description": "B."})).json().get("needs") is None


async def test_an_application_is_not_erased_by_a_manifest_that_has_only_its_name(plane: Control) -> None:
    """Also where the manifest adds versions; one without a description to lose takes them."""
    described = {"application": {"display_name": "Fake", "tags": ["a"]}}
    await plane.rest("PUT", "/v1/applications/fake", json=described)

    empty = await plane.rest("PUT", "/v1/applications/fake", json={})
    with pytest.raises(errors.FailedPrecondition) as caught:
        await plane.apply(version("2.0.0"))

    assert (empty.status_code, problem(empty)["reason"]) == (400, "EMPTY_RESOURCE")
    assert caught.value.reason == "EMPTY_RESOURCE"
    assert (await plane.rest("GET", "/v1/applications/fake")).json()["display_name"] == "Fake"
    assert (await plane.rest("GET", "/v1/applications/fake/versions/2.0.0")).status_code == 404


# Members of a profile


async def test_members_of_a_profile_are_changed_one_by_one(plane: Control) -> None:
    """What the body does not name stays; what is named and absent is cleared; the checks are those of a whole one."""
    whole = {"description": "Big.", "needs": {"gpu": True, "slots": 2}, "limits": {"max_duration": "60s"}}
    await plane.rest("PUT", "/v1/profiles/big", json=whole)

    relaxed = await plane.rest("PATCH", "/v1/profiles/big", json={"needs": {"gpu": False}})
    cleared = await plane.rest("PATCH", "/v1/profiles/big", params={"update_mask": "limits.max_duration"}, json={})
    wrong = await plane.rest("PATCH", "/v1/profiles/big", json={"limits": {"idle_timeout": "-1s"}})
    missing = await plane.rest("PATCH", "/v1/profiles/none", json={"description": "x"})

    assert relaxed.json()["needs"] == {**relaxed.json()["needs"], "gpu": False, "slots": 2}
    assert relaxed.json()["description"] == "Big."
    assert cleared.json()["limits"].get("max_duration") is None
    assert (wrong.status_code, problem(wrong)["field"]) == (400, "profile.limits.idle_timeout")
    assert missing.status_code == 404
