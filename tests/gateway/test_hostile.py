"""Any request gets one whole answer: fuzzed below HTTP, where no server has cleaned anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from footlights.gateway import Gateway, Options
from footlights.gateway.upstream import LocalUpstream
from tests.conformance.echo import Echo, service
from tests.conformance.recording import cases
from tests.gateway.handlers import LocalHandlers

pytestmark = pytest.mark.slow

QUIET = ("/v1/slow", "/v1/fail", ":watch", ":chat")
"""Paths whose answers are meant to fail or to last."""
TARGETS = sorted({case.target for case in cases() if not any(part in case.target for part in QUIET)})
BODIES = sorted({case.body for case in cases()})
BYTES = st.binary(max_size=40)
CRUMBS = st.sampled_from(
    [b"%", b"%00", b"%0a", b"%ff", b"%2F", b"%2f", b"%zz", b"..", b"//", b":", b"::", b";", b"&", b"=", b"[", b"]",
     b"{", b"}", b"*", b"**", b"\\", b"\xff", b"+", b"\xc3", b"%ed%a0%80", b".", b"?", b"#", b",", b"-1", b"1e999"]
)  # fmt: skip
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "", "\x00", "G" * 100]
NAMES = [
    b"accept", b"authorization", b"content-type", b"content-length", b"grpc-timeout", b"grpc-metadata-x",
    b"grpc-metadata-x-bin", b"grpc-metadata-", b"grpc-metadata-grpc-status", b"grpc-metadata-:path", b"last-event-id",
    b"x-http-method-override", b"x-request-id", b"x-forwarded-for", b"x-forwarded-host", b"host", b"origin", b"cookie",
    b"access-control-request-method", b"access-control-request-headers", b"idempotency-key", b"te",
]  # fmt: skip
VALUES = [
    b"", b"application/x-www-form-urlencoded", b"text/event-stream", b"1S", b"-1S", b"9" * 20 + b"H", b"DELETE",
    b"\xff\xfe", b"a\r\nb", b"-5", b"1e3", b"*", b"AAAA", b"x" * 600, b"\x00",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, whole: list[str]) -> bytes:
    """Something that is meant, broken in a few places; or anything."""
    text = draw(st.sampled_from(whole)).encode()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 3))
        text = text[:at] + draw(CRUMBS | BYTES) + text[at + cut :]
    return text


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], list[bytes]]:
    """A scope and a body in chunks."""
    path, _, query = draw(mutated(TARGETS)).partition(b"?")
    query = draw(st.just(query) | BYTES)
    headers = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | BYTES), max_size=8))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": draw(st.sampled_from(METHODS)), "raw_path": path, "path": unquote(path.decode("latin1")),
        "query_string": query, "headers": headers, "client": draw(st.sampled_from([("192.0.2.1", 1), None])),
        "server": ("127.0.0.1", 80),
    }  # fmt: skip
    return scope, draw(st.lists(mutated(BODIES), max_size=2))


class _Harness:
    """The two dialects in one loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        upstream = LocalUpstream(LocalHandlers(service(), Echo().functions()))
        common: dict[str, Any] = {"default_timeout_s": 2.0, "max_timeout_s": 2.0, "cors_origins": ("*",)}
        self.gateways = [
            Gateway(upstream, [service()], Options(strict=strict, use_proto_names=strict, **common))
            for strict in (False, True)
        ]

    def answer(self, gateway: Gateway, scope: dict[str, Any], chunks: list[bytes]) -> tuple[dict[str, Any], bytes]:
        """The head and the whole body; fails unless there is exactly one of each."""
        return self.runner.run(self._answer(gateway, scope, chunks))

    async def _answer(
        self, gateway: Gateway, scope: dict[str, Any], chunks: list[bytes]
    ) -> tuple[dict[str, Any], bytes]:
        sent: list[Any] = []
        coming = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        coming.append({"type": "http.request", "body": b"", "more_body": False})

        async def receive() -> Any:
            if coming:
                return coming.pop(0)
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(10):
            await gateway(scope, receive, send)
        assert sent[0]["type"] == "http.response.start"
        assert not any(message["type"] == "http.response.start" for message in sent[1:])
        assert [bool(message.get("more_body")) for message in sent[1:]].count(False) == 1
        return sent[0], b"".join(message["body"] for message in sent[1:])


@pytest.fixture(scope="module")
def harness() -> Iterator[_Harness]:
    """Both, for all examples."""
    made = _Harness()
    yield made
    made.runner.close()


HEADER_VALUE = frozenset(range(0x20, 0x100)) - {0x7F} | {0x09}


@given(requests())
@settings(max_examples=400, deadline=None)
@example(({"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "method": "GET",
              "raw_path": b"/v1/things%0A", "path": "/v1/things\n", "query_string": b"", "headers": [],
              "client": None}, []))  # fmt: skip
@example(({"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "method": "OPTIONS",
              "raw_path": b"/v1/things/a", "path": "/v1/things/a", "query_string": b"", "client": None, "headers": [
                  (b"access-control-request-method", b"GET"), (b"access-control-request-headers", b"\x00")]},
          []))  # fmt: skip
def test_whatever_comes(harness: _Harness, found: tuple[dict[str, Any], list[bytes]]) -> None:
    """
    The answer is whole; below 500, or 501, or 504 where the deadline has passed before it begins. Its headers can be
    sent, and a refusal is JSON with code and message.
    """
    scope, chunks = found
    for gateway in harness.gateways:
        head, body = harness.answer(gateway, scope, chunks)
        status, headers = head["status"], head["headers"]

        known = json.loads(body) if body.startswith(b"{") and status >= 400 else {}
        # The echo answers with the mask it was sent, which has no JSON where its paths are no paths.
        unprintable = "FieldMask" in str(known.get("message", ""))
        assert status < 500 or status in (501, 504) or unprintable, (gateway.options.strict, status, body)
        assert all(set(value) <= HEADER_VALUE and name == name.lower() for name, value in headers)
        if status >= 400 and scope["method"] != "HEAD" and dict(headers).get(b"content-type") == b"application/json":
            known = known.get("error", known)
            assert known["code"] in range(1, 17)
            assert known["message"]
        if gateway.options.strict:
            assert status != 501
            assert dict(headers)[b"x-request-id"]
    assert harness.gateways[0].in_flight == harness.gateways[1].in_flight == 0
