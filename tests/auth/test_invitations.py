"""Invitations: codes, and the proofs of both sides."""

from __future__ import annotations

from footlights.auth import invitations, tokens
from footlights.redaction import redact

KEY = bytes(32)


def test_a_code_says_what_both_sides_need() -> None:
    """It parses to its id and its key, differs from the token of the same secret, and a typo is found."""
    minted = tokens.mint()
    code = invitations.code(minted)
    found = invitations.parse(code)

    assert found is not None
    assert (code[:4], found.invitation_id, len(found.key)) == ("fle_", minted.token_id, 32)
    assert minted.secret.encode() not in found.key
    assert tokens.parse(code) is None
    assert invitations.parse(minted.text) is None
    assert invitations.parse(code[:-1] + ("A" if code[-1] != "A" else "B")) is None


def test_a_proof_is_of_one_request_and_one_answer() -> None:
    """Another id, node, signing request, certificate or key has another proof, however the parts are divided."""
    proofs = {
        invitations.request_proof(KEY, "id", "node", b"csr"),
        invitations.request_proof(KEY, "i", "dnode", b"csr"),
        invitations.request_proof(KEY, "id", "nod", b"ecsr"),
        invitations.request_proof(bytes(range(32)), "id", "node", b"csr"),
        invitations.answer_proof(KEY, b"certificate", b"proof"),
        invitations.answer_proof(KEY, b"certificatep", b"roof"),
    }

    assert len(proofs) == 6


def test_redaction_keeps_the_id_of_a_code_and_drops_its_secret() -> None:
    """A command line or an error that holds a code may be logged."""
    code = invitations.code(tokens.mint())
    identity = invitations.parse(code)
    assert identity is not None

    kept = f"fle_{identity.invitation_id}_[redacted]"
    assert redact(f"agent --enroll {code}: refused") == f"agent --enroll {kept}: refused"
