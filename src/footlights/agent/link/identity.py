"""What an agent proves its node with: a key that never leaves the machine, and the certificate for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import structlog

from footlights.agent.v1.certificate_pb2 import Certificate, CertificateRequest
from footlights.auth.authority import KeyPair, identity_of, is_of_newest, new_key
from footlights.errors import FailedPrecondition, LocalReason
from footlights.linux.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = "identity.json"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolled node's key and certificate, and how its links are opened; all texts are PEM."""

    key: str = field(repr=False)
    chain: str
    authorities: str
    address: str
    server_name: str
    invitation_id: str

    @property
    def pair(self) -> KeyPair:
        """The key and the certificate."""
        return KeyPair(self.key.encode(), self.chain.encode())


class LinkIdentity:
    """The identity of one agent, kept in its data directory. Without one, it shows its token."""

    def __init__(self, path: Path, node: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Read what is kept. Raises FailedPrecondition where it is unreadable, or another node's."""
        self._path, self._node, self._now = path, node, now
        self._enrolled = _load(path)
        self._asked: bytes | None = None
        """The key of the signing request that is under way."""
        self._outdated = False
        """Whether the control plane has another authority than the one that signed the certificate."""
        if self._enrolled is not None and (owner := _node(self._enrolled)) != node:
            raise _unusable(path, f"is that of node {owner!r}, and this agent is {node!r}")

    @property
    def enrolled(self) -> Enrolled | None:
        """What it has; None where it was never enrolled."""
        return self._enrolled

    @property
    def is_valid(self) -> bool:
        """Whether it has a certificate whose time is not over."""
        return self._enrolled is not None and self._now() < self._enrolled.pair.times[1]

    @property
    def is_due(self) -> bool:
        """Whether another certificate should be asked for: two thirds of its life are over, or its authority is."""
        return self._enrolled is not None and (self._outdated or self._enrolled.pair.is_due(self._now()))

    def request(self) -> CertificateRequest:
        """Make a new key, and ask for a certificate for it."""
        self._asked, request = new_key()
        return CertificateRequest(signing_request=request)

    def take(self, certificate: Certificate) -> None:
        """Keep the certificate that was asked for; the next link is opened with it. Blocks on the disk.

        Without a certificate it says whom to trust from now on: another one is asked for where that one's authority has
        changed.
        """
        if self._enrolled is None:
            return
        if not certificate.chain:
            known = certificate.authorities
            self._outdated = not is_of_newest(self._enrolled.chain.encode(), known)
            if known.decode() != self._enrolled.authorities:
                self._write(replace(self._enrolled, authorities=known.decode()))
        elif self._asked is not None:
            self.keep(self._asked, certificate, self._enrolled.invitation_id)
            self._asked, self._outdated = None, False

    def keep(self, key: bytes, certificate: Certificate, invitation_id: str) -> None:
        """Keep a key and its certificate. Blocks on the disk."""
        enrolled = Enrolled(
            key.decode(),
            certificate.chain.decode(),
            certificate.authorities.decode(),
            certificate.address,
            certificate.server_name,
            invitation_id,
        )
        self._write(enrolled)
        _log.info("certificate_kept", expire_time=enrolled.pair.times[1].isoformat())

    def _write(self, enrolled: Enrolled) -> None:
        replace_file(self._path, json.dumps(asdict(enrolled)).encode())
        self._enrolled = enrolled

    def target(self, server: str) -> str:
        """Return where a link is opened to a control plane at ``server``."""
        if self._enrolled is None or server.startswith("unix:"):
            return server
        address = self._enrolled.address
        return f"{server.rpartition(':')[0]}{address}" if address.startswith(":") else address or server

    def credentials(self) -> tuple[grpc.ChannelCredentials, str] | None:
        """Return what a link is opened with, and the name that the other side must have; None without a certificate."""
        found = self._enrolled
        if found is None or not found.address:
            return None
        pair = found.pair
        return grpc.ssl_channel_credentials(found.authorities.encode(), pair.key, pair.chain), found.server_name


def _load(path: Path) -> Enrolled | None:
    try:
        found = json.loads(path.read_bytes())
        return Enrolled(**{name: str(found[name]) for name in Enrolled.__dataclass_fields__})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(path, f"cannot be read: {error}") from error


def _node(enrolled: Enrolled) -> str:
    found = identity_of(enrolled.chain.encode())
    return "" if found is None else found.node


def _unusable(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The identity in {path} {why}. Remove the file and enroll the node again: footlights nodes invite",
        reason=LocalReason.IDENTITY_UNUSABLE,
        metadata={"path": str(path)},
    )
