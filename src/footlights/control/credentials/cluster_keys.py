"""The cluster key over its life: which key the database is sealed with, and how that follows the ring.

The ring is read again every few seconds. When another key becomes the current one, what is stored for longer than a day
is sealed again under it, by each replica that notices, so that nothing stays behind which the last one has written
under the old key. Answers that are remembered for repeated calls are not: they live for a day, and so must the old key.

Tokens keep the digests that they have: a digest of 192 random bits cannot be reversed, whoever has the key. Their key
is that of the ring with which the database began, stored under the ring.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from footlights.errors import Internal
from footlights.store.cluster import sealed_values
from footlights.store.cluster.revisions import check_key, note_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.auth.secrets import Box, ClusterKey
    from footlights.store import Store, Transaction
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
        if self._sealed_with or known != current:
            await self._seal_again()
            await self._store.write(lambda tx: note_key(tx, current))
            log.info("cluster_key_changed", fingerprint=current)
        self._sealed_with = current

    async def _seal_again(self) -> None:
        seal = _sealing(self._key.box())
        for column in sealed_values.COLUMNS:
            after = ""
            while True:
                last = after
                rows = await self._store.read(lambda tx: sealed_values.page(tx, column, last, _AT_ONCE))  # noqa: B023
                if not rows:
                    break
                await self._store.write(lambda tx: sealed_values.replace(tx, column, rows, seal))  # noqa: B023
                after = rows[-1][0]


def _sealing(box: Box) -> Callable[[str, bytes], bytes]:
    def seal(name: str, sealed: bytes) -> bytes:
        try:
            return box.seal(box.open(sealed, name.encode()), name.encode())
        except Internal:
            # No key of the ring opens it, that of the database included: it must not keep the rest under the old one.
            log.error("sealed_value_damaged", name=name)
            return sealed

    return seal
