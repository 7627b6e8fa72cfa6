"""The cluster key, the keys derived from it, and the encryption of secrets at rest.

The cluster key is a ring: of several keys one is current. It signs and seals; all of them verify and open. So a key is
replaced without downtime: the new one is known everywhere before it is used, and the old one stays until nothing needs
it any more.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from footlights.errors import FailedPrecondition, Internal, LocalReason, Reason
from footlights.linux.files import create_file, lock_file, replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT: Final = "FOOTLIGHTS_CLUSTER_KEY"
"""The environment variable that may hold the ring instead of a file: what a file holds."""

Keys = Callable[[], Sequence[bytes]]
"""The derived keys of one use, the current one first; asked at each use, because the ring changes."""

MOST_KEYS: Final = 8
"""In a ring: each is tried with what none of them made."""

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = b"\x01"
_SECRETS: Final = "secrets"
"""The label of the box."""
_LOCK_S: Final = 10.0
_LOCK_PAUSE_S: Final = 0.05
_SINCE: Final = re.compile(r"from=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


@dataclass(frozen=True, slots=True)
class RingKey:
    """One key of a ring."""

    key: bytes = field(repr=False)
    since: datetime | None = None
    """From when it is the current one; None: from the beginning."""

    def __post_init__(self) -> None:
        if len(self.key) != _KEY_BYTES:
            raise _invalid(f"it has {len(self.key)} bytes, not {_KEY_BYTES}")

    @property
    def fingerprint(self) -> str:
        """16 characters that differ between keys and reveal nothing about them."""
        return self.derive("fingerprint").hex()[:16]

    def derive(self, label: str) -> bytes:
        """Return the 32-byte key for one use (HKDF-SHA256, RFC 5869)."""
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"footlights.v1.{label}".encode()).derive(self.key)

    def box(self) -> Box:
        """Return the box for what is sealed with this key alone; see ``ClusterKey.box``."""
        keys = (self.derive(_SECRETS),)
        return Box(lambda: keys)

    @property
    def text(self) -> str:
        """It as a line of a file."""
        since = "" if self.since is None else f" from={self.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return base64.b64encode(self.key).decode() + since


class ClusterKey:
    """The one secret of a control plane: a ring of keys of 32 random bytes, the same in every replica.

    It is never used directly; each use derives its own keys by a label. Labels in use: ``grants``, ``secrets`` (the
    box), ``pages`` (page tokens and cursors), ``frontdoor`` (WHEP resources), ``replicas`` (the proof between
    replicas), ``fingerprint`` (to compare two keys), and ``tokens``: digests of tokens, which stay those of the key
    that the database began with (`footlights.control.credentials.cluster_keys`).
    """

    def __init__(self, key: bytes, *older: bytes) -> None:
        """Use these keys of 32 bytes, the first one as the current one. Raises FailedPrecondition for another size."""
        self._ring: tuple[RingKey, ...] = tuple(map(RingKey, (key, *older)))
        self._derived: dict[str, tuple[bytes, ...]] = {}
        self._read: Callable[[], Sequence[RingKey]] = lambda: self._ring

    def __repr__(self) -> str:
        return "ClusterKey([redacted])"

    @classmethod
    def load_or_create(
        cls, path: Path, environ: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> ClusterKey:
        """Return the ring in ``FOOTLIGHTS_CLUSTER_KEY``, else in ``path``, created with mode 0600 if missing.

        Raises FailedPrecondition where it is no key, or the file's group or others may read or write it.
        """
        if text := environ.get(ENVIRONMENT, "").strip():
            ring = parse_ring(text, f"the environment variable {ENVIRONMENT}")
            read: Callable[[], Sequence[RingKey]] = lambda: ring  # noqa: E731
        else:
            if not path.exists():
                _create(path)
            read = partial(read_ring, path)
        made = cls(_by_use(read(), now())[0].key)
        made._read = lambda: _by_use(read(), now())
        made.refresh()
        return made

    def refresh(self) -> bool:
        """Read the ring again, and which of it is current; return whether anything has changed.

        Raises as ``load_or_create`` does; the ring stays as it was.
        """
        ring = tuple(self._read())
        if ring == self._ring:
            return False
        self._ring, self._derived = ring, {}
        return True

    @property
    def ring(self) -> tuple[RingKey, ...]:
        """The keys, the current one first."""
        return self._ring

    def all(self, label: str) -> tuple[bytes, ...]:
        """Return the keys for one use, the current one first."""
        found = self._derived.get(label)
        if found is None:
            found = self._derived[label] = tuple(each.derive(label) for each in self._ring)
        return found

    def keys(self, label: str) -> Keys:
        """Return what has the keys for one use, also after the ring has changed."""
        return partial(self.all, label)

    def derive(self, label: str) -> bytes:
        """Return the current key for one use."""
        return self.all(label)[0]

    @property
    def fingerprint(self) -> str:
        """16 characters that differ between keys and reveal nothing about them."""
        return self._ring[0].fingerprint

    def box(self) -> Box:
        """Return the box for secrets at rest."""
        return Box(self.keys(_SECRETS))


def parse_ring(text: str, where: str) -> tuple[RingKey, ...]:
    """Return the keys of a ring as written: one a line, or between commas, ``BASE64`` or ``BASE64 from=TIME``.

    Raises FailedPrecondition where it is none.
    """
    lines = [line.strip() for line in text.replace(",", "\n").splitlines() if line.strip()]
    if not 1 <= len(lines) <= MOST_KEYS:
        raise _invalid(f"{where} holds {len(lines)} keys; a ring has 1 to {MOST_KEYS}")
    ring = tuple(_parse_line(line, where) for line in lines)
    if len({each.key for each in ring}) < len(ring):
        raise _invalid(f"{where} holds one key twice")
    return ring


def read_ring(path: Path) -> tuple[RingKey, ...]:
    """Return the keys in a file. Raises FailedPrecondition where it cannot be read, is exposed, or holds no keys."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise FailedPrecondition(
            f"The cluster key {path} cannot be read: {error.strerror}. Give the file that the server uses.",
            reason=LocalReason.CLUSTER_KEY_MISSING,
            metadata={"path": str(path)},
        ) from error
    if mode & 0o077:
        raise FailedPrecondition(
            f"{path} has mode {mode:04o}, so other users can read or change the cluster key: chmod 600 {path}",
            reason=LocalReason.CLUSTER_KEY_EXPOSED,
            metadata={"path": str(path), "mode": f"{mode:04o}"},
        )
    return parse_ring(text, str(path))


def rotate(path: Path, *, now: datetime, after_s: float) -> tuple[RingKey, ...]:
    """Add a new key to the ring in a file, current ``after_s`` seconds from ``now``; return the ring.

    Raises FailedPrecondition where the file has no ring, the ring is full, or others change it; OSError where it cannot
    be written.
    """
    since = (now + timedelta(seconds=after_s)).replace(microsecond=0)
    with _alone(path) as file:
        ring = (*read_ring(file), RingKey(secrets.token_bytes(_KEY_BYTES), since))
        if len(ring) > MOST_KEYS:
            raise FailedPrecondition(
                f"{path} already holds {MOST_KEYS} keys. Remove those that nothing needs: footlights keys retire",
                reason=LocalReason.CLUSTER_KEY_INVALID,
            )
        _write(file, ring)
    return ring


def retire(
    path: Path, *, now: datetime, older_than_s: float, check: Callable[[Sequence[RingKey]], None]
) -> tuple[tuple[RingKey, ...], tuple[RingKey, ...]]:
    """Remove from the ring in a file what was replaced ``older_than_s`` seconds ago; return what stays and what went.

    ``check`` is called with the keys that are to go, and raises where one of them is needed.

    Raises FailedPrecondition where the file has no ring, or others change it; OSError where it cannot be written.
    """
    moment = now - timedelta(seconds=older_than_s)
    with _alone(path) as file:
        ring = read_ring(file)
        current = _by_use(ring, moment)[0]
        kept = tuple(each for each in ring if each == current or (each.since or _EPOCH) > (current.since or _EPOCH))
        gone = tuple(each for each in ring if each not in kept)
        if gone:
            check(gone)
            _write(file, kept)
    return kept, gone


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Keep others from changing a ring meanwhile; return its file, to which ``path`` may be a link.

    Who reads it needs no lock: the file is replaced as a whole.
    """
    file = path.resolve()
    read_ring(file)
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            descriptor = lock_file(file.with_name(f".{file.name}.lock"))
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FailedPrecondition(
                    f"Another footlights keys is changing {path}. Try again when it has ended.",
                    reason=LocalReason.CLUSTER_KEY_LOCKED,
                ) from None
            time.sleep(_LOCK_PAUSE_S)
    try:
        yield file
    finally:
        os.close(descriptor)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _by_use(ring: Sequence[RingKey], now: datetime) -> tuple[RingKey, ...]:
    """Return a ring with the key first that is current: the newest whose time has come, else the oldest."""
    newest_first = sorted(ring, key=lambda each: each.since or _EPOCH, reverse=True)
    current = next((each for each in newest_first if (each.since or _EPOCH) <= now), newest_first[-1])
    return (current, *(each for each in newest_first if each is not current))


class Box:
    """Seals bytes with AES-256-GCM, each under a fresh random nonce."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        """Encrypt ``plain`` and bind it to ``aad``, such as a session's id, so that it cannot be moved to another."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + AESGCM(self._keys()[0]).encrypt(nonce, plain, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what was sealed with the same ``aad``.

        Raises Internal where it was sealed with another cluster key or another ``aad``, or is damaged.
        """
        head, nonce, body = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if head == _FORMAT and len(nonce) == _NONCE_BYTES:
            for key in self._keys():
                try:
                    return AESGCM(key).decrypt(nonce, body, aad)
                except InvalidTag:
                    continue
        raise Internal(
            "A stored secret cannot be decrypted: it was encrypted with another cluster key, or is damaged. "
            f"Start the control plane with the key that it was encrypted with ({ENVIRONMENT} or the key file).",
            reason=Reason.SECRET_UNREADABLE,
        )


def _create(path: Path) -> None:
    """Write a new key. If several processes start at once one wins, and none reads a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    create_file(path, f"{RingKey(secrets.token_bytes(_KEY_BYTES)).text}\n".encode("ascii"))


def _write(path: Path, ring: Sequence[RingKey]) -> None:
    owner = path.stat()
    replace_file(path, "".join(f"{each.text}\n" for each in ring).encode("ascii"))
    with contextlib.suppress(PermissionError):
        os.chown(path, owner.st_uid, owner.st_gid)


def _parse_line(line: str, where: str) -> RingKey:
    word, _, rest = line.partition(" ")
    if not rest.strip():
        return RingKey(_decode(word, where))
    found = _SINCE.fullmatch(rest.strip())
    try:
        if found is not None:
            return RingKey(_decode(word, where), datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC))
    except ValueError:
        pass
    raise _invalid(f"after a key, {where} may hold from=YYYY-MM-DDTHH:MM:SSZ")


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
