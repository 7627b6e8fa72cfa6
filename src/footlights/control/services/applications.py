"""ApplicationService: what can be streamed, as data."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import semver
import structlog

from footlights import errors, ids
from footlights.control import stored
from footlights.launch.recipe import recipe
from footlights.protocol.times import timestamp
from footlights.store import Store, Transaction, Unit
from footlights.store import applications as rows
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from footlights.control.call.context import Call
    from footlights.control.signals import Signals
    from footlights.store.schema import ApplicationRow, ReleaseRow

T = TypeVar("T")
log = structlog.get_logger(__name__)


class ApplicationService:
    """Serves applications, versions and releases."""

    def __init__(self, store: Store, bus: Signals, clock: Callable[[], datetime]) -> None:
        self._store, self._bus, self._clock = store, bus, clock

    async def list_applications(
        self, request: application_pb2.ListApplicationsRequest, call: Call
    ) -> application_pb2.ListApplicationsResponse:
        """Return one page, by id. The page token is the last id of the previous page."""

        def read(tx: Transaction) -> application_pb2.ListApplicationsResponse:
            found = rows.page(tx, request.page_token, request.limit + 1)
            items = found[: request.limit]
            return application_pb2.ListApplicationsResponse(
                items=[_application_message(row, rows.releases(tx, row.application)) for row in items],
                next_page_token=items[-1].application if len(found) > request.limit else "",
            )

        return await self._store.read(read)

    async def get_application(
        self, request: application_pb2.GetApplicationRequest, call: Call
    ) -> application_pb2.Application:
        """Return one application."""
        return await self._store.read(lambda tx: _application(tx, request.application))

    async def apply_application(
        self, request: application_pb2.ApplyApplicationRequest, call: Call
    ) -> application_pb2.ApplyApplicationResponse:
        """Apply a manifest, all of it or nothing."""
        wanted = request.application
        violations = errors.Violations()
        with violations:
            ids.check_slug("application.application", wanted.application)
        for index, version in enumerate(request.versions):
            with violations, _prefixed(f"versions[{index}]"):
                recipe.validate(version)
        for name in request.releases:
            with violations:
                ids.check_slug("releases", name)
        violations.refuse()
        now = self._clock()

        def write(tx: Transaction) -> application_pb2.ApplyApplicationResponse:
            rows.put(tx, wanted.application, wanted.display_name, wanted.description, list(wanted.tags), now=now)
            answer = application_pb2.ApplyApplicationResponse()
            for index, version in enumerate(request.versions):
                if _add(tx, wanted.application, version, f"versions[{index}].version", now, same_is_fine=True):
                    answer.created_versions.append(version.version)
            for name, target in sorted(request.releases.items()):
                if _point(tx, wanted.application, name, target, f"releases[{name}]", now):
                    answer.changed_releases.append(name)
            answer.application.CopyFrom(_application(tx, wanted.application))
            return answer

        answer = await self._write(write)
        log.info(
            "application_applied",
            application=wanted.application,
            created_versions=list(answer.created_versions),
            changed_releases=list(answer.changed_releases),
        )
        return answer

    async def delete_application(
        self, request: application_pb2.DeleteApplicationRequest, call: Call
    ) -> application_pb2.DeleteApplicationResponse:
        """Remove an application that has no session which has not ended."""

        def write(tx: Transaction) -> None:
            _application(tx, request.application)
            # Counted after the removal, whose lock waits for sessions that are being created with it.
            rows.remove(tx, request.application)
            _refuse_in_use(tx, request.application, None)

        await self._write(write)
        return application_pb2.DeleteApplicationResponse()

    async def list_versions(
        self, request: application_pb2.ListVersionsRequest, call: Call
    ) -> application_pb2.ListVersionsResponse:
        """Return all versions, newest first by semantic version."""

        def read(tx: Transaction) -> Sequence[application_pb2.Version]:
            _application(tx, request.application)
            found = rows.versions(tx, request.application)
            found.sort(key=lambda row: semver.Version.parse(row.version), reverse=True)
            return [stored.version(row.application, row.recipe, row.created_time) for row in found]

        return application_pb2.ListVersionsResponse(items=await self._store.read(read))

    async def get_version(self, request: application_pb2.GetVersionRequest, call: Call) -> application_pb2.Version:
        """Return one version."""
        return await self._store.read(lambda tx: _version(tx, request.application, request.version))

    async def create_version(
        self, request: application_pb2.CreateVersionRequest, call: Call
    ) -> application_pb2.Version:
        """Add a version; versions are immutable."""
        with _prefixed("version"):
            recipe.validate(request.version)
        now = self._clock()

        def write(tx: Transaction) -> application_pb2.Version:
            _application(tx, request.application)
            _add(tx, request.application, request.version, "version.version", now, same_is_fine=False)
            return _version(tx, request.application, request.version.version)

        return await self._write(write)

    async def delete_version(
        self, request: application_pb2.DeleteVersionRequest, call: Call
    ) -> application_pb2.DeleteVersionResponse:
        """Remove a version that no release points at and no session runs."""

        def write(tx: Transaction) -> None:
            _version(tx, request.application, request.version)
            pointing = [row.release for row in rows.releases(tx, request.application) if row.version == request.version]
            if pointing:
                raise errors.FailedPrecondition(
                    f"version: the release {pointing[0]!r} points at {request.version}. Point it elsewhere first.",
                    reason=errors.Reason.VERSION_IN_USE,
                    metadata={"release": pointing[0]},
                )
            # Counted after the removal, whose lock waits for sessions that are being created with it.
            rows.remove_version(tx, request.application, request.version)
            _refuse_in_use(tx, request.application, request.version)

        await self._write(write)
        return application_pb2.DeleteVersionResponse()

    async def list_releases(
        self, request: application_pb2.ListReleasesRequest, call: Call
    ) -> application_pb2.ListReleasesResponse:
        """Return all releases, by name."""

        def read(tx: Transaction) -> list[application_pb2.Release]:
            _application(tx, request.application)
            return [_release_message(row) for row in rows.releases(tx, request.application)]

        return application_pb2.ListReleasesResponse(items=await self._store.read(read))

    async def get_release(self, request: application_pb2.GetReleaseRequest, call: Call) -> application_pb2.Release:
        """Not served yet."""
        raise errors.Unavailable("Not served yet.", reason=errors.LocalReason.NOT_SERVED)

    async def update_release(
        self, request: application_pb2.UpdateReleaseRequest, call: Call
    ) -> application_pb2.Release:
        """Not served yet."""
        raise errors.Unavailable("Not served yet.", reason=errors.LocalReason.NOT_SERVED)

    async def set_release(self, request: application_pb2.SetReleaseRequest, call: Call) -> application_pb2.Release:
        """Point a release at a version."""
        ids.check_slug("release", request.release)
        now = self._clock()

        def write(tx: Transaction) -> application_pb2.Release:
            _application(tx, request.application)
            _point(tx, request.application, request.release, request.version, "version", now)
            row = rows.release(tx, request.application, request.release)
            assert row is not None
            return _release_message(row)

        return await self._write(write)

    async def delete_release(
        self, request: application_pb2.DeleteReleaseRequest, call: Call
    ) -> application_pb2.DeleteReleaseResponse:
        """Remove a release."""

        def write(tx: Transaction) -> None:
            if not rows.remove_release(tx, request.application, request.release):
                raise errors.NotFound(
                    f"release: {request.application!r} has no release {request.release!r}. "
                    f"List them with GET /v1/applications/{request.application}/releases.",
                    reason=errors.Reason.RELEASE_NOT_FOUND,
                    metadata={"field": "release", "application": request.application, "release": request.release},
                )

        await self._write(write)
        return application_pb2.DeleteReleaseResponse()

    async def _write(self, unit: Unit[T]) -> T:
        answer = await self._store.write(unit)
        self._bus.catalogue.publish()
        return answer


@contextlib.contextmanager
def _prefixed(path: str) -> Iterator[None]:
    """Put the path of the enclosing message before the field that an InvalidArgument names."""
    try:
        yield
    except errors.InvalidArgument as error:
        raise error.renamed(lambda field: f"{path}.{field.removeprefix('version.')}") from None


def _application(tx: Transaction, name: str) -> application_pb2.Application:
    row = rows.get(tx, name)
    if row is None:
        raise errors.NotFound(
            f"application: there is no application {name!r}. List them with GET /applications.",
            reason=errors.Reason.APPLICATION_NOT_FOUND,
            metadata={"field": "application", "application": name},
        )
    return _application_message(row, rows.releases(tx, name))


def _version(tx: Transaction, application: str, name: str) -> application_pb2.Version:
    row = rows.version(tx, application, name)
    if row is None:
        raise errors.NotFound(
            f"version: {application!r} has no version {name!r}. "
            f"List them with GET /applications/{application}/versions.",
            reason=errors.Reason.VERSION_NOT_FOUND,
            metadata={"field": "version", "application": application, "version": name},
        )
    return stored.version(application, row.recipe, row.created_time)


def _add(
    tx: Transaction,
    application: str,
    version: application_pb2.Version,
    field: str,
    now: datetime,
    *,
    same_is_fine: bool,
) -> bool:
    fresh = _recipe(version)
    known = rows.version(tx, application, version.version)
    if known is None:
        rows.add_version(tx, application, version.version, fresh, now=now)
        return True
    if same_is_fine and known.recipe == fresh:
        return False
    raise errors.AlreadyExists(
        f"{field}: {application} {version.version} exists"
        + (" and is different" if same_is_fine else "")
        + ". Versions are immutable: give this one another number.",
        reason=errors.Reason.VERSION_EXISTS,
        metadata={"field": field, "application": application, "version": version.version},
    )


def _point(tx: Transaction, application: str, name: str, target: str, field: str, now: datetime) -> bool:
    if rows.version(tx, application, target) is None:
        known = sorted(row.version for row in rows.versions(tx, application))
        raise errors.InvalidArgument(
            field,
            f"{application} has no version {target!r}; "
            + (f"choose from {', '.join(known[:10])}." if known else "add it first."),
            reason=errors.Reason.RELEASE_VERSION_MISSING,
            metadata={"version": target},
        )
    return rows.point(tx, application, name, target, now=now)


def _refuse_in_use(tx: Transaction, application: str, version: str | None) -> None:
    living = rows.live_session_count(tx, application, version)
    if living:
        what = f"{application} {version}" if version else application
        raise errors.FailedPrecondition(
            f"{what} has {living} session{'s' if living > 1 else ''} that have not ended. Terminate them first.",
            reason=errors.Reason.SESSIONS_ALIVE,
            metadata={"sessions": str(living)},
        )


def _application_message(row: ApplicationRow, releases: Iterable[ReleaseRow]) -> application_pb2.Application:
    return application_pb2.Application(
        application=row.application,
        display_name=row.display_name,
        description=row.description,
        tags=row.tags,
        created_time=timestamp(row.created_time),
        releases={release.release: release.version for release in releases},
    )


def _release_message(row: ReleaseRow) -> application_pb2.Release:
    return application_pb2.Release(
        application=row.application,
        release=row.release,
        version=row.version,
        updated_time=timestamp(row.updated_time),
    )


def _recipe(message: application_pb2.Version) -> bytes:
    """Return a version's recipe as it is stored: without what the control plane adds, and always the same bytes."""
    bare = application_pb2.Version()
    bare.CopyFrom(message)
    bare.ClearField("application")
    bare.ClearField("created_time")
    return bare.SerializeToString(deterministic=True)
