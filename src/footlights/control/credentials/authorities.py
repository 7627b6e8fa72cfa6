"""The certificate authorities of a control plane: one signs, and those before it are trusted until they are retired.

There is one of the operator's (``ca_cert``, ``ca_key``), or own ones: the first process makes one, and the database
keeps it, sealed under the cluster key, for all replicas. It is replaced without downtime. The new one signs at once.
Linked nodes are told of both, and renew their certificates; others do when they come back. A node asks for the name of
the authority that it knows, and is shown a certificate of that one. Once no node needs an old one, it goes.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import structlog

from footlights import errors
from footlights.auth.authority import Authority, new_label
from footlights.linux.files import replace_file
from footlights.store.cluster import sealed_values
from footlights.store.nodes import identities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from footlights.auth.secrets import Box
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction

log = structlog.get_logger(__name__)

_NAME: Final = "authority"
_MOST: Final = 4
"""Each is in what every node and client trusts, and every process has a certificate of each."""


class Authorities:
    """All that are trusted, the one that signs first."""

    def __init__(self, found: Sequence[Authority]) -> None:
        self._found, self._certificates = tuple(found), _joined(found)

    @property
    def all(self) -> tuple[Authority, ...]:
        """The newest first."""
        return self._found

    @property
    def newest(self) -> Authority:
        """The one that signs certificates of nodes."""
        return self._found[0]

    @property
    def oldest(self) -> Authority:
        """The one that everybody knows."""
        return self._found[-1]

    @property
    def certificates(self) -> bytes:
        """What others must trust, PEM."""
        return self._certificates

    async def follow(self) -> bool:
        """Take in what has changed; return whether anything has."""
        return False

    def rotate(self, tx: Transaction, *, now: datetime, life: timedelta) -> Sequence[Authority]:
        """Write a new one that signs from now on; return all. Raises FailedPrecondition where that cannot be done."""
        raise self._not_ours()

    def retire(self, tx: Transaction, *, now: datetime, force: bool) -> Sequence[Authority]:
        """Write that only the newest is trusted; return it.

        Raises FailedPrecondition where a node has a certificate of another one, unless ``force``.
        """
        raise self._not_ours()

    def _not_ours(self) -> errors.FailedPrecondition:
        return errors.FailedPrecondition(
            "The authority is that of --ca-cert, which this control plane does not replace. Restart the servers with "
            "another certificate below the same root.",
            reason=errors.Reason.AUTHORITY_EXTERNAL,
        )


class OwnAuthorities(Authorities):
    """Those that the database keeps."""

    def __init__(self, found: Sequence[Authority], store: Store, box: Box, cluster: str, path: Path) -> None:
        """``path`` is the file for clients to trust."""
        super().__init__(found)
        self._store, self._box, self._cluster, self._path = store, box, cluster, path

    async def follow(self) -> bool:
        """See `Authorities`."""
        sealed = await self._store.read(lambda tx: sealed_values.secret(tx, _NAME))
        if sealed is None:
            return False
        found = _parse(self._box.open(sealed, _NAME.encode()))
        if [each.key_id for each in found] == [each.key_id for each in self._found]:
            return False
        self._found, self._certificates = found, _joined(found)
        await asyncio.to_thread(_publish, self._path, self.certificates)
        log.info("authorities_changed", newest=self.newest.key_id, count=len(found))
        return True

    def rotate(self, tx: Transaction, *, now: datetime, life: timedelta) -> Sequence[Authority]:
        """See `Authorities`."""
        known = self._locked(tx)
        if len(known) >= _MOST:
            raise errors.FailedPrecondition(
                f"There are {_MOST} authorities, as many as there may be. First: footlights authorities retire",
                reason=errors.Reason.AUTHORITY_IN_USE,
                metadata={"nodes": ""},
            )
        return self._keep(tx, (Authority.create(self._cluster, now, new_label(), life), *known))

    def retire(self, tx: Transaction, *, now: datetime, force: bool) -> Sequence[Authority]:
        """See `Authorities`."""
        newest, *former = self._locked(tx)
        needing = identities.certified_by_others(tx, newest.key_id, now=now)
        if former and needing and not force:
            shown = ", ".join(needing[:5]) + (f" and {len(needing) - 5} more" if len(needing) > 5 else "")
            raise errors.FailedPrecondition(
                f"{shown} still have certificates of an authority before: they renew once they have a link. Start "
                "their agents, revoke those that are gone, or say force: they have to be invited again then.",
                reason=errors.Reason.AUTHORITY_IN_USE,
                metadata={"nodes": ",".join(needing[:100])},
            )
        return self._keep(tx, (newest,))

    def _locked(self, tx: Transaction) -> tuple[Authority, ...]:
        sealed = sealed_values.secret(tx, _NAME, lock=True)
        assert sealed is not None
        return _parse(self._box.open(sealed, _NAME.encode()))

    def _keep(self, tx: Transaction, found: Sequence[Authority]) -> Sequence[Authority]:
        sealed_values.change_secret(tx, _NAME, self._box.seal(_text(found), _NAME.encode()))
        return found


async def authorities(store: Store, box: Box, settings: ServerSettings, cluster: str, *, now: datetime) -> Authorities:
    """Return the authorities, and write their certificates to ``ca.pem`` in the data directory, for clients to trust.

    Raises InvalidArgument where the operator's files are none.
    """
    path = settings.data_dir / "ca.pem"
    if settings.ca_cert is not None and settings.ca_key is not None:
        found = Authorities([await asyncio.to_thread(Authority.read, settings.ca_cert, settings.ca_key)])
    else:
        found = OwnAuthorities(await _own(store, box, cluster, now=now), store, box, cluster, path)
    await asyncio.to_thread(_publish, path, found.certificates)
    return found


async def _own(store: Store, box: Box, cluster: str, *, now: datetime) -> Sequence[Authority]:
    sealed = await store.read(lambda tx: sealed_values.secret(tx, _NAME))
    if sealed is None:
        text = _text([await asyncio.to_thread(Authority.create, cluster, now)])

        def keep(tx: Transaction) -> bytes:
            # Of several processes that start at once, all use the first one's.
            return sealed_values.keep_secret(tx, _NAME, box.seal(text, _NAME.encode()), now=now)

        sealed = await store.write(keep)
    return _parse(box.open(sealed, _NAME.encode()))


def _joined(found: Sequence[Authority]) -> bytes:
    return b"".join(each.certificates for each in found)


def _text(found: Sequence[Authority]) -> bytes:
    newest, *former = ({"certificates": each.certificates.decode(), "key": each.key.decode()} for each in found)
    return json.dumps({**newest, "former": former}).encode()


def _parse(text: bytes) -> tuple[Authority, ...]:
    kept = json.loads(text)
    return tuple(
        Authority.load(each["certificates"].encode(), each["key"].encode()) for each in (kept, *kept.get("former", ()))
    )


def _publish(path: Path, certificates: bytes) -> None:
    if not path.exists() or path.read_bytes() != certificates:
        replace_file(path, certificates, mode=0o644)
