"""CORS headers."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from footlights.http.cors import Cors

NAMES = {"expose": ("etag", "location"), "request_headers": ("authorization", "content-type")}
PAGE = b"https://console.example"


def test_any_origin() -> None:
    """
    With a wildcard every answer allows every origin, so that caches need not tell origins apart.
    """
    cors = Cors(["*"], **NAMES)

    assert cors.headers(PAGE) == cors.headers(None)
    assert dict(cors.headers(PAGE)) == {
        b"access-control-allow-origin": b"*",
        b"access-control-expose-headers": b"etag, location",
    }


def test_named_origins() -> None:
    """
    A named origin is allowed by its name, another one is not, and caches are told that the answer varies.
    """
    cors = Cors([PAGE.decode()], **NAMES)

    assert dict(cors.headers(PAGE))[b"access-control-allow-origin"] == PAGE
    for origin in (b"https://other.example", b"", None):
        assert dict(cors.headers(origin)) == {b"vary": b"origin"}


def test_disabled() -> None:
    """
    Without origins there is no CORS.
    """
    cors = Cors([], **NAMES)

    assert not cors.is_enabled
    assert cors.headers(PAGE) == ()


@pytest.mark.parametrize(
    ("requested", "allowed"),
    [
        (b"", b"authorization, content-type"),
        (b"x-a,X-B ,\tx-c", b"x-a, X-B, x-c"),
        (b"x-a, bad name, x\x00, \xff, \r\nset-cookie: a", b"x-a"),
        (b"\x01", b"authorization, content-type"),
    ],
)
def test_preflight(requested: bytes, allowed: bytes) -> None:
    """
    A preflight is answered with the methods and the requested field names; what is no field name is left out.
    """
    found = dict(Cors(["*"], **NAMES).preflight(["GET", "PUT"], requested))

    assert found[b"access-control-allow-methods"] == b"GET, PUT"
    assert found[b"access-control-allow-headers"] == allowed


@given(st.binary(max_size=40))
@example(b"\x7f,a")
def test_preflight_sends_no_control_characters(requested: bytes) -> None:
    """
    For any requested bytes, the answer holds field names only.
    """
    found = dict(Cors(["*"], **NAMES).preflight(["GET"], requested))

    assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z, -]+", found[b"access-control-allow-headers"])
