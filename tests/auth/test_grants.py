"""Viewer grants."""

from __future__ import annotations

import base64
import hmac
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.auth.grants import PREFIX, Grants
from footlights.errors import Unauthenticated

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
GRANTS = Grants(lambda: [bytes(range(32))])
TOKEN_CHARACTERS = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@given(st.text(min_size=1, max_size=64), st.text(max_size=256), st.integers(1, 86400))
def test_a_grant_says_what_it_was_minted_for(session_id: str, subject: str, ttl_s: int) -> None:
    """verify gives back session, subject and expiry, whatever characters they have."""
    grant = GRANTS.verify(GRANTS.mint(session_id, subject, ttl_s, NOW), NOW)

    expected = (session_id, subject, NOW + timedelta(seconds=ttl_s))
    assert (grant.session_id, grant.subject, grant.expire_time) == expected


@given(st.text(min_size=1, max_size=64))
def test_a_grant_fits_header_query_and_subprotocol(session_id: str) -> None:
    """A grant has only characters that need no escaping in any of the three."""
    text = GRANTS.mint(session_id, "ada", 60, NOW)

    assert text.startswith(PREFIX)
    assert TOKEN_CHARACTERS.fullmatch(text)


def test_a_grant_ends_at_its_expiry_and_not_before() -> None:
    """One millisecond before is good; the moment itself is not."""
    text = GRANTS.mint("s1", "ada", 60, NOW)

    assert GRANTS.verify(text, NOW + timedelta(seconds=59.999)).session_id == "s1"
    with pytest.raises(Unauthenticated) as caught:
        GRANTS.verify(text, NOW + timedelta(seconds=60))
    assert caught.value.reason == "GRANT_EXPIRED"


def test_an_expired_grant_can_still_be_read() -> None:
    """read tells whose it was, for ending what was begun with it."""
    text = GRANTS.mint("s1", "ada", 60, NOW)

    assert GRANTS.read(text).session_id == "s1"


def test_two_grants_have_different_nonces() -> None:
    """Two grants for the same session and subject can be told apart."""
    nonces = {GRANTS.read(GRANTS.mint("s1", "ada", 60, NOW)).nonce for _ in range(16)}

    assert len(nonces) == 16


def test_any_changed_character_is_refused() -> None:
    """No single-character change of a grant verifies, not even another spelling of the same bytes."""
    text = GRANTS.mint("s1", "ada", 60, NOW)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    for place in range(len(PREFIX), len(text)):
        for other in alphabet[:: 7 if place < len(text) - 1 else 1]:
            if other == text[place]:
                continue
            with pytest.raises(Unauthenticated):
                GRANTS.read(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "flg_", "flg_é", "flg_AAAA", "fl_abc_def", "flg_" + "A" * 5000, "flg_A\n"])
def test_other_text_is_refused_with_its_reason(text: str) -> None:
    """Anything else is GRANT_INVALID, never another exception."""
    with pytest.raises(Unauthenticated) as caught:
        GRANTS.verify(text, NOW)

    assert caught.value.reason == "GRANT_INVALID"


def test_a_grant_of_another_cluster_is_refused() -> None:
    """A grant signed under another key does not verify."""
    with pytest.raises(Unauthenticated):
        Grants(lambda: [bytes(32)]).verify(GRANTS.mint("s1", "ada", 60, NOW), NOW)


@pytest.mark.parametrize(
    ("ttl_s", "age_s"),
    [(10 * 365 * 86400, 60), (10 * 365 * 86400, 10 * 365 * 86400 - 3600), (3 * 86400, 86401), (60, -3600)],
)
def test_the_verifier_bounds_a_grant_whoever_signed_it(ttl_s: float, age_s: float) -> None:
    """A grant for ten years is refused when it is new, and in its last hour; so is one that is from the future."""
    text = GRANTS.mint("s1", "ada", ttl_s, NOW)

    with pytest.raises(Unauthenticated) as caught:
        GRANTS.verify(text, NOW + timedelta(seconds=age_s))

    assert caught.value.reason == "GRANT_INVALID"


def test_a_grant_of_any_key_of_the_ring_is_valid() -> None:
    """After a rotation the grants of before stay valid, new ones are signed with the new key, until it is retired."""
    old, new = bytes(range(32)), bytes(32)
    before = GRANTS.mint("s1", "ada", 60, NOW)
    rotated = Grants(lambda: [new, old])

    assert rotated.verify(before, NOW).session_id == "s1"
    assert Grants(lambda: [new]).verify(rotated.mint("s1", "ada", 60, NOW), NOW).session_id == "s1"
    with pytest.raises(Unauthenticated):
        Grants(lambda: [new]).verify(before, NOW)


def test_a_grant_of_the_release_before_is_bounded_by_its_expiry() -> None:
    """Its nonce has no moment of issue; a day is the most it may have left."""
    claims = ["s1", "ada", int((NOW + timedelta(days=2)).timestamp() * 1000), "A" * 16]
    payload = json.dumps(claims, separators=(",", ":")).encode()
    mac = hmac.digest(bytes(range(32)), b"footlights.grant.v1\0" + payload, "sha256")
    text = PREFIX + base64.urlsafe_b64encode(mac + payload).rstrip(b"=").decode()

    assert GRANTS.verify(text, NOW + timedelta(days=1.5)).issue_time is None
    with pytest.raises(Unauthenticated):
        GRANTS.verify(text, NOW)
