"""What the certificate that is served with says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


def expiry(path: Path) -> datetime:
    """Return when a chain ceases to be good: the first moment (UTC) at which one of its certificates does.

    Raises:
        InvalidArgument: ``tls_cert`` cannot be read, or holds no certificate.
    """
    return min(certificate.not_valid_after_utc for certificate in _chain(path))


def name(path: Path) -> str:
    """Return a name that the first certificate is good for; empty where it names none.

    Raises:
        InvalidArgument: as ``expiry``.
    """
    try:
        names = _chain(path)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    known: list[str] = names.get_values_for_type(x509.DNSName)
    # Any name will do for what a wildcard covers.
    return known[0].replace("*", "replica", 1) if known else ""


def _chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InvalidArgument("tls_cert", f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidArgument("tls_cert", f"{path} holds no certificate in PEM: {error}.") from error
