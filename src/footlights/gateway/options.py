"""How a gateway is configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True)
class Options:
    """How a gateway answers. The defaults are grpc-gateway v2's dialect.

    Strict mode is for an API that owns its dialect. A client's mistake is refused instead of ignored: two values for
    one field, conditions that the call does not keep (``If-Match``, ``Idempotency-Key``), a body that is not JSON
    (415), an empty path variable (404). HEAD and OPTIONS are served, a wrong method is 405 with ``Allow``, and errors
    of the gateway itself have ``google.rpc`` details.
    """

    strict: bool = False
    use_proto_names: bool = False
    """Print proto field names, except where json_name was set by hand in strict mode."""
    allow_delete_body: bool = False
    """Accept bindings that give DELETE a body."""

    forward_headers: tuple[str, ...] = ()
    """Request headers (lower case) that become metadata under their own name."""
    expose_headers: tuple[str, ...] = ()
    """Response metadata (lower case) that become headers under their own name."""
    name_status: bool = False
    """Give errors the member ``status``, the name of their code, beside ``code``."""
    detail_errors: bool = False
    """Answer errors as FastAPI does: ``{"detail": message}``, and 422 where it would be 400."""
    error_domain: str = "gateway"
    """ErrorInfo.domain of errors that strict mode makes."""

    max_body_bytes: int = 4 * 1024 * 1024
    """The largest request body, and the largest message of a client stream; more is 413."""
    max_header_count: int = 100
    """More is 431."""
    max_url_bytes: int = 8192
    """The longest path and query together; more is 414."""
    default_timeout_s: float | None = None
    """Deadline of a unary call without Grpc-Timeout; None for no deadline."""
    max_timeout_s: float | None = None
    """The longest deadline; a longer Grpc-Timeout is lowered to it."""
    max_concurrent_calls: int = 1000
    """Calls in flight, streams included; more are 503 with Retry-After, before anything is decoded."""
    pace: Callable[[], Awaitable[bool]] | None = None
    """Awaited before each call; a call for which it returns False is refused in the same way."""
    retry_after_s: int = 1
    """Retry-After of a request that is refused for overload, in seconds."""
    body_timeout_s: float = 30.0
    """The longest pause within a request body, in seconds; more is 408, and so is a trickle for longer than this."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read answers; ``"*"`` for all."""
    keepalive_s: float = 15.0
    """After so many quiet seconds a stream of events sends a comment, and one of lines a blank."""
