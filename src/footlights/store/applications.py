"""Applications, versions, releases and profiles."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import semver
from sqlalchemy import Select, delete, func, insert, select, update

from footlights.store.schema import (
    APPLICATION,
    FORMER_VERSION,
    PROFILE,
    RELEASE,
    RELEASE_CHANGE,
    SESSION,
    VERSION,
    ApplicationRow,
    FormerVersionRow,
    ProfileRow,
    ReleaseChangeRow,
    ReleaseRow,
    VersionRow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.store.unit import Readable, Transaction


MOST_CHANGES = 100
"""So many changes of a release are kept: the newest."""


def get(tx: Transaction, application: str, *, lock: bool = False) -> ApplicationRow | None:
    """Return one application.

    With ``lock`` no other transaction changes it, its versions or its releases before this one ends: all that do take
    this lock first.
    """
    return tx.one(_locked(select(APPLICATION).where(APPLICATION.c.application == application), lock), ApplicationRow)


def every(tx: Transaction) -> list[ApplicationRow]:
    """Return all applications."""
    return tx.all(select(APPLICATION), ApplicationRow)


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
    for name in version_names(tx, application):
        remove_version(tx, application, name)
    return bool(tx.changed(delete(APPLICATION).where(APPLICATION.c.application == application)))


def live_session_count(tx: Transaction, application: str, version: str | None = None) -> tuple[int, int]:
    """Return how many sessions of an application, or of one version, have not ended, and how many warm instances."""
    statement = select(SESSION.c.pool.is_not(None), func.count()).where(
        SESSION.c.application == application, SESSION.c.ended_time.is_(None)
    )
    if version is not None:
        statement = statement.where(SESSION.c.application_version == version)
    counts = {bool(row[0]): int(row[1]) for row in tx.execute(statement.group_by(SESSION.c.pool.is_not(None)))}
    return counts.get(False, 0), counts.get(True, 0)


def version(tx: Transaction, application: str, name: str) -> VersionRow | None:
    """Return one version."""
    return tx.one(select(VERSION).where(VERSION.c.application == application, VERSION.c.version == name), VersionRow)


def version_names(tx: Transaction, application: str) -> list[str]:
    """Return the names of an application's versions, in no particular order."""
    return list(tx.execute(select(VERSION.c.version).where(VERSION.c.application == application)).scalars())


def names_by_application(tx: Transaction) -> dict[str, tuple[list[str], list[str]]]:
    """Return the versions, newest first, and the releases of every application, by its name."""
    found: dict[str, tuple[list[str], list[str]]] = {
        name: ([], [])
        for name in tx.execute(select(APPLICATION.c.application).order_by(APPLICATION.c.application)).scalars()
    }
    for table, name, at in ((VERSION, VERSION.c.version, 0), (RELEASE, RELEASE.c.release, 1)):
        for application, each in tx.execute(select(table.c.application, name)):
            if application in found:
                found[application][at].append(each)
    for versions_, releases_ in found.values():
        versions_.sort(key=newness, reverse=True)
        releases_.sort()
    return found


def every_version(tx: Transaction, application: str = "") -> list[VersionRow]:
    """Return all versions of an application, or of all."""
    mine = [VERSION.c.application == application] if application else []
    return tx.all(select(VERSION).where(*mine), VersionRow)


def every_release(tx: Transaction, application: str = "") -> list[ReleaseRow]:
    """Return all releases of an application, or of all."""
    mine = [RELEASE.c.application == application] if application else []
    return tx.all(select(RELEASE).where(*mine), ReleaseRow)


def newest_version(tx: Transaction, application: str) -> str:
    """Return the newest version's name by semantic version; empty where the application has none."""
    return max(version_names(tx, application), key=newness, default="")


def newness(version: str) -> tuple[semver.Version, str]:
    """Return what orders versions by how new they are."""
    return semver.Version.parse(version), version


def versions(tx: Transaction, application: str, names: Sequence[str]) -> dict[str, VersionRow]:
    """Return an application's versions of these names, by name."""
    statement = select(VERSION).where(VERSION.c.application == application, VERSION.c.version.in_(names))
    return {row.version: row for row in tx.all(statement, VersionRow)}


def may_be(tx: Transaction, application: str, name: str, recipe: bytes) -> bool:
    """Whether a version had no other recipe before it was removed, if it was."""
    table = FORMER_VERSION.c
    statement = select(FORMER_VERSION).where(table.application == application, table.version == name)
    former = tx.one(statement, FormerVersionRow)
    return former is None or former.digest == _digest(recipe)


def add_version(tx: Transaction, application: str, name: str, recipe: bytes, *, now: datetime) -> None:
    """Add a version; the recipe is one that it ``may_be``."""
    tx.execute(insert(VERSION).values(application=application, version=name, recipe=recipe, created_time=now))


def remove_version(tx: Transaction, application: str, name: str) -> bool:
    """Remove a version; the digest of its recipe stays. The application must be locked."""
    known = version(tx, application, name)
    if known is None:
        return False
    table = FORMER_VERSION.c
    tx.execute(delete(FORMER_VERSION).where(table.application == application, table.version == name))
    tx.execute(insert(FORMER_VERSION).values(application=application, version=name, digest=_digest(known.recipe)))
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


def point(tx: Transaction, application: str, name: str, version_name: str, *, subject: str, now: datetime) -> bool:
    """Point a release at a version for a caller; return whether that changed anything.

    The application must be locked.
    """
    known = release(tx, application, name)
    kept = [] if known is None else _kept(tx, known)
    fresh = [] if known is None else _unrecorded(known, kept)
    if known is None:
        tx.execute(
            insert(RELEASE).values(application=application, release=name, version=version_name, updated_time=now)
        )
    elif known.version == version_name:
        return False
    else:
        tx.execute(
            update(RELEASE)
            .where(RELEASE.c.application == application, RELEASE.c.release == name)
            .values(version=version_name, updated_time=now)
        )
    number = max((row.number for row in (*fresh, *kept[:1])), default=0) + 1
    fresh.append(ReleaseChangeRow(application, name, number, version_name, now, subject))
    tx.execute(insert(RELEASE_CHANGE), [row._asdict() for row in fresh])
    old = RELEASE_CHANGE.c.number <= number - MOST_CHANGES
    tx.execute(
        delete(RELEASE_CHANGE).where(RELEASE_CHANGE.c.application == application, RELEASE_CHANGE.c.release == name, old)
    )
    return True


def changes(tx: Transaction, of: ReleaseRow) -> list[ReleaseChangeRow]:
    """Return the versions that a release was pointed at, newest first."""
    kept = _kept(tx, of)
    return [*_unrecorded(of, kept), *kept][:MOST_CHANGES]


def _kept(tx: Transaction, of: ReleaseRow) -> list[ReleaseChangeRow]:
    table = RELEASE_CHANGE.c
    own = select(RELEASE_CHANGE).where(table.application == of.application, table.release == of.release)
    return tx.all(own.order_by(table.number.desc()), ReleaseChangeRow)


def _unrecorded(of: ReleaseRow, kept: Sequence[ReleaseChangeRow]) -> list[ReleaseChangeRow]:
    """Return the last change where a server that keeps no history has made it."""
    if kept and (kept[0].version, kept[0].time) == (of.version, of.updated_time):
        return []
    number = kept[0].number + 1 if kept else 1
    return [ReleaseChangeRow(of.application, of.release, number, of.version, of.updated_time, subject="")]


def remove_release(tx: Transaction, application: str, name: str) -> bool:
    """Remove a release."""
    return bool(tx.changed(delete(RELEASE).where(RELEASE.c.application == application, RELEASE.c.release == name)))


def profile(tx: Transaction, name: str, *, lock: bool = False) -> ProfileRow | None:
    """Return one profile; with ``lock`` no other transaction changes it before this one ends."""
    return tx.one(_locked(select(PROFILE).where(PROFILE.c.profile == name), lock), ProfileRow)


def profile_page(tx: Transaction, after: str, limit: int) -> Readable[ProfileRow]:
    """Return up to ``limit`` profiles whose name comes after ``after``, by name."""
    key = PROFILE.c.profile
    return tx.readable(select(PROFILE).where(key > after).order_by(key).limit(limit), ProfileRow)


def put_profile(tx: Transaction, name: str, definition: bytes, secrets: bytes | None, *, now: datetime) -> None:
    """Create or replace a profile; ``secrets`` are sealed."""
    values = {"definition": definition, "updated_time": now, "secrets": secrets}
    if not tx.changed(update(PROFILE).where(PROFILE.c.profile == name).values(**values)):
        tx.execute(insert(PROFILE).values(profile=name, **values))


def remove_profile(tx: Transaction, name: str) -> bool:
    """Remove a profile."""
    return bool(tx.changed(delete(PROFILE).where(PROFILE.c.profile == name)))


def _locked(statement: Select[Any], lock: bool) -> Select[Any]:
    # Not against those who only refer to the row, as new sessions do to their version.
    return statement.with_for_update(key_share=True) if lock else statement


def _digest(recipe: bytes) -> bytes:
    return hashlib.sha256(recipe).digest()
