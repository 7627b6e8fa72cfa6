"""Applications, versions, releases and profiles: ApplicationService and ProfileService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.client.pages import Items, items
from footlights.v1 import application_pb2 as pb
from footlights.v1 import profile_pb2
from footlights.v1.application_pb2_grpc import ApplicationServiceStub
from footlights.v1.profile_pb2_grpc import ProfileServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from footlights.client.connection import CallOptions, ChangeOptions, Connection, WriteOptions


class Applications:
    """ApplicationService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ApplicationServiceStub(connection.channel)

    async def list(
        self, request: pb.ListApplicationsRequest | None = None, **options: Unpack[CallOptions]
    ) -> pb.ListApplicationsResponse:
        """Return one page of applications, by id."""
        wanted = request or pb.ListApplicationsRequest()
        return await self._connection.call(self._stub.ListApplications, wanted, pb.ListApplicationsResponse, options)

    def iterate(self, **options: Unpack[CallOptions]) -> Items[pb.ListApplicationsResponse, pb.Application]:
        """Return all applications, by id."""
        return items(lambda wanted: self.list(wanted, **options), pb.ListApplicationsRequest())

    async def get(self, application: str, **options: Unpack[CallOptions]) -> pb.Application:
        """Return one application."""
        request = pb.GetApplicationRequest(application=application)
        return await self._connection.call(self._stub.GetApplication, request, pb.Application, options)

    async def apply(
        self, request: pb.ApplyApplicationRequest, **options: Unpack[ChangeOptions]
    ) -> pb.ApplyApplicationResponse:
        """Apply a manifest, completely or not at all."""
        return await self._connection.call(self._stub.ApplyApplication, request, pb.ApplyApplicationResponse, options)

    async def delete(self, application: str, **options: Unpack[ChangeOptions]) -> pb.DeleteApplicationResponse:
        """Delete an application with its versions and releases."""
        request = pb.DeleteApplicationRequest(application=application)
        return await self._connection.call(self._stub.DeleteApplication, request, pb.DeleteApplicationResponse, options)

    async def list_versions(self, application: str, **options: Unpack[CallOptions]) -> pb.ListVersionsResponse:
        """Return the first page of an application's versions, newest first."""
        return await self._list_versions(pb.ListVersionsRequest(application=application), options)

    def iterate_versions(
        self, application: str, **options: Unpack[CallOptions]
    ) -> Items[pb.ListVersionsResponse, pb.Version]:
        """Return all versions of an application, newest first."""
        request = pb.ListVersionsRequest(application=application)
        return items(lambda wanted: self._list_versions(wanted, options), request)

    async def get_version(self, application: str, version: str, **options: Unpack[CallOptions]) -> pb.Version:
        """Return one version."""
        request = pb.GetVersionRequest(application=application, version=version)
        return await self._connection.call(self._stub.GetVersion, request, pb.Version, options)

    async def create_version(
        self, application: str, version: pb.Version, **options: Unpack[WriteOptions]
    ) -> pb.Version:
        """Register a version; it cannot be changed afterwards."""
        request = pb.CreateVersionRequest(application=application, version=version)
        return await self._connection.call(self._stub.CreateVersion, request, pb.Version, options)

    async def delete_version(
        self, application: str, version: str, **options: Unpack[WriteOptions]
    ) -> pb.DeleteVersionResponse:
        """Delete a version that no release points at and no session runs."""
        request = pb.DeleteVersionRequest(application=application, version=version)
        return await self._connection.call(self._stub.DeleteVersion, request, pb.DeleteVersionResponse, options)

    async def list_releases(self, application: str, **options: Unpack[CallOptions]) -> pb.ListReleasesResponse:
        """Return the first page of an application's releases, by name."""
        return await self._list_releases(pb.ListReleasesRequest(application=application), options)

    def iterate_releases(
        self, application: str, **options: Unpack[CallOptions]
    ) -> Items[pb.ListReleasesResponse, pb.Release]:
        """Return all releases of an application, by name."""
        request = pb.ListReleasesRequest(application=application)
        return items(lambda wanted: self._list_releases(wanted, options), request)

    async def get_release(self, application: str, release: str, **options: Unpack[CallOptions]) -> pb.Release:
        """Return one release, with its history."""
        request = pb.GetReleaseRequest(application=application, release=release)
        return await self._connection.call(self._stub.GetRelease, request, pb.Release, options)

    async def set_release(
        self, application: str, release: str, version: str, **options: Unpack[ChangeOptions]
    ) -> pb.Release:
        """Point a release at a version; the release is created if needed."""
        request = pb.SetReleaseRequest(application=application, release=release, version=version)
        return await self._connection.call(self._stub.SetRelease, request, pb.Release, options)

    async def update_release(
        self, release: pb.Release, paths: Iterable[str] = (), **options: Unpack[ChangeOptions]
    ) -> pb.Release:
        """Change a release that exists.

        Args:
            release: its application and name, and the members to change: the version.
            paths: the members to change. Empty: those that ``release`` has.
            options: as of every change.
        """
        request = pb.UpdateReleaseRequest(release=release)
        request.update_mask.paths.extend(paths)
        return await self._connection.call(self._stub.UpdateRelease, request, pb.Release, options)

    async def delete_release(
        self, application: str, release: str, **options: Unpack[ChangeOptions]
    ) -> pb.DeleteReleaseResponse:
        """Delete a release; its version stays."""
        request = pb.DeleteReleaseRequest(application=application, release=release)
        return await self._connection.call(self._stub.DeleteRelease, request, pb.DeleteReleaseResponse, options)

    async def _list_versions(self, request: pb.ListVersionsRequest, options: CallOptions) -> pb.ListVersionsResponse:
        return await self._connection.call(self._stub.ListVersions, request, pb.ListVersionsResponse, options)

    async def _list_releases(self, request: pb.ListReleasesRequest, options: CallOptions) -> pb.ListReleasesResponse:
        return await self._connection.call(self._stub.ListReleases, request, pb.ListReleasesResponse, options)


class Profiles:
    """ProfileService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ProfileServiceStub(connection.channel)

    async def list(self, application: str = "", **options: Unpack[CallOptions]) -> profile_pb2.ListProfilesResponse:
        """Return the first page of profiles, by name; with ``application`` only those that match it."""
        return await self._list(profile_pb2.ListProfilesRequest(application=application), options)

    def iterate(
        self, application: str = "", **options: Unpack[CallOptions]
    ) -> Items[profile_pb2.ListProfilesResponse, profile_pb2.Profile]:
        """Return all profiles, by name; with ``application`` only those that match it."""
        request = profile_pb2.ListProfilesRequest(application=application)
        return items(lambda wanted: self._list(wanted, options), request)

    async def get(self, profile: str, **options: Unpack[CallOptions]) -> profile_pb2.Profile:
        """Return one profile."""
        request = profile_pb2.GetProfileRequest(profile=profile)
        return await self._connection.call(self._stub.GetProfile, request, profile_pb2.Profile, options)

    async def set(self, profile: profile_pb2.Profile, **options: Unpack[ChangeOptions]) -> profile_pb2.Profile:
        """Create or replace a profile."""
        request = profile_pb2.SetProfileRequest(profile=profile)
        return await self._connection.call(self._stub.SetProfile, request, profile_pb2.Profile, options)

    async def update(
        self, profile: profile_pb2.Profile, paths: Iterable[str] = (), **options: Unpack[ChangeOptions]
    ) -> profile_pb2.Profile:
        """Change members of a profile that exists.

        Args:
            profile: its name, and the members to change.
            paths: the members to change, such as ``limits.max_duration``; one that ``profile`` lacks is cleared. Empty:
                those that ``profile`` has.
            options: as of every change.
        """
        request = profile_pb2.UpdateProfileRequest(profile=profile)
        request.update_mask.paths.extend(paths)
        return await self._connection.call(self._stub.UpdateProfile, request, profile_pb2.Profile, options)

    async def delete(self, profile: str, **options: Unpack[ChangeOptions]) -> profile_pb2.DeleteProfileResponse:
        """Delete a profile."""
        request = profile_pb2.DeleteProfileRequest(profile=profile)
        return await self._connection.call(
            self._stub.DeleteProfile, request, profile_pb2.DeleteProfileResponse, options
        )

    async def _list(
        self, request: profile_pb2.ListProfilesRequest, options: CallOptions
    ) -> profile_pb2.ListProfilesResponse:
        return await self._connection.call(self._stub.ListProfiles, request, profile_pb2.ListProfilesResponse, options)
