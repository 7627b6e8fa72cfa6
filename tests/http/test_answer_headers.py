"""Each answer says that it is no other type, is kept by no cache, and where TLS is used that it always is."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from footlights.http.answer_headers import with_safe_headers


async def _app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"cache-control", b"no-cache")] if scope["path"] == "/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x"})


@pytest.mark.parametrize(
    ("path", "tls_only", "expected"),
    [
        ("/", False, {"x-content-type-options": "nosniff", "cache-control": "no-store"}),
        ("/own", False, {"x-content-type-options": "nosniff", "cache-control": "no-cache"}),
        (
            "/",
            True,
            {
                "x-content-type-options": "nosniff",
                "cache-control": "no-store",
                "strict-transport-security": "max-age=31536000",
            },
        ),
    ],
)
async def test_answers_are_safe_unless_they_say_otherwise(path: str, tls_only: bool, expected: dict[str, str]) -> None:
    """What the application sets itself stays, and nothing is there twice."""
    transport = httpx2.ASGITransport(app=with_safe_headers(_app, tls_only=tls_only))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path)

    assert dict(answer.headers.multi_items()) == expected
