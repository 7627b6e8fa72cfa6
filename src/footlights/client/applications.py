"""Applications, versions, releases and profiles: ApplicationService and ProfileService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.v1 import application_pb2 as pb
from footlights.v1 import profile_pb2
from footlights.v1.application_pb2_grpc import ApplicationServiceStub
from footlights.v1.profile_pb2_grpc import ProfileServiceStub

if TYPE_CHECKING:
    from footlights.client.connection import Connection


class Applications:
    """ApplicationService. Every method raises ``footlights.errors.Error``; ``timeout_s`` is the call's deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ApplicationServiceStub(connection.channel)

    async def list(
        self, request: pb.ListApplicationsRequest | None = None, *, timeout_s: float | None = None
    ) -> pb.ListApplicationsResponse:
        """Return one page of applications, by id."""
        wanted = request or pb.ListApplicationsRequest()
        return await self._connection.call(self._stub.ListApplications, wanted, pb.ListApplicationsResponse, timeout_s)

    async def get(self, application: str, *, timeout_s: float | None = None) -> pb.Application:
        """Return one application."""
        request = pb.GetApplicationRequest(application=application)
        return await self._connection.call(self._stub.GetApplication, request, pb.Application, timeout_s)

    async def apply(
        self, request: pb.ApplyApplicationRequest, *, timeout_s: float | None = None
    ) -> pb.ApplyApplicationResponse:
        """Apply a manifest, completely or not at all."""
        return await self._connection.call(self._stub.ApplyApplication, request, pb.ApplyApplicationResponse, timeout_s)

    async def delete(self, application: str, *, timeout_s: float | None = None) -> pb.DeleteApplicationResponse:
        """Delete an application with its versions and releases."""
        request = pb.DeleteApplicationRequest(application=application)
        return await self._connection.call(
            self._stub.DeleteApplication, request, pb.DeleteApplicationResponse, timeout_s
        )

    async def list_versions(self, application: str, *, timeout_s: float | None = None) -> pb.ListVersionsResponse:
        """Return an application's versions, newest first."""
        request = pb.ListVersionsRequest(application=application)
        return await self._connection.whole(self._stub.ListVersions, request, pb.ListVersionsResponse, timeout_s)

    async def get_version(self, application: str, version: str, *, timeout_s: float | None = None) -> pb.Version:
        """Return one version."""
        request = pb.GetVersionRequest(application=application, version=version)
        return await self._connection.call(self._stub.GetVersion, request, pb.Version, timeout_s)

    async def create_version(
        self, application: str, version: pb.Version, *, timeout_s: float | None = None
    ) -> pb.Version:
        """Register a version; it cannot be changed afterwards."""
        request = pb.CreateVersionRequest(application=application, version=version)
        return await self._connection.call(self._stub.CreateVersion, request, pb.Version, timeout_s)

    async def delete_version(
        self, application: str, version: str, *, timeout_s: float | None = None
    ) -> pb.DeleteVersionResponse:
        """Delete a version that no release points at and no session runs."""
        request = pb.DeleteVersionRequest(application=application, version=version)
        return await self._connection.call(self._stub.DeleteVersion, request, pb.DeleteVersionResponse, timeout_s)

    async def list_releases(self, application: str, *, timeout_s: float | None = None) -> pb.ListReleasesResponse:
        """Return an application's releases, by name."""
        request = pb.ListReleasesRequest(application=application)
        return await self._connection.whole(self._stub.ListReleases, request, pb.ListReleasesResponse, timeout_s)

    async def set_release(
        self, application: str, release: str, version: str, *, timeout_s: float | None = None
    ) -> pb.Release:
        """Point a release at a version."""
        request = pb.SetReleaseRequest(application=application, release=release, version=version)
        return await self._connection.call(self._stub.SetRelease, request, pb.Release, timeout_s)

    async def delete_release(
        self, application: str, release: str, *, timeout_s: float | None = None
    ) -> pb.DeleteReleaseResponse:
        """Delete a release; its version stays."""
        request = pb.DeleteReleaseRequest(application=application, release=release)
        return await self._connection.call(self._stub.DeleteRelease, request, pb.DeleteReleaseResponse, timeout_s)


class Profiles:
    """ProfileService. Every method raises ``footlights.errors.Error``; ``timeout_s`` is the call's deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ProfileServiceStub(connection.channel)

    async def list(self, application: str = "", *, timeout_s: float | None = None) -> profile_pb2.ListProfilesResponse:
        """Return the profiles, by name; with ``application`` only those that match it."""
        request = profile_pb2.ListProfilesRequest(application=application)
        return await self._connection.whole(
            self._stub.ListProfiles, request, profile_pb2.ListProfilesResponse, timeout_s
        )

    async def get(self, profile: str, *, timeout_s: float | None = None) -> profile_pb2.Profile:
        """Return one profile."""
        request = profile_pb2.GetProfileRequest(profile=profile)
        return await self._connection.call(self._stub.GetProfile, request, profile_pb2.Profile, timeout_s)

    async def set(self, profile: profile_pb2.Profile, *, timeout_s: float | None = None) -> profile_pb2.Profile:
        """Create or replace a profile."""
        request = profile_pb2.SetProfileRequest(profile=profile)
        return await self._connection.call(self._stub.SetProfile, request, profile_pb2.Profile, timeout_s)

    async def delete(self, profile: str, *, timeout_s: float | None = None) -> profile_pb2.DeleteProfileResponse:
        """Delete a profile."""
        request = profile_pb2.DeleteProfileRequest(profile=profile)
        return await self._connection.call(
            self._stub.DeleteProfile, request, profile_pb2.DeleteProfileResponse, timeout_s
        )
