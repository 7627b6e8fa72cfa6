"""Others who take themselves for a part of the system."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path


def lease_again(database: Path, lease_id: str) -> str:
    """Try to lease a leased slot for another launch; empty where none is leased or the store is not to be had."""
    connection = sqlite3.connect(database, timeout=1.0, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute(
            "SELECT node, device, slot, acquired_time, session_id FROM lease WHERE released_time IS NULL LIMIT 1"
        ).fetchone()
        if row is None:
            connection.execute("ROLLBACK")
            return ""
        node, device, slot, acquired, session_id = row
        try:
            connection.execute(
                "INSERT INTO lease (lease_id, launch_id, session_id, node, device, slot, acquired_time) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (lease_id, lease_id, f"other than {session_id}", node, device, slot, acquired),
            )
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK")
            return "refused"
        connection.execute("COMMIT")
        return "accepted"
    except sqlite3.Error:
        return ""
    finally:
        connection.close()


def begun_by(log: Path) -> tuple[str, ...]:
    """The launches that an agent has started, by its log."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("event") == "application_started":
                found.append(entry["launch_id"])
    return tuple(found)


LET_IN = "both were let in, and nobody was told"


def meeting(one: str, other: str) -> str:
    """Say how two agents of one identity have met, by what each has logged since the second was started."""
    if any(word in one + other for word in ("DUPLICATE_IDENTITY", "another agent is linked")):
        return "told"
    linked = '"event": "linked"'
    return LET_IN if linked in one and linked in other else "they have not met"
