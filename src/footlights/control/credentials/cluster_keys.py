"""The cluster key over its life: which key the database is sealed with, and how that follows the ring.

The ring is read again every few seconds. When another key becomes the current one, what is stored for longer than a day
is sealed again under it, by each replica that notices, so that nothing stays behind which the last one has written
under the old key. Answers that are remembered for repeated calls are not: they live for a day, and so must the old key.
A key is removed from the ring only when neither the database nor a server on it needs it (``check_unused``).

Tokens keep the digests that they have: a digest of 192 random bits cannot be reversed, whoever has the key. Their key
is that of the ring with which the database began, stored under the ring.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from footlights.errors import FailedPrecondition, Internal, LocalReason
from footlights.store import admin
from footlights.store.cluster import replica_rows, revisions, sealed_values
from footlights.store.cluster.revisions import check_key, note_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from footlights.auth.secrets import Box, ClusterKey, RingKey
    from footlights.store import Store, Transaction
    from footlights.store.cluster.sealed_values import SealedColumn
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

LOOP = "cluster_key"
PERIOD_S = 5.0

_TOKENS = "tokens"
_AT_ONCE = 200


async def token_key(store: Store, key: ClusterKey, *, now: datetime) -> bytes:
    """Return the key of tokens' digests, which is stored at the first time.

    Raises FailedPrecondition where the database is sealed with a key that the ring lacks.
    """
    box = key.box()

    def find(tx: Transaction) -> bytes:
        used = check_key(tx, [each.fingerprint for each in key.ring])
        sealed = sealed_values.secret(tx, _TOKENS)
        if sealed is None:
            [first] = [each for each in key.ring if each.fingerprint == used]
            fresh = box.seal(first.derive(_TOKENS), _TOKENS.encode())
            sealed = sealed_values.keep_secret(tx, _TOKENS, fresh, now=now)
        return box.open(sealed, _TOKENS.encode())

    return await store.write(find)


class KeyRotation:
    """Follows the ring in the process and in the database."""

    def __init__(self, store: Store, key: ClusterKey, supervisor: Supervisor) -> None:
        self._store, self._key, self._supervisor = store, key, supervisor
        self._sealed_with = ""
        """The fingerprint under which this process has sealed everything, or has found it sealed."""

    async def run(self) -> None:
        """Follow the ring until cancelled."""
        await self._supervisor.supervise(LOOP, self.follow, every_s=PERIOD_S)

    async def follow(self) -> None:
        """Read the ring, and seal what is stored again where another key is current than before."""
        if await asyncio.to_thread(self._key.refresh):
            log.info("cluster_key_read", fingerprint=self._key.fingerprint, keys=len(self._key.ring))
        current = self._key.fingerprint
        if self._sealed_with == current:
            return
        fingerprints = [each.fingerprint for each in self._key.ring]
        # A ring that lacks the key of the database opens nothing in it.
        known = await self._store.read(lambda tx: check_key(tx, fingerprints))
        # A process that has just started may be one that sealed under the older key when it stopped.
        if self._sealed_with or known != current or len(fingerprints) > 1:
            await self._seal_again()
            await self._store.write(lambda tx: note_key(tx, current))
            log.info("cluster_key_changed", fingerprint=current)
        self._sealed_with = current

    async def _seal_again(self) -> None:
        seal = _sealing(self._key.box(), self._key.ring[0].box())
        for column in sealed_values.COLUMNS:
            after = ""
            while True:
                last = after
                rows = await self._store.read(lambda tx: sealed_values.page(tx, column, last, _AT_ONCE))  # noqa: B023
                if not rows:
                    break
                await self._store.write(lambda tx: sealed_values.replace(tx, column, rows, seal))  # noqa: B023
                after = rows[-1][0]


def check_unused(data_dir: Path, database: str, keys: Sequence[RingKey], *, look_s: float = 3.0) -> None:
    """Check, beside its servers, that neither a database nor one of them needs certain keys of a ring.

    ``look_s`` is how long a server has to show that it runs: longer than its heartbeats are apart.

    Raises FailedPrecondition where one is needed, and as ``admin.reading`` does.
    """
    gone = {key.fingerprint for key in keys}
    with admin.reading(data_dir, database) as tx:
        beats = {row.replica: row.beat for row in replica_rows.everyone(tx) if row.cluster_key in gone}
    if beats:
        time.sleep(look_s)
    with admin.reading(data_dir, database) as tx:
        _check_unused(tx, keys, beats)


def _check_unused(tx: Transaction, keys: Sequence[RingKey], beats: Mapping[str, int]) -> None:
    running = [row for row in replica_rows.everyone(tx) if row.beat > beats.get(row.replica, row.beat)]
    for key in keys:
        name = key.fingerprint
        box = key.box()
        why = ""
        if revisions.noted_key(tx) == name:
            why = "the database is sealed with it: no server has used a newer one yet"
        elif servers := [row.replica for row in running if row.cluster_key == name]:
            why = f"{len(servers)} running servers know no newer one, {servers[0]} among them"
        elif count := sum(_opens(tx, column, box) for column in sealed_values.COLUMNS):
            why = f"{count} secrets in the database are still sealed with it"
        if why:
            raise FailedPrecondition(
                f"The cluster key {name} is in use, and stays: {why}. Give the ring to all servers, and try again "
                "once each has logged cluster_key_changed.",
                reason=LocalReason.CLUSTER_KEY_IN_USE,
                metadata={"fingerprint": name},
            )


def _opens(tx: Transaction, column: SealedColumn, box: Box) -> int:
    """Return how many values of a column a box opens."""
    after, count = "", 0
    while rows := sealed_values.page(tx, column, after, _AT_ONCE):
        for key, sealed in rows:
            with contextlib.suppress(Internal):
                box.open(sealed, column.bound_to(key))
                count += 1
        after = rows[-1][0]
    return count


def _sealing(box: Box, current: Box) -> Callable[[bytes, bytes], bytes]:
    def seal(bound_to: bytes, sealed: bytes) -> bytes:
        with contextlib.suppress(Internal):
            current.open(sealed, bound_to)
            return sealed
        try:
            return box.seal(box.open(sealed, bound_to), bound_to)
        except Internal:
            # No key of the ring opens it, that of the database included: it must not keep the rest under the old one.
            log.error("sealed_value_damaged", name=bound_to.decode())
            return sealed

    return seal
