"""What the guard of placement learns from: launches that ended before they were ready, and those that went well."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, or_, select

from footlights.lifecycle import LaunchState, Stage
from footlights.store.schema import LAUNCH, SESSION

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from footlights.store.unit import Transaction

MOST = 1000
"""How many failures, and how many refusals, are looked at: the last ones."""

_QUEUED = timedelta(hours=1)
"""A launch that began since a moment is of a session that was created at most so long before it."""


class FailedStart(NamedTuple):
    """A launch that ended before it was ready, without being asked to."""

    application: str
    version: str
    launcher: str
    username: str
    given: str
    """Stands for what the user gave it: arguments and stage."""
    node: str
    device: str
    reason: str
    message: str
    began: datetime
    ended: datetime


class GoodStart(NamedTuple):
    """When the last launch of a sort that became ready began."""

    application: str
    version: str
    node: str
    began: datetime
    username: str = ""
    given: str = ""


class LiveStart(NamedTuple):
    """A launch that is not ready yet."""

    application: str
    version: str
    launcher: str
    username: str
    given: str
    node: str
    began: datetime
    up: bool
    """Whether the application runs: what was to be done by the node is done."""


def failed(tx: Transaction, reasons: Sequence[str], *, since: datetime) -> list[FailedStart]:
    """Return launches that ended for one of ``reasons`` since a moment, before they were ready; the newest first."""
    found: list[FailedStart] = []
    for state in (LaunchState.FAILED, LaunchState.REJECTED):
        ended = (
            select(
                *_OF_SESSION,
                LAUNCH.c.node,
                LAUNCH.c.device,
                LAUNCH.c.reason,
                LAUNCH.c.message,
                LAUNCH.c.created_time,
                LAUNCH.c.ended_time,
            )
            .join(SESSION, SESSION.c.session_id == LAUNCH.c.session_id)
            .where(
                LAUNCH.c.state == state.value,
                LAUNCH.c.ended_time >= since,
                LAUNCH.c.start_s.is_(None),
                LAUNCH.c.desired == "RUNNING",
                LAUNCH.c.reason.in_(reasons),
            )
            .order_by(LAUNCH.c.ended_time.desc())
            .limit(MOST)
        )
        found += [FailedStart(*row) for row in tx.execute(ended)]
    return found


def ready_versions(tx: Transaction, applications: Collection[str], *, since: datetime) -> list[GoodStart]:
    """Return of each version of some applications, and each node, the last launch since a moment that became ready."""
    return _good(tx, (), SESSION.c.application.in_(applications), since)


def ready_inputs(
    tx: Transaction, applications: Collection[str], usernames: Collection[str], *, since: datetime
) -> list[GoodStart]:
    """Return the same for each of some users and what they gave."""
    mine = (SESSION.c.username, _GIVEN)
    return _good(tx, mine, SESSION.c.application.in_(applications) & SESSION.c.username.in_(usernames), since)


def _good(tx: Transaction, more: Sequence[Any], which: Any, since: datetime) -> list[GoodStart]:
    key = (SESSION.c.application, SESSION.c.application_version, LAUNCH.c.node)
    statement = (
        select(*key, func.max(LAUNCH.c.created_time), *more)
        .join(LAUNCH, SESSION.c.session_id == LAUNCH.c.session_id)
        .where(
            which,
            SESSION.c.created_time >= since - _QUEUED,
            LAUNCH.c.start_s.is_not(None),
            LAUNCH.c.created_time >= since,
        )
        .group_by(*key, *more)
    )
    return [GoodStart(*row) for row in tx.execute(statement)]


def ready_nodes(tx: Transaction, nodes: Collection[str], *, since: datetime) -> dict[tuple[str, str, str], datetime]:
    """Return, by node, launcher and device, when the last launch since a moment that became ready began."""
    key = (LAUNCH.c.node, SESSION.c.launcher, LAUNCH.c.device)
    statement = (
        select(*key, func.max(LAUNCH.c.created_time))
        .join(SESSION, SESSION.c.session_id == LAUNCH.c.session_id)
        .where(LAUNCH.c.node.in_(nodes), LAUNCH.c.start_s.is_not(None), LAUNCH.c.created_time >= since)
        .group_by(*key)
    )
    return {(row[0], row[1], row[2]): row[3] for row in tx.execute(statement)}


def live(tx: Transaction, nodes: Collection[str], applications: Collection[str], *, since: datetime) -> list[LiveStart]:
    """Return the launches, begun since a moment, that are not ready yet: on some nodes, and of some applications."""
    statement = (
        select(*_OF_SESSION, LAUNCH.c.node, LAUNCH.c.created_time, SESSION.c.timeline)
        .join(SESSION, SESSION.c.session_id == LAUNCH.c.session_id)
        .where(
            LAUNCH.c.ended_time.is_(None),
            LAUNCH.c.start_s.is_(None),
            LAUNCH.c.desired == "RUNNING",
            LAUNCH.c.created_time >= since,
            or_(LAUNCH.c.node.in_(nodes), SESSION.c.application.in_(applications)),
        )
    )
    found = []
    for *known, timeline in tx.execute(statement):
        up = any(mark[0] == Stage.PROCESS_UP for mark in timeline)
        found.append(LiveStart._make([*known, up]))
    return found


_GIVEN = func.coalesce(SESSION.c.given, "")
_OF_SESSION = (
    SESSION.c.application,
    SESSION.c.application_version,
    SESSION.c.launcher,
    SESSION.c.username,
    _GIVEN,
)
