"""AppConfigService and AppEditService: what can be streamed, as Kit App Streaming's manager of applications has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.empty_pb2 import Empty

from footlights import errors
from footlights.control.services.kas.streams import DEFAULT, LATEST
from footlights.control.services.kas.wording import in_its_words
from footlights.control.services.sessions import resolve
from footlights.kas.v1 import kit_app_streaming_pb2 as kas_pb2
from footlights.v1 import application_pb2, profile_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from footlights.control.call.context import Call
    from footlights.control.services.applications import ApplicationService
    from footlights.control.services.profiles import ProfileService

_ANY: Final = "*"
_PAGE: Final = 1000
_MOST_PAGES: Final = 10
"""Clients read one answer, so that is as large as it gets."""


class AppConfigService:
    """Shows applications to clients of Kit App Streaming."""

    def __init__(self, applications: ApplicationService, profiles: ProfileService) -> None:
        self._applications, self._profiles = applications, profiles

    @in_its_words
    async def list_apps(self, request: kas_pb2.ListAppsRequest, call: Call) -> kas_pb2.ListAppsResponse:
        """Return all applications."""
        found = await _all(
            lambda token: self._applications.list_applications(
                application_pb2.ListApplicationsRequest(limit=_PAGE, page_token=token), call
            )
        )
        return kas_pb2.ListAppsResponse(items=map(_app, found), count=len(found), limit=len(found))

    @in_its_words
    async def get_app(self, request: kas_pb2.GetAppRequest, call: Call) -> kas_pb2.App:
        """Return one application."""
        wanted = application_pb2.GetApplicationRequest(application=request.id)
        return _app(await self._applications.get_application(wanted, call))

    @in_its_words
    async def list_app_versions(
        self, request: kas_pb2.ListAppVersionsRequest, call: Call
    ) -> kas_pb2.ListAppVersionsResponse:
        """Return all versions of an application, newest first."""
        found = await _all(
            lambda token: self._applications.list_versions(
                application_pb2.ListVersionsRequest(application=request.id, limit=_PAGE, page_token=token), call
            )
        )
        return kas_pb2.ListAppVersionsResponse(items=map(_version, found), count=len(found), limit=len(found))

    @in_its_words
    async def list_app_profiles(
        self, request: kas_pb2.ListAppProfilesRequest, call: Call
    ) -> kas_pb2.ListAppProfilesResponse:
        """Return the profiles that may be used with a version; ``default`` where there is none of this name."""
        application, version = (("" if each == _ANY else each) for each in (request.id, request.version))
        if application and version:
            version = await self._meant(application, version, call)
            wanted = application_pb2.GetVersionRequest(application=application, version=version)
            await self._applications.get_version(wanted, call)
        elif application:
            await self._applications.get_application(
                application_pb2.GetApplicationRequest(application=application), call
            )
        found = await _all(
            lambda token: self._profiles.list_profiles(
                profile_pb2.ListProfilesRequest(application=application, limit=_PAGE, page_token=token), call
            )
        )
        fitting = [each for each in found if not application or resolve.matches(each, application, version)]
        items = [
            kas_pb2.AppProfile(id=each.profile, name=each.profile, description=each.description) for each in fitting
        ]
        if all(each.profile != DEFAULT for each in found):
            text = "The version as it is."
            items.insert(0, kas_pb2.AppProfile(id=DEFAULT, name=DEFAULT, description=text))
        return kas_pb2.ListAppProfilesResponse(items=items, count=len(items), limit=len(items))

    async def _meant(self, application: str, named: str, call: Call) -> str:
        """Return the version that is meant by a version's or release's name, or by ``latest``, as streams take them."""
        asked = application_pb2.GetApplicationRequest(application=application)
        releases = (await self._applications.get_application(asked, call)).releases
        if named == LATEST and DEFAULT not in releases:
            newest = application_pb2.ListVersionsRequest(application=application, limit=1)
            return next((each.version for each in (await self._applications.list_versions(newest, call)).items), named)
        return releases.get(DEFAULT if named == LATEST else named, named)


class AppEditService:
    """Edits applications for clients of Kit App Streaming."""

    def __init__(self, applications: ApplicationService) -> None:
        self._applications = applications

    @in_its_words
    async def create_app(self, request: kas_pb2.CreateAppRequest, call: Call) -> kas_pb2.CreateAppResponse:
        """Create an application."""
        try:
            await self._applications.get_application(
                application_pb2.GetApplicationRequest(application=request.id), call
            )
        except errors.NotFound:
            await self._describe(request, call)
            return kas_pb2.CreateAppResponse(id=request.id)
        raise errors.AlreadyExists(
            f"id: the application {request.id!r} exists. Change it with PUT /cfg/apps/{request.id}."
        )

    @in_its_words
    async def update_app(self, request: kas_pb2.UpdateAppRequest, call: Call) -> kas_pb2.App:
        """Change how an application is described."""
        await self._applications.get_application(application_pb2.GetApplicationRequest(application=request.id), call)
        return _app(await self._describe(request, call))

    @in_its_words
    async def delete_app(self, request: kas_pb2.DeleteAppRequest, call: Call) -> Empty:
        """Delete an application with its versions."""
        await self._applications.delete_application(
            application_pb2.DeleteApplicationRequest(application=request.id), call
        )
        return Empty()

    @in_its_words
    async def create_app_version(
        self, request: kas_pb2.CreateAppVersionRequest, call: Call
    ) -> kas_pb2.CreateAppVersionResponse:
        """Add a version with another image."""
        wanted = application_pb2.ListVersionsRequest(application=request.id, limit=1)
        found = await self._applications.list_versions(wanted, call)
        if not found.items or not found.items[0].HasField("container"):
            raise errors.FailedPrecondition(
                f"{request.id} has no version with an image to take the rest from. Register its first one with "
                "footlights apps apply.",
            )
        version = found.items[0]
        image = application_pb2.Container(image=f"{request.container}:{request.container_version}")
        version.MergeFrom(application_pb2.Version(version=request.version, container=image))
        version.ClearField("application")
        version.ClearField("created_time")
        added = application_pb2.CreateVersionRequest(application=request.id, version=version)
        await self._applications.create_version(added, call)
        return kas_pb2.CreateAppVersionResponse(version=request.version)

    @in_its_words
    async def delete_app_version(self, request: kas_pb2.DeleteAppVersionRequest, call: Call) -> Empty:
        """Delete a version."""
        gone = application_pb2.DeleteVersionRequest(application=request.id, version=request.version)
        await self._applications.delete_version(gone, call)
        return Empty()

    async def _describe(
        self, request: kas_pb2.CreateAppRequest | kas_pb2.UpdateAppRequest, call: Call
    ) -> application_pb2.Application:
        wanted = application_pb2.Application(
            application=request.id, display_name=request.name, description=request.description, tags=request.tags
        )
        answer = await self._applications.apply_application(
            application_pb2.ApplyApplicationRequest(application=wanted), call
        )
        return answer.application


async def _all(page: Callable[[str], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Return the items of all pages, as far as one answer goes."""
    items: list[Any] = []
    token = ""
    for _ in range(_MOST_PAGES):
        found = await page(token)
        items += found.items
        token = found.next_page_token
        if not token:
            break
    return items


def _app(application: application_pb2.Application) -> kas_pb2.App:
    return kas_pb2.App(
        id=application.application,
        name=application.display_name or application.application,
        description=application.description,
        tags=application.tags,
    )


def _version(version: application_pb2.Version) -> kas_pb2.AppVersion:
    image, _, tag = version.container.image.rpartition(":")
    if "/" in tag or not image:
        image, tag = version.container.image, ""
    return kas_pb2.AppVersion(version=version.version, container=image, container_version=tag)
