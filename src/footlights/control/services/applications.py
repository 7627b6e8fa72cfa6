"""ApplicationService: what can be streamed, as data."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from footlights import errors, ids
from footlights.control import stored
from footlights.control.call.pages import Chunk, ListPage, PagedList, Place
from footlights.control.services import etags, masks
from footlights.launch.recipe import recipe
from footlights.protocol.times import timestamp
from footlights.store import Store, Transaction
from footlights.store import applications as rows
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from google.protobuf.message import Message

    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.services.writes import Writes
    from footlights.control.signals import Signals
    from footlights.store.schema import ApplicationRow, ReleaseRow

log = structlog.get_logger(__name__)


class ApplicationService:
    """Serves applications, versions and releases."""

    def __init__(
        self, store: Store, writes: Writes, bus: Signals, clock: Callable[[], datetime], *, sealer: Sealer
    ) -> None:
        self._store, self._writes, self._bus, self._clock = store, writes, bus, clock
        self._sealer = sealer

    async def list_applications(
        self, request: application_pb2.ListApplicationsRequest, call: Call
    ) -> application_pb2.ListApplicationsResponse:
        """Return one page, by id."""
        pages = PagedList(self._sealer, "applications", request)

        def read(tx: Transaction) -> ListPage[application_pb2.Application]:
            def some(after: Place | None, limit: int) -> Chunk[application_pb2.Application]:
                found = rows.page(tx, after[0] if after else "", limit)
                items = [
                    ([row.application], _application_message(row, rows.releases(tx, row.application)))
                    for row in found.rows
                ]
                return Chunk(items, found.found == limit)

            return pages.page(request, some, released=_released)

        page = await self._store.read(read)
        return application_pb2.ListApplicationsResponse(items=page.items, next_page_token=page.next_page_token)

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
            known = rows.get(tx, wanted.application, lock=True)
            current = "" if known is None else _application(tx, wanted.application).etag
            etags.check(request.etag, current, f"application {wanted.application}")
            _refuse_empty(wanted, known)
            rows.put(tx, wanted.application, wanted.display_name, wanted.description, list(wanted.tags), now=now)
            answer = application_pb2.ApplyApplicationResponse()
            for index, version in enumerate(request.versions):
                if _add(tx, wanted.application, version, f"versions[{index}].version", now, same_is_fine=True):
                    answer.created_versions.append(version.version)
            for name, target in sorted(request.releases.items()):
                if _point(tx, wanted.application, name, target, f"releases[{name}]", call=call, now=now):
                    answer.changed_releases.append(name)
            answer.application.CopyFrom(_application(tx, wanted.application))
            return answer

        def done(answer: application_pb2.ApplyApplicationResponse) -> None:
            self._bus.catalogue.publish()
            log.info(
                "application_applied",
                application=wanted.application,
                created_versions=list(answer.created_versions),
                changed_releases=list(answer.changed_releases),
            )

        kind = application_pb2.ApplyApplicationResponse
        return await self._writes.run(request, call, write, answer=kind, done=done)

    async def delete_application(
        self, request: application_pb2.DeleteApplicationRequest, call: Call
    ) -> application_pb2.DeleteApplicationResponse:
        """Remove an application that has no session which has not ended."""

        def write(tx: Transaction) -> application_pb2.DeleteApplicationResponse:
            current = _application(tx, request.application, lock=True).etag
            etags.check(request.etag, current, f"application {request.application}")
            # Counted after the removal, whose lock waits for sessions that are being created with it.
            rows.remove(tx, request.application)
            _refuse_in_use(tx, request.application, None)
            return application_pb2.DeleteApplicationResponse()

        kind = application_pb2.DeleteApplicationResponse
        return await self._writes.run(request, call, write, answer=kind, done=self._changed)

    async def list_versions(
        self, request: application_pb2.ListVersionsRequest, call: Call
    ) -> application_pb2.ListVersionsResponse:
        """Return one page of versions, newest first by semantic version."""
        pages = PagedList(self._sealer, "versions", request)

        def read(tx: Transaction) -> ListPage[application_pb2.Version]:
            _application(tx, request.application)
            # The database cannot order them; names alone are small.
            names = sorted(rows.version_names(tx, request.application), key=rows.newness, reverse=True)

            def some(after: Place | None, limit: int) -> Chunk[application_pb2.Version]:
                rest = [name for name in names if after is None or rows.newness(name) < rows.newness(after[0])]
                found = rows.versions(tx, request.application, rest[:limit])
                items = [
                    ([name], stored.version(row.application, row.recipe, row.created_time))
                    for name in rest[:limit]
                    if (row := found.get(name)) is not None
                ]
                return Chunk(items, len(rest) > limit)

            return pages.page(request, some)

        page = await self._store.read(read)
        return application_pb2.ListVersionsResponse(items=page.items, next_page_token=page.next_page_token)

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
            _application(tx, request.application, lock=True)
            _add(tx, request.application, request.version, "version.version", now, same_is_fine=False)
            return _version(tx, request.application, request.version.version)

        return await self._writes.run(request, call, write, answer=application_pb2.Version, done=self._changed)

    async def delete_version(
        self, request: application_pb2.DeleteVersionRequest, call: Call
    ) -> application_pb2.DeleteVersionResponse:
        """Remove a version that no release points at and no session runs."""

        def write(tx: Transaction) -> application_pb2.DeleteVersionResponse:
            rows.get(tx, request.application, lock=True)
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
            return application_pb2.DeleteVersionResponse()

        kind = application_pb2.DeleteVersionResponse
        return await self._writes.run(request, call, write, answer=kind, done=self._changed)

    async def list_releases(
        self, request: application_pb2.ListReleasesRequest, call: Call
    ) -> application_pb2.ListReleasesResponse:
        """Return one page of releases, by name."""
        pages = PagedList(self._sealer, "releases", request)

        def read(tx: Transaction) -> ListPage[application_pb2.Release]:
            _application(tx, request.application)

            def some(after: Place | None, limit: int) -> Chunk[application_pb2.Release]:
                found = rows.release_page(tx, request.application, after[0] if after else "", limit)
                return Chunk([([row.release], _release_message(row)) for row in found.rows], found.found == limit)

            return pages.page(request, some)

        page = await self._store.read(read)
        return application_pb2.ListReleasesResponse(items=page.items, next_page_token=page.next_page_token)

    async def get_release(self, request: application_pb2.GetReleaseRequest, call: Call) -> application_pb2.Release:
        """Return one release, with the versions that it was pointed at."""

        def read(tx: Transaction) -> application_pb2.Release:
            row = _release(tx, request.application, request.release)
            message = _release_message(row)
            for change in rows.changes(tx, row):
                message.history.add(version=change.version, time=timestamp(change.time), subject=change.subject)
            return message

        return await self._store.read(read)

    async def update_release(
        self, request: application_pb2.UpdateReleaseRequest, call: Call
    ) -> application_pb2.Release:
        """Point a release that exists at a version."""
        application, name = request.release.application, request.release.release
        now = self._clock()

        def write(tx: Transaction) -> application_pb2.Release:
            rows.get(tx, application, lock=True)
            wanted = _release_message(_release(tx, application, name))
            etags.check(request.etag, wanted.etag, f"release {name} of {application}")
            identity = ("application", "release")
            masks.apply(wanted, request.release, request.update_mask, mutable=("version",), identity=identity)
            _point(tx, application, name, wanted.version, "release.version", call=call, now=now)
            return _release_message(_release(tx, application, name))

        return await self._writes.run(request, call, write, answer=application_pb2.Release, done=self._changed)

    async def set_release(self, request: application_pb2.SetReleaseRequest, call: Call) -> application_pb2.Release:
        """Point a release at a version."""
        ids.check_slug("release", request.release)
        now = self._clock()

        def write(tx: Transaction) -> application_pb2.Release:
            _application(tx, request.application, lock=True)
            known = rows.release(tx, request.application, request.release)
            current = "" if known is None else _release_message(known).etag
            etags.check(request.etag, current, f"release {request.release} of {request.application}")
            _point(tx, request.application, request.release, request.version, "version", call=call, now=now)
            return _release_message(_release(tx, request.application, request.release))

        return await self._writes.run(request, call, write, answer=application_pb2.Release, done=self._changed)

    async def delete_release(
        self, request: application_pb2.DeleteReleaseRequest, call: Call
    ) -> application_pb2.DeleteReleaseResponse:
        """Remove a release."""

        def write(tx: Transaction) -> application_pb2.DeleteReleaseResponse:
            rows.get(tx, request.application, lock=True)
            current = _release_message(_release(tx, request.application, request.release)).etag
            etags.check(request.etag, current, f"release {request.release} of {request.application}")
            rows.remove_release(tx, request.application, request.release)
            return application_pb2.DeleteReleaseResponse()

        kind = application_pb2.DeleteReleaseResponse
        return await self._writes.run(request, call, write, answer=kind, done=self._changed)

    def _changed(self, _answer: Message) -> None:
        self._bus.catalogue.publish()


@contextlib.contextmanager
def _prefixed(path: str) -> Iterator[None]:
    """Put the path of the enclosing message before the field that an InvalidArgument names."""
    try:
        yield
    except errors.InvalidArgument as error:
        raise error.renamed(lambda field: f"{path}.{field.removeprefix('version.')}") from None


def _released(token: str) -> Place | None:
    """Return the place of a token of the release before: it was the last id itself."""
    return [token] if ids.SLUG.fullmatch(token) else None


def _application(tx: Transaction, name: str, *, lock: bool = False) -> application_pb2.Application:
    row = rows.get(tx, name, lock=lock)
    if row is None:
        raise errors.NotFound(
            f"application: there is no application {name!r}. List them with GET /v1/applications.",
            reason=errors.Reason.APPLICATION_NOT_FOUND,
            metadata={"field": "application", "application": name},
        )
    return _application_message(row, rows.releases(tx, name))


def _version(tx: Transaction, application: str, name: str) -> application_pb2.Version:
    row = rows.version(tx, application, name)
    if row is None:
        raise errors.NotFound(
            f"version: {application!r} has no version {name!r}. "
            f"List them with GET /v1/applications/{application}/versions.",
            reason=errors.Reason.VERSION_NOT_FOUND,
            metadata={"field": "version", "application": application, "version": name},
        )
    return stored.version(application, row.recipe, row.created_time)


def _release(tx: Transaction, application: str, name: str) -> ReleaseRow:
    row = rows.release(tx, application, name)
    if row is None:
        raise errors.NotFound(
            f"release: {application!r} has no release {name!r}. "
            f"List them with GET /v1/applications/{application}/releases.",
            reason=errors.Reason.RELEASE_NOT_FOUND,
            metadata={"field": "release", "application": application, "release": name},
        )
    return row


def _refuse_empty(wanted: application_pb2.Application, known: ApplicationRow | None) -> None:
    """Raise FailedPrecondition where an application that has nothing but its name would erase what there is."""
    given = wanted.display_name or wanted.description or wanted.tags
    if known is not None and not given and (known.display_name or known.description or known.tags):
        raise errors.FailedPrecondition(
            f"application: it has nothing but its name, and {known.application!r} exists with more, which would be "
            "erased. Repeat display_name, description and tags; or add only what is new, with "
            f"POST /v1/applications/{known.application}/versions and PUT /v1/applications/{known.application}/"
            "releases/NAME; or DELETE it.",
            reason=errors.Reason.EMPTY_RESOURCE,
            metadata={"field": "application", "resource": known.application},
        )


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
        _refuse_other(tx, application, version.version, fresh, field)
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


def _refuse_other(tx: Transaction, application: str, name: str, recipe: bytes, field: str) -> None:
    """Raise AlreadyExists where a removed version would come back as another: sessions were run with the first."""
    if not rows.may_be(tx, application, name, recipe):
        raise errors.AlreadyExists(
            f"{field}: {application} {name} was removed, and its recipe was different. Versions are immutable: give "
            "this one another number.",
            reason=errors.Reason.VERSION_EXISTS,
            metadata={"field": field, "application": application, "version": name},
        )


def _point(tx: Transaction, application: str, name: str, target: str, field: str, *, call: Call, now: datetime) -> bool:
    if rows.version(tx, application, target) is None:
        known = sorted(rows.version_names(tx, application))
        raise errors.InvalidArgument(
            field,
            f"{application} has no version {target!r}; "
            + (f"choose from {', '.join(known[:10])}." if known else "add it first."),
            reason=errors.Reason.RELEASE_VERSION_MISSING,
            metadata={"version": target},
        )
    return rows.point(tx, application, name, target, subject=call.caller.subject, now=now)


def _refuse_in_use(tx: Transaction, application: str, version: str | None) -> None:
    living, warm = rows.live_session_count(tx, application, version)
    what = f"{application} {version}" if version else application
    if warm and not living:
        raise errors.FailedPrecondition(
            f"{what} has {'warm instances' if warm > 1 else 'a warm instance'} of a pool. Delete the pool, or have it "
            "name another version, first.",
            reason=errors.Reason.SESSIONS_ALIVE,
            metadata={"sessions": "0"},
        )
    if living:
        raise errors.FailedPrecondition(
            f"{what} has {living} session{'s that have' if living > 1 else ' that has'} not ended. "
            f"Terminate {'them' if living > 1 else 'it'} first.",
            reason=errors.Reason.SESSIONS_ALIVE,
            metadata={"sessions": str(living)},
        )


def _application_message(row: ApplicationRow, releases: Iterable[ReleaseRow]) -> application_pb2.Application:
    message = application_pb2.Application(
        application=row.application,
        display_name=row.display_name,
        description=row.description,
        tags=row.tags,
        created_time=timestamp(row.created_time),
        releases={release.release: release.version for release in releases},
    )
    message.etag = etags.of_contents(message)
    return message


def _release_message(row: ReleaseRow) -> application_pb2.Release:
    message = application_pb2.Release(
        application=row.application,
        release=row.release,
        version=row.version,
        updated_time=timestamp(row.updated_time),
    )
    message.etag = etags.of_contents(message)
    return message


def _recipe(message: application_pb2.Version) -> bytes:
    """Return a version's recipe as it is stored: without what the control plane adds, and always the same bytes."""
    bare = application_pb2.Version()
    bare.CopyFrom(message)
    bare.ClearField("application")
    bare.ClearField("created_time")
    for field, value in bare.needs.ListFields():
        if not value:
            # To need nothing is to leave it out: before needs had presence, both were stored so.
            bare.needs.ClearField(field.name)  # type: ignore[arg-type]
    return bare.SerializeToString(deterministic=True)
