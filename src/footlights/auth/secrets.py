"""The cluster key, the keys derived from it, and the encryption of secrets at rest."""

from __future__ import annotations

import base64
import binascii
import secrets
import stat
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from footlights.errors import FailedPrecondition, Internal, LocalReason, Reason
from footlights.linux.files import create_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT: Final = "FOOTLIGHTS_CLUSTER_KEY"
"""The environment variable that may hold the key, in base64, instead of a file."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = b"\x01"


class ClusterKey:
    """The one secret of a control plane: 32 random bytes, the same in every replica.

    It is never used directly; each use derives its own key by a label. Labels in use: ``tokens`` (digests, and the
    secrets of repeatable creations), ``grants``,
    ``secrets`` (the box), ``pages`` (page tokens and cursors), ``frontdoor`` (WHEP resources), ``replicas`` (the proof
    between replicas), ``fingerprint`` (to compare two keys).
    """

    def __init__(self, key: bytes) -> None:
        """Use these 32 bytes. Raises FailedPrecondition where their number is wrong."""
        if len(key) != _KEY_BYTES:
            raise _invalid(f"it has {len(key)} bytes, not {_KEY_BYTES}")
        self._key = key

    def __repr__(self) -> str:
        return "ClusterKey([redacted])"

    @classmethod
    def load_or_create(cls, path: Path, environ: Mapping[str, str]) -> ClusterKey:
        """Return the key in ``FOOTLIGHTS_CLUSTER_KEY``, else in ``path``, created with mode 0600 if missing.

        Raises FailedPrecondition where it is no key, or the file's group or others may read or write it.
        """
        if text := environ.get(ENVIRONMENT, "").strip():
            return cls(_decode(text, f"the environment variable {ENVIRONMENT}"))
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise FailedPrecondition(
                f"{path} has mode {mode:04o}, so other users can read or change the cluster key: chmod 600 {path}",
                reason=LocalReason.CLUSTER_KEY_EXPOSED,
                metadata={"path": str(path), "mode": f"{mode:04o}"},
            )
        return cls(_decode(path.read_text(encoding="ascii", errors="replace").strip(), str(path)))

    def derive(self, label: str) -> bytes:
        """Return the 32-byte key for one use (HKDF-SHA256, RFC 5869)."""
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"footlights.v1.{label}".encode()).derive(self._key)

    @property
    def fingerprint(self) -> str:
        """16 characters that differ between keys and reveal nothing about them."""
        return self.derive("fingerprint").hex()[:16]

    def box(self) -> Box:
        """Return the box for secrets at rest."""
        return Box(self.derive("secrets"))


class Box:
    """Seals bytes with AES-256-GCM, each under a fresh random nonce."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        """Encrypt ``plain`` and bind it to ``aad``, such as a session's id, so that it cannot be moved to another."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, plain, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what was sealed with the same ``aad``.

        Raises Internal where it was sealed with another cluster key or another ``aad``, or is damaged.
        """
        head, nonce, body = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if head == _FORMAT and len(nonce) == _NONCE_BYTES:
                return self._cipher.decrypt(nonce, body, aad)
        except InvalidTag:
            pass
        raise Internal(
            "A stored secret cannot be decrypted: it was encrypted with another cluster key, or is damaged. "
            f"Start the control plane with the key that it was encrypted with ({ENVIRONMENT} or the key file).",
            reason=Reason.SECRET_UNREADABLE,
        )


def _create(path: Path) -> None:
    """Write a new key. If several processes start at once one wins, and none reads a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    create_file(path, base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")


def _decode(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(f"{where} is not base64") from None
    if len(key) != _KEY_BYTES:
        raise _invalid(f"{where} holds {len(key)} bytes, not {_KEY_BYTES}")
    return key


def _invalid(problem: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The cluster key is invalid: {problem}. Use 32 random bytes in base64: head -c 32 /dev/urandom | base64",
        reason=LocalReason.CLUSTER_KEY_INVALID,
    )
