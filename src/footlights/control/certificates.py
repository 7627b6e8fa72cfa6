"""What the certificate that is served with says of itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509

from footlights.errors import InvalidArgument


def expiry(path: Path) -> datetime:
    """Return when a chain ceases to be good: the first moment (UTC) at which one of its certificates does.

    Raises:
        InvalidArgument: ``tls_cert`` cannot be read, or holds no certificate.
    """
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InvalidArgument("tls_cert", f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidArgument("tls_cert", f"{path} holds no certificate in PEM: {error}.") from error
    return min(certificate.not_valid_after_utc for certificate in chain)
