"""The control plane's certificate authority, and the certificate that this process has of it.

The authority is the operator's (``ca_cert``, ``ca_key``), or one that the first process makes and the database keeps,
sealed under the cluster key, for all replicas.
"""

from __future__ import annotations

import asyncio
import json
import socket
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import ids
from footlights.auth.authority import Authority, KeyPair
from footlights.control.credentials.cluster_keys import token_key
from footlights.linux.files import replace_file
from footlights.store.cluster import sealed_values
from footlights.store.cluster.revisions import cluster_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from footlights.auth.secrets import Box, ClusterKey
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction

log = structlog.get_logger(__name__)

PERIOD_S = 60.0
"""How often it is looked whether a certificate is due."""
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
    """What this process proves itself with to agents and other replicas, and serves with where it has no other one.

    It is kept in files of the data directory, for what reads files, and renewed in time.
    """

    def __init__(
        self, issuer: Authority, cluster: str, names: Sequence[str], *, directory: Path, clock: Callable[[], datetime]
    ) -> None:
        self._issuer, self._cluster, self._names, self._clock = issuer, cluster, tuple(names), clock
        self.certificate, self.key = directory / "server.crt", directory / "server.key"
        self._current = self._make()

    @property
    def authorities(self) -> bytes:
        """What the certificates of nodes and of other replicas must lead to, PEM."""
        return self._issuer.certificates

    @property
    def current(self) -> KeyPair:
        """The newest one."""
        return self._current

    def renew(self) -> bool:
        """Make a new one where two thirds of the life of the newest are over; return whether it was done."""
        if not self._current.is_due(self._clock()):
            return False
        self._current = self._make()
        log.info("server_certificate_renewed", expire_time=self._current.times[1].isoformat())
        return True

    def _make(self) -> KeyPair:
        pair = self._issuer.server_certificate(self._cluster, self._names, now=self._clock(), ttl_s=TTL_S)
        replace_file(self.key, pair.key)
        replace_file(self.certificate, pair.chain, mode=0o644)
        return pair


async def server_certificate(
    store: Store, key: ClusterKey, settings: ServerSettings, clock: Callable[[], datetime]
) -> ServerCertificate:
    """Make the certificate of this process. Raises as ``token_key`` and ``authority`` do."""
    await token_key(store, key, now=clock())
    cluster = await store.write(lambda tx: cluster_id(tx, ids.new_id()))
    issuer = await authority(store, key.box(), settings, cluster, now=clock())
    made = partial(ServerCertificate, issuer, cluster, names(settings), directory=settings.data_dir, clock=clock)
    return await asyncio.to_thread(made)


def names(settings: ServerSettings) -> list[str]:
    """Return what this process is reached at: this machine's names, and what its settings say."""
    host = socket.gethostname()
    found = ["localhost", "127.0.0.1", "::1", host, socket.getfqdn(host)]
    public = settings.public_url.partition("://")[2].partition("/")[0]
    addresses = (settings.grpc_listen, settings.http_listen, settings.agents_listen, settings.peers_listen)
    found += [_host(each) for each in (public, settings.peer_address, settings.agents_address, *addresses)]
    known = dict.fromkeys(map(_as_in_certificates, [*found, *settings.tls_names]))
    return [each for each in known if each and each not in ("0.0.0.0", "::")]  # noqa: S104


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


def _as_in_certificates(name: str) -> str:
    """Return a name as clients look for it, other letters as ``xn--``; empty where it cannot be one."""
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
