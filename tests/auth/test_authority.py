"""The authority, and what its certificates say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from footlights.auth.authority import SERVER_NAME, Authority, identity_of, new_key
from footlights.errors import InvalidArgument

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("cluster-1", NOW)


def _node(authority: Authority, request: bytes) -> bytes:
    return authority.node_certificate(request, cluster="c", node="gpu-1", enrollment="e1", now=NOW, ttl_s=3600)


def test_a_certificate_of_a_node_names_it_and_is_for_clients_only(authority: Authority) -> None:
    """Its identity, its end and its purpose; it is signed by the authority, and no name of the request is in it."""
    chain = x509.load_pem_x509_certificates(_node(authority, new_key()[1]))
    identity = identity_of(chain[0].public_bytes(serialization.Encoding.PEM))

    assert identity is not None
    assert (identity.cluster, identity.node, identity.enrollment) == ("c", "gpu-1", "e1")
    assert identity.expire_time == NOW + timedelta(hours=1)
    assert list(chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []
    chain[0].verify_directly_issued_by(chain[1])


def test_a_certificate_of_a_server_has_the_name_that_agents_look_for(authority: Authority) -> None:
    """Beside the names and addresses that it is reached at; it is due at two thirds of its life."""
    pair = authority.server_certificate("c", ["10.0.0.5", "hub.example.com"], now=NOW, ttl_s=3600)
    names = x509.load_pem_x509_certificates(pair.chain)[0].extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )

    assert names.value.get_values_for_type(x509.DNSName) == [SERVER_NAME, "hub.example.com"]
    assert [str(each) for each in names.value.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]
    identity = identity_of(pair.chain)
    assert identity is not None
    assert identity.node == ""
    assert not pair.is_due(NOW + timedelta(minutes=35))
    assert pair.is_due(NOW + timedelta(minutes=40))


def test_an_authority_is_the_same_from_its_files(authority: Authority, tmp_path: Path) -> None:
    """What the other replicas load signs what the first one's certificates verify."""
    (tmp_path / "ca.pem").write_bytes(authority.certificates)
    (tmp_path / "ca.key").write_bytes(authority.key)
    same = Authority.read(tmp_path / "ca.pem", tmp_path / "ca.key")

    chain = x509.load_pem_x509_certificates(_node(same, new_key()[1]))
    chain[0].verify_directly_issued_by(x509.load_pem_x509_certificates(authority.certificates)[0])


def test_an_issuer_below_another_gives_the_whole_chain(authority: Authority) -> None:
    """An operator's intermediate with an RSA key: clients that trust the root get what is between."""
    key, name = rsa.generate_private_key(65537, 2048), x509.Name([])
    root = x509.load_pem_x509_certificates(authority.certificates)[0]
    root_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    middle = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(minutes=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    issuer = Authority.load(middle.public_bytes(pem) + authority.certificates, text)

    chain = x509.load_pem_x509_certificates(_node(issuer, new_key()[1]))

    assert len(chain) == 3
    assert chain[0].not_valid_after_utc == NOW + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("certificates", "key", "field"),
    [
        ("nothing", "own", "ca_cert"),
        ("own", "nothing", "ca_key"),
        ("other", "own", "ca_key"),
        ("leaf", "leaf", "ca_cert"),
    ],
)
def test_files_that_are_no_authority_are_refused(authority: Authority, certificates: str, key: str, field: str) -> None:
    """The refusal names the setting: what is none, what does not belong together, what may not sign."""
    leaf = authority.server_certificate("c", [], now=NOW, ttl_s=60)
    texts = {"nothing": b"", "own": authority.certificates, "other": Authority.create("d", NOW).certificates}
    keys = {"nothing": b"", "own": authority.key, "leaf": leaf.key}

    with pytest.raises(InvalidArgument) as caught:
        Authority.load((texts | {"leaf": leaf.chain})[certificates], keys[key])

    assert caught.value.violations[0].field == field


def _rsa_request() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _forged_request() -> bytes:
    made = bytearray(new_key()[1])
    made[-1] ^= 1
    return bytes(made)


@pytest.mark.parametrize("request_", [b"", b"x" * 5000, _rsa_request(), _forged_request()])
def test_a_signing_request_that_is_none_is_refused(authority: Authority, request_: bytes) -> None:
    """Nothing, too much, a key of another kind, a signature by another key: named, and nothing is signed."""
    with pytest.raises(InvalidArgument) as caught:
        _node(authority, request_)

    assert caught.value.violations[0].field == "signing_request"


@pytest.mark.parametrize("text", [b"", b"nonsense", Authority.create("c", NOW).certificates])
def test_another_certificate_has_no_identity(text: bytes) -> None:
    """What names nobody of ours is nobody's."""
    assert identity_of(text) is None
