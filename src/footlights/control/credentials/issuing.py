"""The certificates that a process of the control plane proves itself with: one of each authority that is trusted."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import ids
from footlights.auth.authority import SERVER_NAME, KeyPair
from footlights.control.credentials.authorities import authorities
from footlights.control.credentials.cluster_keys import token_key
from footlights.linux.files import replace_file
from footlights.store.cluster.revisions import cluster_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from footlights.auth.authority import Authority
    from footlights.auth.secrets import ClusterKey
    from footlights.control.credentials.authorities import Authorities
    from footlights.control.settings import ServerSettings
    from footlights.store import Store

log = structlog.get_logger(__name__)

PERIOD_S = 5.0
"""How often it is looked whether a certificate is due, or an authority has come or gone."""
TTL_S = 30 * 86_400.0
"""Of what a process serves with. A running process renews it; one that was off makes a new one when it starts."""


class ServerCertificate:
    """What this process proves itself with to agents and other replicas, and serves with where it has no other one.

    The one of the oldest authority, which everybody knows, is kept in files of the data directory, for what reads
    files. All are renewed in time.
    """

    def __init__(
        self,
        authorities: Authorities,
        cluster: str,
        names: Sequence[str],
        *,
        directory: Path,
        clock: Callable[[], datetime],
    ) -> None:
        self._authorities, self._cluster, self._names, self._clock = authorities, cluster, tuple(names), clock
        self.certificate, self.key = directory / "server.crt", directory / "server.key"
        self._lock = threading.Lock()
        """Those that shake hands ask, in threads of gRPC."""
        self._shown = self._make({})

    @property
    def authorities(self) -> Authorities:
        """What the certificates of nodes and of other replicas lead to."""
        return self._authorities

    @property
    def shown(self) -> Shown:
        """What is shown and trusted now; another object whenever it has changed. Made for new authorities at once."""
        if self._shown.trusted != self._authorities.certificates:
            self.renew()
        return self._shown

    @property
    def current(self) -> KeyPair:
        """That of the oldest authority."""
        return self.shown.pairs[0]

    def renew(self) -> None:
        """Make what is due, two thirds of its life being over, and what new authorities ask for. Blocks on the disk."""
        with self._lock:
            before, trusted = self._shown, self._authorities.certificates
            good = {each: pair for each, pair in before.by_authority.items() if not pair.is_due(self._clock())}
            if before.trusted == trusted and len(good) == len(before.by_authority):
                return
            # That of the oldest one has a name more.
            self._shown = self._make(good if before.trusted == trusted else {})
            log.info("server_certificate_renewed", expire_time=self._shown.pairs[0].times[1].isoformat())

    def _make(self, good: Mapping[str, KeyPair]) -> Shown:
        # Before the authorities themselves: where these change meanwhile, it is seen that this is not of them.
        trusted = self._authorities.certificates
        made = {each.key_id: good.get(each.key_id) or self._of(each) for each in reversed(self._authorities.all)}
        shown = Shown(made, trusted)
        replace_file(self.key, shown.pairs[0].key)
        replace_file(self.certificate, shown.pairs[0].chain, mode=0o644)
        return shown

    def _of(self, authority: Authority) -> KeyPair:
        names = (SERVER_NAME, *self._names) if authority is self._authorities.oldest else self._names
        return authority.server_certificate(self._cluster, names, now=self._clock(), ttl_s=TTL_S)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a process shows of itself, and trusts of others, at one time."""

    by_authority: Mapping[str, KeyPair]
    """By the ``key_id`` of the authority, that of the oldest first."""
    trusted: bytes
    """The certificates of all authorities, PEM."""

    @property
    def pairs(self) -> tuple[KeyPair, ...]:
        """That of the oldest authority first."""
        return tuple(self.by_authority.values())


async def server_certificate(
    store: Store, key: ClusterKey, settings: ServerSettings, clock: Callable[[], datetime]
) -> ServerCertificate:
    """Make the certificate of this process. Raises as ``token_key`` and ``authorities`` do."""
    await token_key(store, key, now=clock())
    cluster = await store.write(lambda tx: cluster_id(tx, ids.new_id()))
    known = await authorities(store, key.box(), settings, cluster, now=clock())
    made = partial(ServerCertificate, known, cluster, names(settings), directory=settings.data_dir, clock=clock)
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
