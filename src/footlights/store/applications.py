"""Applications, versions, releases and profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from footlights.store.schema import (
    APPLICATION,
    PROFILE,
    RELEASE,
    SESSION,
    VERSION,
    ApplicationRow,
    ProfileRow,
    ReleaseRow,
    VersionRow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction


def get(tx: Transaction, application: str) -> ApplicationRow | None:
    """Return one application."""
    return tx.one(select(APPLICATION).where(APPLICATION.c.application == application), ApplicationRow)


def page(tx: Transaction, after: str, limit: int) -> Readable[ApplicationRow]:
    """Return up to ``limit`` applications whose id comes after ``after``, by id."""
    key = APPLICATION.c.application
    return tx.readable(select(APPLICATION).where(key > after).order_by(key).limit(limit), ApplicationRow)


def put(
    tx: Transaction, application: str, display_name: str, description: str, tags: list[str], *, now: datetime
) -> None:
    """Create an application, or change how it is described."""
    values = {"display_name": display_name, "description": description, "tags": tags}
    if not tx.changed(update(APPLICATION).where(APPLICATION.c.application == application).values(**values)):
        tx.execute(insert(APPLICATION).values(application=application, created_time=now, **values))


def remove(tx: Transaction, application: str) -> bool:
    """Remove an application with its versions and releases."""
    tx.execute(delete(RELEASE).where(RELEASE.c.application == application))
    tx.execute(delete(VERSION).where(VERSION.c.application == application))
    return bool(tx.changed(delete(APPLICATION).where(APPLICATION.c.application == application)))


def live_session_count(tx: Transaction, application: str, version: str | None = None) -> int:
    """Return how many sessions of an application, or of one version, have not ended."""
    statement = (
        select(func.count())
        .select_from(SESSION)
        .where(SESSION.c.application == application, SESSION.c.ended_time.is_(None))
    )
    if version is not None:
        statement = statement.where(SESSION.c.application_version == version)
    return int(tx.execute(statement).scalar_one())


def version(tx: Transaction, application: str, name: str) -> VersionRow | None:
    """Return one version."""
    return tx.one(select(VERSION).where(VERSION.c.application == application, VERSION.c.version == name), VersionRow)


def version_names(tx: Transaction, application: str) -> list[str]:
    """Return the names of an application's versions, in no particular order."""
    return list(tx.execute(select(VERSION.c.version).where(VERSION.c.application == application)).scalars())


def versions(tx: Transaction, application: str, names: Sequence[str]) -> dict[str, VersionRow]:
    """Return an application's versions of these names, by name."""
    statement = select(VERSION).where(VERSION.c.application == application, VERSION.c.version.in_(names))
    return {row.version: row for row in tx.all(statement, VersionRow)}


def add_version(tx: Transaction, application: str, name: str, recipe: bytes, *, now: datetime) -> None:
    """Add a version."""
    tx.execute(insert(VERSION).values(application=application, version=name, recipe=recipe, created_time=now))


def remove_version(tx: Transaction, application: str, name: str) -> bool:
    """Remove a version."""
    return bool(tx.changed(delete(VERSION).where(VERSION.c.application == application, VERSION.c.version == name)))


def releases(tx: Transaction, application: str) -> list[ReleaseRow]:
    """Return an application's releases, by name."""
    return tx.all(select(RELEASE).where(RELEASE.c.application == application).order_by(RELEASE.c.release), ReleaseRow)


def release_page(tx: Transaction, application: str, after: str, limit: int) -> Readable[ReleaseRow]:
    """Return up to ``limit`` releases of an application whose name comes after ``after``, by name."""
    mine = select(RELEASE).where(RELEASE.c.application == application, RELEASE.c.release > after)
    return tx.readable(mine.order_by(RELEASE.c.release).limit(limit), ReleaseRow)


def release(tx: Transaction, application: str, name: str) -> ReleaseRow | None:
    """Return one release."""
    return tx.one(select(RELEASE).where(RELEASE.c.application == application, RELEASE.c.release == name), ReleaseRow)


def point(tx: Transaction, application: str, name: str, version_name: str, *, now: datetime) -> bool:
    """Point a release at a version; return whether that changed anything."""
    known = release(tx, application, name)
    if known is None:
        tx.execute(
            insert(RELEASE).values(application=application, release=name, version=version_name, updated_time=now)
        )
        return True
    if known.version == version_name:
        return False
    tx.execute(
        update(RELEASE)
        .where(RELEASE.c.application == application, RELEASE.c.release == name)
        .values(version=version_name, updated_time=now)
    )
    return True


def remove_release(tx: Transaction, application: str, name: str) -> bool:
    """Remove a release."""
    return bool(tx.changed(delete(RELEASE).where(RELEASE.c.application == application, RELEASE.c.release == name)))


def profile(tx: Transaction, name: str) -> ProfileRow | None:
    """Return one profile."""
    return tx.one(select(PROFILE).where(PROFILE.c.profile == name), ProfileRow)


def profile_page(tx: Transaction, after: str, limit: int) -> Readable[ProfileRow]:
    """Return up to ``limit`` profiles whose name comes after ``after``, by name."""
    key = PROFILE.c.profile
    return tx.readable(select(PROFILE).where(key > after).order_by(key).limit(limit), ProfileRow)


def put_profile(tx: Transaction, name: str, definition: bytes, *, now: datetime) -> None:
    """Create or replace a profile."""
    values = {"definition": definition, "updated_time": now}
    if not tx.changed(update(PROFILE).where(PROFILE.c.profile == name).values(**values)):
        tx.execute(insert(PROFILE).values(profile=name, **values))


def remove_profile(tx: Transaction, name: str) -> bool:
    """Remove a profile."""
    return bool(tx.changed(delete(PROFILE).where(PROFILE.c.profile == name)))
