"""What the checker is given, and how the end of a run is photographed: the database read-only, /proc, the API."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.history import Fault, Operation

Slot = tuple[str, str, int]
"""Node, device, number."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    session_id: str
    application: str
    state: str
    end_reason: str
    message: str
    request_id: str
    created_by: str
    intent: str
    launch_id: str
    launch_count: int
    reasons: tuple[str, ...] = ()
    """Why it waits."""
    timeline: tuple[tuple[str, int], ...] = ()
    """Stage and microseconds of the server's clock."""

    @property
    def ended(self) -> bool:
        return self.state in ("TERMINATED", "FAILED")


@dataclass(frozen=True, slots=True)
class LaunchRow:
    launch_id: str
    session_id: str
    node: str
    device: str
    state: str
    desired: str
    reason: str
    ended: bool
    created: int = 0
    ended_at: int = 0
    """Microseconds of the server's clock; 0 while it has not."""


@dataclass(frozen=True, slots=True)
class LeaseRow:
    lease_id: str
    launch_id: str
    session_id: str
    slot: Slot
    acquired: int
    released: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state at one moment."""

    sessions: Mapping[str, SessionRow] = field(default_factory=dict)
    launches: Mapping[str, LaunchRow] = field(default_factory=dict)
    leases: tuple[LeaseRow, ...] = ()
    processes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Launch -> its living processes, shims left out."""
    shims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    slots_leased: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(node, device) -> what the API says."""
    listed: frozenset[str] = frozenset()
    """The sessions that the API lists as not ended."""
    launchers: Mapping[str, str] = field(default_factory=dict)
    """Application -> its launcher."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease as seen from outside: certainly held from ``first`` to ``last``."""

    lease_id: str
    launch_id: str
    session_id: str
    slot: Slot
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Meeting:
    """Applications of two sessions seen alive at once on one slot."""

    at: float
    slot: Slot
    launches: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Evidence:
    operations: tuple[Operation, ...] = ()
    faults: tuple[Fault, ...] = ()
    holds: tuple[Hold, ...] = ()
    meetings: tuple[Meeting, ...] = ()
    strangers_killed: tuple[str, ...] = ()
    """Processes of ours that only had a pid which a session's process once had, and were ended."""
    settled: Snapshot = field(default_factory=Snapshot)
    """When everything was healed and had time to settle."""
    final: Snapshot = field(default_factory=Snapshot)
    """After all sessions were terminated."""
    behaviors: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Application -> the end reasons that it has by design."""
    closed_by: frozenset[str] = frozenset()
    """The sessions that the harness itself terminated at the end."""
    faults_over: float = 0.0


def read_rows(database: Path) -> tuple[dict[str, SessionRow], dict[str, LaunchRow], tuple[LeaseRow, ...]]:
    """Read sessions, launches and leases in one read-only transaction. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5.0)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        sessions = {row["session_id"]: _session(row) for row in connection.execute("SELECT * FROM session")}
        launches = {row["launch_id"]: _launch(row) for row in connection.execute("SELECT * FROM launch")}
        leases = tuple(_lease(row) for row in connection.execute("SELECT * FROM lease ORDER BY rowid"))
        connection.execute("ROLLBACK")
    return sessions, launches, leases


def read_live_leases(connection: sqlite3.Connection) -> tuple[LeaseRow, ...]:
    return tuple(_lease(row) for row in connection.execute("SELECT * FROM lease WHERE released_time IS NULL"))


def _session(row: sqlite3.Row) -> SessionRow:
    queue: dict[str, Any] = json.loads(row["queue"])
    timeline: Iterable[tuple[str, int]] = json.loads(row["timeline"])
    return SessionRow(
        session_id=row["session_id"],
        application=row["application"],
        state=row["state"],
        end_reason=row["end_reason"],
        message=row["status_message"],
        request_id=row["request_id"],
        created_by=row["created_by"],
        intent=row["intent"],
        launch_id=row["launch_id"] or "",
        launch_count=row["launch_count"],
        reasons=tuple(queue.get("reasons", ())),
        timeline=tuple((stage, at) for stage, at in timeline),
    )


def _launch(row: sqlite3.Row) -> LaunchRow:
    return LaunchRow(
        launch_id=row["launch_id"],
        session_id=row["session_id"],
        node=row["node"],
        device=row["device"],
        state=row["state"],
        desired=row["desired"],
        reason=row["reason"],
        ended=row["ended_time"] is not None,
        created=row["created_time"],
        ended_at=row["ended_time"] or 0,
    )


def _lease(row: sqlite3.Row) -> LeaseRow:
    return LeaseRow(
        lease_id=row["lease_id"],
        launch_id=row["launch_id"],
        session_id=row["session_id"],
        slot=(row["node"], row["device"], row["slot"]),
        acquired=row["acquired_time"],
        released=row["released_time"],
    )
