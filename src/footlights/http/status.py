"""HTTP statuses of gRPC codes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HTTP_STATUS: Final[Mapping[int, int]] = MappingProxyType({
    0: 200,
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
})  # fmt: skip
"""As grpc-gateway maps them: FAILED_PRECONDITION is 400, not 412."""
