"""Answers: their form on the wire, and errors as ``google.rpc.Status`` in JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from footlights.http.status import HTTP_STATUS
from footlights.status import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Send

    from footlights.errors import Error

_HTTP_STATUS: Final[Mapping[int, int]] = {**HTTP_STATUS, 3: 422, 9: 409}
"""By code. Bad arguments are 422 and bad state is 409: a player takes a 400 as a hint to try another protocol."""


class FrontDoorError(Exception):
    """An error that is the answer to a request, with its HTTP status where that is not the one of its code."""

    def __init__(self, error: Error, http_status: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.http_status = http_status or _HTTP_STATUS.get(error.code, 500)
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    async def __call__(self, send: Send, *, websocket: bool = False) -> None:
        """Send it; to a WebSocket handshake as its denial, which is an ASGI extension."""
        prefix = "websocket.http.response" if websocket else "http.response"
        headers = [*self.headers, (b"cache-control", b"no-store")]
        if self.status != 204:
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": f"{prefix}.start", "status": self.status, "headers": headers})
        await send({"type": f"{prefix}.body", "body": self.body})


def error_answer(problem: FrontDoorError) -> Answer:
    """The answer to a request that is refused: a ``google.rpc.Status`` with ``ErrorInfo``, and the name of its code."""
    error = problem.error
    headers = [(b"content-type", b"application/json")]
    if problem.http_status == 401:
        # RFC 6750 section 3: no error code where no credential was presented.
        hint = b"" if error.reason == "GRANT_MISSING" else b', error="invalid_token"'
        headers.append((b"www-authenticate", b'Bearer realm="footlights"' + hint))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return Answer(problem.http_status, tuple(headers), json.dumps(to_json(error), ensure_ascii=False).encode())
