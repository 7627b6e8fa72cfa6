"""The certificate authority of a control plane, and the identities in its certificates.

An identity is a URI in a certificate: ``footlights://CLUSTER/node/NAME/ENROLLMENT`` of a node,
``footlights://CLUSTER/replica`` of a control plane's process. Servers have the DNS name `SERVER_NAME` as well, which no
other certificate of the authority has: a client that trusts the authority needs no more to know that it talks to the
control plane, at whatever address.

Of several authorities of one cluster, each but the first has a label, which stands before that name in the certificates
that it gives to servers. So a client that asks for one name or the other is shown the certificate that it can verify.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509 import Name
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SERVER_NAME: Final = "control-plane.footlights.internal"
"""The name in every certificate that the control plane serves agents and replicas with."""

LIFE: Final = timedelta(days=3650)
"""Of an authority that a control plane makes for itself."""

SLACK: Final = timedelta(minutes=5)
"""How far other machines' clocks may be behind."""

MAX_REQUEST_BYTES: Final = 4096

_IDENTITY: Final = re.compile(r"footlights://([^/]+)/(?:node/([^/]+)/([^/]+)|(replica))")
_LABEL: Final = re.compile(r"a[0-9a-f]{12}")
_PEM: Final = serialization.Encoding.PEM
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """Whose certificate it is."""

    cluster: str
    node: str
    """Empty for a process of the control plane itself."""
    enrollment: str
    expire_time: datetime
    authority: str
    """The ``key_id`` of the authority that signed it; empty where it does not say."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate with those between it and the authority; PEM."""

    key: bytes
    chain: bytes

    @property
    def times(self) -> tuple[datetime, datetime]:
        """From when until when the certificate is valid."""
        first = x509.load_pem_x509_certificates(self.chain)[0]
        return first.not_valid_before_utc, first.not_valid_after_utc

    def is_due(self, now: datetime) -> bool:
        """Return whether two thirds of its life are over."""
        begin, end = self.times
        return now >= begin + (end - begin) * 2 / 3


class Authority:
    """Signs the certificates of one cluster."""

    def __init__(self, certificates: Sequence[x509.Certificate], key: PrivateKey) -> None:
        """Sign with the first certificate; the others are between it and one that signs itself."""
        self._issuer, self._chain, self._key = certificates[0], tuple(certificates), key

    @classmethod
    def create(cls, cluster: str, now: datetime, label: str = "", life: timedelta = LIFE) -> Authority:
        """Make a new authority that signs itself; ``label`` tells it from others of its cluster: ``new_label()``."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, f"Footlights {cluster}"[:64])]
        if label:
            attributes.append(x509.NameAttribute(NameOID.DN_QUALIFIER, label))
        name = Name(attributes)
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SLACK)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        return cls([builder.sign(key, hashes.SHA256())], key)

    @classmethod
    def load(cls, certificates: bytes, key: bytes) -> Authority:
        """Load an authority from PEM.

        Raises InvalidArgument that names ``ca_cert`` or ``ca_key``: one of them is none, or they are no pair.
        """
        try:
            chain = x509.load_pem_x509_certificates(certificates)
        except ValueError as error:
            raise InvalidArgument("ca_cert", f"holds no certificate in PEM: {error}.") from error
        try:
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidArgument("ca_key", f"holds no private key in PEM without a password: {error}.") from error
        if not isinstance(private, PrivateKey):
            raise InvalidArgument("ca_key", "is of a kind that cannot sign certificates; use an elliptic or RSA key.")
        if _public(private.public_key()) != _public(chain[0].public_key()):
            raise InvalidArgument("ca_key", "is not the key of the first certificate in ca_cert.")
        try:
            constraints = chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise InvalidArgument("ca_cert", "its first certificate is not one of an authority (basicConstraints CA).")
        return cls(chain, private)

    @classmethod
    def read(cls, certificates: Path, key: Path) -> Authority:
        """Load an authority from files. Raises as ``load``, and where they cannot be read."""
        texts = []
        for name, path in (("ca_cert", certificates), ("ca_key", key)):
            try:
                texts.append(path.read_bytes())
            except OSError as error:
                raise InvalidArgument(name, f"{path} cannot be read: {error.strerror}.") from error
        return cls.load(texts[0], texts[1])

    @property
    def certificates(self) -> bytes:
        """What its certificates lead to, PEM: what others must trust."""
        return b"".join(each.public_bytes(_PEM) for each in self._chain)

    @property
    def key_id(self) -> str:
        """What identifies its key."""
        return _key_id(self._issuer)

    @property
    def server_name(self) -> str:
        """The name that its certificates of servers have, and those of no other authority."""
        found = self._issuer.subject.get_attributes_for_oid(NameOID.DN_QUALIFIER)
        label = str(found[0].value) if found else ""
        return f"{label}.{SERVER_NAME}" if _LABEL.fullmatch(label) else SERVER_NAME

    @property
    def begin_time(self) -> datetime:
        """When it was made."""
        return self._issuer.not_valid_before_utc

    @property
    def key(self) -> bytes:
        """Its private key, PEM."""
        return _private_pem(self._key)

    @property
    def expire_time(self) -> datetime:
        """When it can sign no more."""
        return self._issuer.not_valid_after_utc

    def node_certificate(
        self, request: bytes, *, cluster: str, node: str, enrollment: str, now: datetime, ttl_s: float
    ) -> bytes:
        """Return a certificate chain, PEM, for the key of a signing request (DER).

        Raises InvalidArgument that names ``signing_request``.
        """
        identity = x509.UniformResourceIdentifier(f"footlights://{cluster}/node/{node}/{enrollment}")
        return self._sign(
            _requested_key(request), node, [identity], now=now, ttl_s=ttl_s, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]
        )

    def server_certificate(self, cluster: str, names: Sequence[str], *, now: datetime, ttl_s: float) -> KeyPair:
        """Make a key and a certificate for a process of the control plane, which is reached at ``names``."""
        key = ec.generate_private_key(ec.SECP256R1())
        known = x509.UniformResourceIdentifier(f"footlights://{cluster}/replica")
        chain = self._sign(
            key.public_key(),
            SERVER_NAME,
            [known, *map(_name, dict.fromkeys([self.server_name, *names]))],
            now=now,
            ttl_s=ttl_s,
            purposes=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        )
        return KeyPair(_private_pem(key), chain)

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: str,
        names: Sequence[x509.GeneralName],
        *,
        now: datetime,
        ttl_s: float,
        purposes: list[x509.ObjectIdentifier],
    ) -> bytes:
        end = min(now + timedelta(seconds=ttl_s), self.expire_time)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._issuer.public_key())  # type: ignore[arg-type]
        builder = (
            x509.CertificateBuilder()
            .subject_name(Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]))
            .issuer_name(self._issuer.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SLACK)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(issuer, critical=False)
        )
        edwards = isinstance(self._key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
        made = builder.sign(self._key, None if edwards else hashes.SHA256())
        return made.public_bytes(_PEM) + self.certificates


def new_label() -> str:
    """Return a label for an authority."""
    return f"a{secrets.token_hex(6)}"


def new_key() -> tuple[bytes, bytes]:
    """Return a new private key (PEM) and a signing request for it (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, hashes.SHA256())
    return _private_pem(key), request.public_bytes(serialization.Encoding.DER)


def identity_of(certificate: bytes) -> CertificateIdentity | None:
    """Return whose a certificate (PEM) is; None where it names none of ours. Its signature is not checked here."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return None
    uris: list[str] = names.get_values_for_type(x509.UniformResourceIdentifier)
    matches = [match for uri in uris if (match := _IDENTITY.fullmatch(uri)) is not None]
    if len(matches) != 1:
        return None
    try:
        issuer = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    except x509.ExtensionNotFound:
        issuer = b""
    cluster, node, enrollment, _ = matches[0].groups()
    return CertificateIdentity(cluster, node or "", enrollment or "", found.not_valid_after_utc, issuer.hex())


def is_of_newest(chain: bytes, authorities: bytes) -> bool:
    """Return whether a certificate is signed by the first one of authorities; PEM. Raises ValueError: one is none."""
    signer = x509.load_pem_x509_certificates(authorities)[0]
    identity = identity_of(chain)
    return identity is not None and identity.authority == _key_id(signer)


def _key_id(authority: x509.Certificate) -> str:
    return x509.SubjectKeyIdentifier.from_public_key(authority.public_key()).digest.hex()


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    try:
        if len(request) > MAX_REQUEST_BYTES:
            raise ValueError(f"{len(request)} bytes long; at most {MAX_REQUEST_BYTES} are taken")
        found = x509.load_der_x509_csr(request)
        key = found.public_key()
        if not found.is_signature_valid:
            raise ValueError("its signature is not that of its key")
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument("signing_request", f"is not a valid request in DER: {error}.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise InvalidArgument("signing_request", "has a key of another kind. Use an elliptic one on P-256 or P-384.")
    return key


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _public(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined, no-any-return]
