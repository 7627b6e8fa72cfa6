"""The control plane's certificate authority, and the certificate that this process has of it.

The authority is the operator's (``ca_cert``, ``ca_key``), or one that the first process makes and the database keeps,
sealed under the cluster key, for all replicas.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import structlog

from footlights.auth.authority import Authority, KeyPair
from footlights.linux.files import replace_file
from footlights.store.cluster import sealed_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from footlights.auth.secrets import Box
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

LOOP = "server_certificate"
PERIOD_S = 60.0
TTL_S = 30 * 86_400.0
"""Of what a process serves with. A running process renews it; one that was off makes a new one when it starts."""

_NAME = "authority"


async def authority(store: Store, box: Box, settings: ServerSettings, cluster: str, *, now: datetime) -> Authority:
    """Return the authority, and write its certificates to ``ca.pem`` in the data directory, for clients to trust.

    Raises InvalidArgument where the operator's files are none.
    """
    if settings.ca_cert is not None and settings.ca_key is not None:
        found = await asyncio.to_thread(Authority.read, settings.ca_cert, settings.ca_key)
    else:
        found = await _own(store, box, cluster, now=now)
    await asyncio.to_thread(_publish, settings.data_dir / "ca.pem", found.certificates)
    return found


class ServerCertificate:
    """What this process serves with where it has no certificate of the operator's, renewed in time."""

    def __init__(self, issuer: Authority, cluster: str, names: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._issuer, self._cluster, self._names, self._clock = issuer, cluster, tuple(names), clock
        self._current = self._make()

    @property
    def authorities(self) -> bytes:
        """What the certificates of nodes and of other replicas must lead to, PEM."""
        return self._issuer.certificates

    @property
    def current(self) -> KeyPair:
        """The newest one."""
        return self._current

    async def run(self, supervisor: Supervisor) -> None:
        """Renew it in time, until cancelled."""
        await supervisor.supervise(LOOP, self.renew, every_s=PERIOD_S)

    async def renew(self) -> None:
        """Make a new one where two thirds of the life of the newest are over."""
        if self._current.is_due(self._clock()):
            self._current = self._make()
            log.info("server_certificate_renewed", expire_time=self._current.times[1].isoformat())

    def _make(self) -> KeyPair:
        return self._issuer.server_certificate(self._cluster, self._names, now=self._clock(), ttl_s=TTL_S)


def names(settings: ServerSettings, *hosts: str) -> list[str]:
    """Return what this process is reached at: this machine's names and addresses, and what its settings say."""
    host = socket.gethostname()
    found = ["localhost", "127.0.0.1", "::1", host, socket.getfqdn(host)]
    public = settings.public_url.partition("://")[2].partition("/")[0]
    found += [_host(public), _host(settings.peer_address), _host(settings.agents_address), *settings.tls_names, *hosts]
    return [each for each in dict.fromkeys(found) if each and each not in ("0.0.0.0", "::")]  # noqa: S104


async def _own(store: Store, box: Box, cluster: str, *, now: datetime) -> Authority:
    sealed = await store.read(lambda tx: sealed_values.secret(tx, _NAME))
    if sealed is None:
        fresh = await asyncio.to_thread(Authority.create, cluster, now)
        text = json.dumps({"certificates": fresh.certificates.decode(), "key": fresh.key.decode()}).encode()

        def keep(tx: Transaction) -> bytes:
            # Of several processes that start at once, all use the first one's.
            return sealed_values.keep_secret(tx, _NAME, box.seal(text, _NAME.encode()), now=now)

        sealed = await store.write(keep)
    kept = json.loads(box.open(sealed, _NAME.encode()))
    return Authority.load(kept["certificates"].encode(), kept["key"].encode())


def _publish(path: Path, certificates: bytes) -> None:
    if not path.exists() or path.read_bytes() != certificates:
        replace_file(path, certificates, mode=0o644)


def _host(text: str) -> str:
    host, colon, port = text.rpartition(":")
    return (host if colon and port.isdigit() else text).strip("[]")
