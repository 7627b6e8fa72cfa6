"""What a gateway may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True)
class Options:
    """How a gateway answers. The defaults are grpc-gateway v2's dialect.

    Strict mode is for an API that owns its dialect: what a client got wrong is refused instead of ignored,
    a wrong method is 405 with ``Allow``, and errors made by the gateway are plain words with
    ``google.rpc`` details.
    """

    strict: bool = False
    use_proto_names: bool = False
    """Print proto field names; a field whose json_name was set by hand keeps its proto name too."""
    allow_delete_body: bool = False
    """Accept bindings that give DELETE a body."""

    forward_headers: tuple[str, ...] = ()
    """Request headers (lower case) that become metadata under their own name."""
    expose_headers: tuple[str, ...] = ()
    """Response metadata (lower case) that become headers under their own name."""
    error_domain: str = "gateway"
    """ErrorInfo.domain of errors that strict mode makes."""

    max_body_bytes: int = 4 * 1024 * 1024
    """The largest request body, and the largest single message of a client stream; beyond: 413."""
    max_header_count: int = 100
    """Beyond: 431."""
    max_url_bytes: int = 8192
    """The longest path and query together; beyond: 414."""
    default_timeout_s: float | None = None
    """Deadline of a unary call without Grpc-Timeout; None waits for the server."""
    max_timeout_s: float | None = None
    """The longest deadline that Grpc-Timeout can ask for; longer ones are lowered."""
    max_concurrent_calls: int = 1000
    """Calls in flight, streams included; beyond: 503 with Retry-After, before anything is decoded."""
    pace: Callable[[], Awaitable[bool]] | None = None
    """Waited for before each call; what it says False to is shed as above."""
    retry_after_s: int = 1
    """Retry-After of a shed request."""
    body_timeout_s: float = 30.0
    """The longest a request body may pause between two chunks; beyond: 408."""

    cors_origins: tuple[str, ...] = ()
    """Origins that may read answers from a browser; ``"*"`` allows every one."""
    keepalive_s: float = 15.0
    """A comment goes out on a Server-Sent Events stream that was quiet for so long."""
