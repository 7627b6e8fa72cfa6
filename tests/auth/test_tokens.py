"""API tokens."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footlights.auth import tokens
from footlights.redaction import redact

KEY = bytes(range(32))


@given(st.binary(min_size=24, max_size=24))
def test_a_minted_token_parses_to_its_own_parts(entropy: bytes) -> None:
    """What mint returns, parse takes apart again, whatever the random bytes."""
    minted = tokens.mint(lambda size: entropy[:size])

    assert tokens.parse(minted.text) == tokens.Presented(minted.token_id, minted.secret)


def test_a_secret_holds_at_least_160_random_bits() -> None:
    """mint asks for 24 bytes for the secret and loses none of them: the greatest value fits its width."""
    asked: list[int] = []

    def random_bytes(size: int) -> bytes:
        asked.append(size)
        return b"\xff" * size

    highest = tokens.mint(random_bytes)

    number = 0
    for digit in highest.secret:
        number = number * 62 + tokens.ALPHABET.index(digit)
    assert asked[1] * 8 >= 160
    assert number == 2 ** (asked[1] * 8) - 1


def test_a_requests_token_is_made_again_from_its_id_alone() -> None:
    """Its secret follows from the key, the caller, the request and the token's id: with another of them it differs."""
    made = tokens.mint_for(KEY, "ann", "k")
    presented = tokens.parse(made.text)

    assert presented == tokens.Presented(made.token_id, made.secret)
    assert tokens.mint_for(KEY, "ann", "k", made.token_id) == made
    assert tokens.mint_for(KEY, "ann", "k").token_id != made.token_id
    others = [
        tokens.mint_for(bytes(32), "ann", "k", made.token_id),
        tokens.mint_for(KEY, "bob", "k", made.token_id),
        tokens.mint_for(KEY, "ann", "l", made.token_id),
        tokens.mint_for(KEY, "annk", "", made.token_id),
        tokens.mint_for(KEY, "ann", "k"),
    ]
    assert len({made.secret, *(other.secret for other in others)}) == 6


@pytest.mark.parametrize("place", range(3, 56))
def test_a_typo_is_refused_without_a_look_up(place: int) -> None:
    """Any one character changed makes a token unparsable."""
    text = tokens.mint().text
    typo = "A" if text[place] != "A" else "B"

    assert tokens.parse(text[:place] + typo + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "fl_", "Bearer x", "flg_abc", "fl_" + "a" * 13 + "_" + "b" * 39])
def test_other_text_is_no_token(text: str) -> None:
    """Text that is not a whole token is None, never an exception."""
    assert tokens.parse(text) is None


def test_a_cut_or_padded_token_is_refused() -> None:
    """A token with a character less, a blank or a line end is none."""
    text = tokens.mint().text

    assert [tokens.parse(text[:-1]), tokens.parse(text + " "), tokens.parse(text + "\n")] == [None, None, None]


def test_a_digest_depends_on_secret_id_and_key() -> None:
    """A stored digest matches its own token under its own key, and nothing else."""
    minted = tokens.mint()
    presented = tokens.Presented(minted.token_id, minted.secret)
    stored = tokens.digest(presented, KEY)

    assert tokens.matches(presented, KEY, stored)
    assert not tokens.matches(presented, bytes(32), stored)
    assert not tokens.matches(tokens.Presented("0" * 13, minted.secret), KEY, stored)
    assert not tokens.matches(tokens.Presented(minted.token_id, "0" * 33), KEY, stored)


def test_a_presented_token_does_not_show_its_secret() -> None:
    """The repr, which ends in tracebacks and logs, has the id only."""
    presented = tokens.Presented("abc", "hush")

    assert "hush" not in repr(presented)
    assert "abc" in repr(presented)


def test_redaction_keeps_the_id_and_drops_the_secret() -> None:
    """A log line that held a token still says which one."""
    minted = tokens.mint()

    shown = redact(f"authorization: Bearer {minted.text}, again {minted.text}")

    assert minted.secret not in shown
    assert shown.count(f"fl_{minted.token_id}_[redacted]") == 2


@pytest.mark.parametrize(
    "text",
    [
        "GET /stream/s/whep?access_token=hushhush&x=1",
        "Authorization: Bearer hushhush",
        "{'authorization': 'Bearer hushhush'}",
        "Sec-WebSocket-Protocol: Authorization-Bearer.hushhush, x",
        "http://127.0.0.1:1/console/#token=hushhush",
        "flg_hushhush",
    ],
)
def test_redaction_finds_every_way_a_credential_travels(text: str) -> None:
    """Headers, queries, fragments, subprotocols and bare grants are all emptied, also when done twice."""
    shown = redact(text)

    assert not re.search("hush", shown)
    assert redact(shown).count("hush") == 0
    assert "[redacted]" in shown


def test_redaction_drops_the_signatures_of_urls() -> None:
    """Whoever has a presigned URL is let in; what it is of stays readable."""
    url = "https://h/a.usd?X-Amz-Expires=60&X-Amz-Signature=0abc&x-amz-security-token=0def&sig=0ghi"

    shown = redact(f"cannot open {url}, {redact(url)}")

    assert not any(secret in shown for secret in ("0abc", "0def", "0ghi"))
    assert shown.count("https://h/a.usd?X-Amz-Expires=60&X-Amz-Signature=[redacted]") == 2
