"""What is sealed under the cluster key: the cluster's own secrets, by name, and columns of other tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ColumnElement, Table, select, update

from footlights.store.bulk import Inserter
from footlights.store.schema import CLUSTER_SECRET, LAUNCH, NODE_IDENTITY, PROFILE, SESSION, ClusterSecretRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed bytes, in a table whose rows are found by one key. What is sealed is bound to that key."""

    table: Table
    key: Column[Any]
    value: Column[Any]
    living: ColumnElement[bool] | None = None
    """Which rows are still used; None: all."""
    prefix: str = ""
    """What stands before the key in what is sealed with it."""

    def bound_to(self, key: str) -> bytes:
        """Return what the value of a row is bound to."""
        return f"{self.prefix}{key}".encode()


INVITATION = "invitation "
"""Before the id of an invitation, in what its key is bound to."""

PROFILE_SECRETS = "profile "
"""Before the name of a profile, in what its secrets are bound to."""

COLUMNS = (
    SealedColumn(SESSION, SESSION.c.session_id, SESSION.c.secrets),
    SealedColumn(LAUNCH, LAUNCH.c.launch_id, LAUNCH.c.secret, LAUNCH.c.ended_time.is_(None)),
    SealedColumn(CLUSTER_SECRET, CLUSTER_SECRET.c.name, CLUSTER_SECRET.c.sealed),
    SealedColumn(NODE_IDENTITY, NODE_IDENTITY.c.invitation_id, NODE_IDENTITY.c.invitation_key, prefix=INVITATION),
    SealedColumn(PROFILE, PROFILE.c.profile, PROFILE.c.secrets, prefix=PROFILE_SECRETS),
)
"""What is sealed again when the cluster key changes: all but the answers to repeatable calls, which live for a day."""


def secret(tx: Transaction, name: str, *, lock: bool = False) -> bytes | None:
    """Return one of the cluster's own secrets, sealed; None where there is none of that name.

    ``lock``: nobody else changes it until the transaction ends.
    """
    statement = select(CLUSTER_SECRET.c.sealed).where(CLUSTER_SECRET.c.name == name)
    found = tx.execute(statement.with_for_update() if lock else statement).scalar_one_or_none()
    return None if found is None else bytes(found)


def keep_secret(tx: Transaction, name: str, sealed: bytes, *, now: datetime) -> bytes:
    """Store a secret unless there is one of that name; return the one that is stored."""
    _insert(tx, [ClusterSecretRow(name, sealed, now)])
    found = secret(tx, name)
    assert found is not None
    return found


def change_secret(tx: Transaction, name: str, sealed: bytes) -> None:
    """Store another secret in place of one that is there."""
    tx.execute(update(CLUSTER_SECRET).where(CLUSTER_SECRET.c.name == name).values(sealed=sealed))


def page(tx: Transaction, column: SealedColumn, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
    """Return the keys and values of up to ``limit`` rows that have a value, by key, after one key."""
    statement = select(column.key, column.value).where(column.key > after, column.value != b"")
    if column.living is not None:
        statement = statement.where(column.living)
    return [(str(key), bytes(value)) for key, value in tx.execute(statement.order_by(column.key).limit(limit))]


def replace(
    tx: Transaction, column: SealedColumn, rows: Sequence[tuple[str, bytes]], seal: Callable[[bytes, bytes], bytes]
) -> None:
    """Seal values again, each unless it has changed since it was read; ``seal`` gets what it is bound to, and it."""
    for key, value in rows:
        if (sealed := seal(column.bound_to(key), value)) != value:
            statement = update(column.table).where(column.key == key, column.value == value)
            tx.execute(statement.values({column.value.name: sealed}))


_insert = Inserter(CLUSTER_SECRET, skip_conflicts=True)
